"""Which ingress URLs a router may call: only addresses inside the configured networks (DESIGN §4).

A site's URL comes out of Redis, so it is judged as hostile: a name is resolved, every address it has must be
allowed, and for http the address that was checked is the one that is called (a second look-up could answer
differently). For https the name is kept, since its certificate speaks for it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence

from gateway.upstream import Origin

RESOLVE_TIMEOUT_SECONDS = 3.0

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class NotAllowedError(ValueError):
    """An ingress URL that may not be called; the text says why and which setting decides."""


def check_literal(ingress_url: str, networks: Sequence[Network]) -> Origin | None:
    """The origin of a URL whose host is an IP address; None where the host is a name to be resolved.

    Raises:
        NotAllowedError: not a URL of the right shape, or outside the networks.
    """
    origin = _parse(ingress_url)
    try:
        address = ipaddress.ip_address(origin.host)
    except ValueError:
        return None
    _check(address, ingress_url, networks)
    return origin


async def check_name(ingress_url: str, networks: Sequence[Network]) -> Origin:
    """Resolve a URL's host and check every address it has.

    Raises:
        NotAllowedError: it does not resolve in time, or not only to allowed addresses.
    """
    origin = _parse(ingress_url)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_SECONDS):
            found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError) as error:
        raise NotAllowedError(f"{ingress_url}: the host cannot be resolved: {error or 'time-out'}") from None
    addresses = sorted({str(entry[4][0]).partition("%")[0] for entry in found})
    if not addresses:
        raise NotAllowedError(f"{ingress_url}: the host has no address")
    for address in addresses:
        _check(ipaddress.ip_address(address), ingress_url, networks)
    if origin.scheme == "https":
        return origin
    return Origin.of(origin.scheme, addresses[0], origin.port)


def _parse(ingress_url: str) -> Origin:
    try:
        return Origin.parse(ingress_url)
    except ValueError as error:
        raise NotAllowedError(f"ingress_url {error}") from None


def _check(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, ingress_url: str, networks: Sequence[Network]
) -> None:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if not any(address.version == network.version and address in network for network in networks):
        raise NotAllowedError(
            f"{ingress_url}: {address} is outside [router] site_networks"
            f" ({', '.join(str(network) for network in networks)}): add its network there, or remove the site"
        )
