"""One protocol for where the records live; `fleet.memory_store` and `fleet.redis_store` pass one test suite.

Rule: a store moves bytes. It never parses, never judges, and no request waits for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from fleet.quota_book import Spending, Standing

SITE_TTL_SECONDS = 60
POWER_LOG_ENTRIES = 7 * 24 * 60
"""Seven days at one a minute."""


MAX_ROUTERS = 1000
"""Read of a fleet: anybody who writes to Redis may add any number."""
MAX_API_KEYS = 10_000
"""Read of a fleet: Redis is writable by more than `heron keys`."""


class StoreError(Exception):
    """The store cannot be reached or refused; the message says which and why. Callers go on without it."""


class Store(Protocol):
    """Every call may raise StoreError within `timeout_seconds` of the store; none blocks for longer."""

    async def publish_site_report(self, site_id: str, record: bytes, unix_seconds: float) -> None:
        """SET `site:<site>` with its TTL, ZADD `sites`, PUBLISH `events:site`, in one round trip."""

    async def publish_site_info(self, site_id: str, record: bytes) -> None:
        """SET `site-info:<site>`."""

    async def publish_power_reading(self, site_id: str, record: bytes, *, log: bool) -> None:
        """SET `power:<site>`, PUBLISH on its channel, and with `log` XADD `power-log:<site>`, capped."""

    async def publish_plan(self, record: bytes, ttl_seconds: float | None = None) -> None:
        """SET `plan`, gone after its TTL, PUBLISH `events:plan`."""

    async def publish_router(self, router_id: str, record: bytes, ttl_seconds: int) -> None:
        """SET `router:<id>` with a TTL."""

    async def routers(self) -> list[bytes]:
        """The record of every router that is there, at most MAX_ROUTERS, in no order."""

    async def acquire_planner_lease(
        self, holder: str, record: bytes, ttl_seconds: float, *, instead_of: bytes = b""
    ) -> bool:
        """Take or renew the lease; False while another holds it. `instead_of`: a record that holds nothing,
        since it is not believed."""

    async def write_api_key(self, sha256_hex: str, fields: Mapping[str, str]) -> None:
        """HSET `key:<sha256>`, in place of whatever was there."""

    async def update_api_key(self, sha256_hex: str, fields: Mapping[str, str]) -> bool:
        """HSET these fields of a key that exists; False, and nothing is written, where none does."""

    async def api_key_ids(self) -> list[str]:
        """The SHA-256 of every key, in hex, sorted; at most MAX_API_KEYS of them."""

    async def api_keys(self, ids: Sequence[str]) -> list[dict[bytes, bytes]]:
        """HGETALL of each, empty where there is none (or it is no hash, or far too large)."""

    async def share_quotas(self, member: str, spendings: Sequence[Spending]) -> list[Standing]:
        """`fleet.quota_book.QuotaBook.share`, of the whole fleet."""

    async def site_ids(self, newer_than_unix_seconds: float = 0.0) -> list[str]:
        """Sites that reported after that instant, sorted by name."""

    async def site_reports(self, site_ids: Sequence[str]) -> list[bytes | None]:
        """Latest report per site, None where there is none (or it expired)."""

    async def site_infos(self, site_ids: Sequence[str]) -> list[bytes | None]: ...

    async def cordons(self, site_ids: Sequence[str]) -> list[bytes | None]:
        """Cordon per site, None where there is none (or its time is over)."""

    async def write_cordon(self, site_id: str, record: bytes, ttl_seconds: float | None) -> None:
        """SET `cordon:<site>`, with a TTL if there is one."""

    async def restore_cordon(self, site_id: str, record: bytes, ttl_seconds: float | None) -> None:
        """The same where there is none (NX): a newer word of the operator stands."""

    async def power_readings(self, site_ids: Sequence[str]) -> list[bytes | None]: ...

    async def power_log(self, site_id: str, count: int) -> list[bytes]:
        """The newest `count` logged readings, oldest first."""

    async def plan(self) -> bytes | None: ...

    async def planner_lease(self) -> bytes | None: ...

    def events(
        self, *, sites: bool = False, plan: bool = False, power_of: Sequence[str] | None = ()
    ) -> AsyncIterator[tuple[str, bytes]]:
        """Records as they are published, as (`site` | `plan` | `power`, record).

        `power_of`: these sites' readings; None for every site's. Ends with StoreError when the connection is
        lost: the caller subscribes anew, with back-off, and re-reads.
        """

    async def ping(self) -> None:
        """Raise StoreError unless the store answers."""

    async def aclose(self) -> None: ...
