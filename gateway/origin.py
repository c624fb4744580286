"""Where an upstream is: scheme, host and port, and nothing else. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Origin:
    """Where to connect: scheme, host and port."""

    scheme: str
    host: str
    port: int
    host_header: bytes = field(init=False, compare=False)

    def __post_init__(self) -> None:
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        text = host if self.port == default else f"{host}:{self.port}"
        object.__setattr__(self, "host_header", text.encode("ascii"))

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
        return cls(parts.scheme, host, parts.port or (443 if parts.scheme == "https" else 80))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host_header.decode()}"
