"""Where an upstream is: scheme, host and port, and nothing else. Pure."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit


class Origin(NamedTuple):
    """Where to connect (a tuple: it is hashed for every request)."""

    scheme: str
    host: str
    port: int
    host_header: bytes

    @classmethod
    def of(cls, scheme: str, host: str, port: int) -> Origin:
        """With the `host` header that belongs to it."""
        name = f"[{host}]" if ":" in host else host
        default = 443 if scheme == "https" else 80
        return cls(scheme, host, port, (name if port == default else f"{name}:{port}").encode("ascii"))

    @classmethod
    def parse(cls, url: str) -> Origin:
        """`http://host:port`, without path, query or user.

        Raises:
            ValueError: saying what is wrong with the URL.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            raise ValueError(f"{url!r}: the scheme must be http or https")
        if not parts.hostname:
            raise ValueError(f"{url!r}: there is no host")
        if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username or parts.password:
            raise ValueError(f"{url!r}: only scheme, host and port are allowed")
        host = parts.hostname
        if not host.isascii() or not host.isprintable() or " " in host:
            raise ValueError(f"{url!r}: the host must be plain ASCII")
        return cls.of(parts.scheme, host, parts.port or (443 if parts.scheme == "https" else 80))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host_header.decode()}"
