"""Which ingress URLs may be called."""

from __future__ import annotations

import ipaddress

import pytest

from router.live.networks import NotAllowedError, check_literal, check_name

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


@pytest.mark.parametrize("url", ["http://127.0.0.1:80", "http://[::1]:80", "https://127.9.9.9"])
def test_an_allowed_address_passes(url: str):
    """IPv4 and IPv6."""
    assert check_literal(url, LOOPBACK) is not None


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1", "http://[fe80::1]:80", "http://0.0.0.0", "http://[::ffff:10.0.0.1]:80"]
)
def test_another_address_is_refused_with_the_setting_s_name(url: str):
    """So that an operator knows what to change."""
    with pytest.raises(NotAllowedError, match="site_networks"):
        check_literal(url, LOOPBACK)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:80", "ftp://127.0.0.1", "http://127.0.0.1/x", "http://u:p@127.0.0.1"]
)
def test_what_is_not_an_origin_is_refused(url: str):
    """Scheme, host and port only."""
    with pytest.raises(NotAllowedError):
        check_literal(url, LOOPBACK)


def test_a_name_is_left_to_be_resolved():
    """Not judged by its looks."""
    assert check_literal("http://localhost:80", LOOPBACK) is None


async def test_a_name_is_replaced_by_the_address_that_was_checked():
    """A second look-up could answer differently; for https the certificate speaks."""
    assert (await check_name("http://localhost:80", LOOPBACK)).host in ("127.0.0.1", "::1")
    assert (await check_name("https://localhost:80", LOOPBACK)).host == "localhost"


async def test_a_name_outside_the_networks_is_refused():
    """By what it resolves to."""
    with pytest.raises(NotAllowedError):
        await check_name("http://localhost:80", (ipaddress.ip_network("10.0.0.0/8"),))
