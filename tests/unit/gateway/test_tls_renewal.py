"""Files that change under a running service."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from support.authority import Authority, Pair

from gateway.tls import CallerFiles, PortFiles, TlsError
from gateway.tls_renewal import RenewedTls, ServiceTls


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def renewed(pair: Pair) -> RenewedTls:
    return RenewedTls("router", PortFiles(certificate=pair[0], key=pair[1]))


def expiry(tls: RenewedTls) -> float:
    assert tls.certificate is not None
    return tls.certificate.expires_at_unix_seconds


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR]


def test_nothing_is_made_while_nothing_changes(authority: Authority) -> None:
    """Connections share one context, and its sessions."""
    tls = renewed(authority.sign("port"))
    before = tls.context
    tls.look()
    assert tls.context is before


@pytest.mark.parametrize("is_rsa", [False, True], ids=["EC", "RSA"])
def test_a_new_pair_is_used(authority: Authority, is_rsa: bool) -> None:
    """Of the other kind of key too; the old context stays as it was, for what is open."""
    tls = renewed(authority.sign("port", days=1))
    before, ends = tls.context, expiry(tls)
    authority.sign("port", days=2, is_rsa=is_rsa)
    tls.look()
    assert tls.context is not before
    assert expiry(tls) == pytest.approx(ends + 86_400, abs=60)


def test_a_link_that_leads_elsewhere_is_a_change(authority: Authority, tmp_path: Path) -> None:
    """As Kubernetes and Let's Encrypt do it."""
    first, second = authority.sign("first", days=1), authority.sign("second", days=2)
    links = tmp_path / "live.pem", tmp_path / "live.key"
    for link, target in zip(links, first, strict=True):
        link.symlink_to(target)
    tls = renewed(links)
    for link, target in zip(links, second, strict=True):
        other = tmp_path / "next"
        other.symlink_to(target)
        other.replace(link)
    tls.look()
    assert tls.certificate is not None
    assert tls.certificate.subject == "second"


def test_half_a_renewal_is_passed_over_in_silence(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """Certificate first, key a moment later: the old pair, then the new one, and no error."""
    pair = authority.sign("port", days=1)
    tls = renewed(pair)
    before = tls.context
    old_key = pair[1].read_bytes()
    authority.sign("port", days=2)
    new_key = pair[1].read_bytes()
    pair[1].write_bytes(old_key)
    tls.look()
    assert tls.context is before
    pair[1].write_bytes(new_key)
    tls.look()
    assert tls.context is not before
    assert errors(caplog) == []


def test_a_pair_that_stays_bad_is_told_once(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    """The old one is kept; another bad one is told again; a good one ends it."""
    pair = authority.sign("port", days=30)
    tls = renewed(pair)
    before = tls.context
    for bad in (b"-----BEGIN CERTIFICATE-----\nAAAA\n", b""):
        caplog.clear()
        pair[0].write_bytes(bad)
        for _ in range(4):
            tls.look()
        [said] = errors(caplog)
        assert "the old ones are kept: [router] tls_certificate_file" in said
        assert tls.context is before
    pair[0].unlink()
    caplog.clear()
    tls.look()
    tls.look()
    [said] = errors(caplog)
    assert "No such file or directory" in said
    authority.sign("port", days=60)
    tls.look()
    assert tls.context is not before


def test_the_end_of_a_certificate_is_told_once_and_loudly(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """At start; a new one is good again."""
    tls = renewed(authority.sign("port", days=-1))
    tls.look()
    tls.look()
    [said] = [one for one in caplog.records if one.levelno == logging.CRITICAL]
    assert "EXPIRED on" in said.getMessage()
    caplog.clear()
    authority.sign("port", days=60)
    tls.look()
    assert errors(caplog) == []


def test_bad_files_at_the_start_are_an_error_with_the_table(authority: Authority) -> None:
    """So that a restarted worker says which."""
    one, other = authority.sign("one"), authority.sign("other")
    with pytest.raises(TlsError, match=r"^\[router\] tls_key_file = .*is not the key of"):
        renewed((one[0], other[1]))


def test_a_service_looks_after_what_it_has(authority: Authority) -> None:
    """Nothing without files; the system's CAs then."""
    pair = authority.sign("port")
    files = PortFiles(certificate=pair[0], key=pair[1])
    nothing = ServiceTls("router", None, CallerFiles())
    assert (nothing.port, nothing.loops(), nothing.shown()) == (None, {}, {})
    assert nothing.context() is nothing.context()
    calls = CallerFiles(ca=authority.ca, certificate=pair[0], key=pair[1])
    both = ServiceTls("router", files, calls)
    assert set(both.loops()) == {"TLS of the port", "TLS of calls"}
    assert set(both.shown()) == {"port", "client"}
    assert set(ServiceTls("router", files, CallerFiles(ca=authority.ca)).shown()) == {"port"}
