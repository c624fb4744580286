"""The store in one process's memory: for tests, and for the simulator. Passes the same suite as Redis."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from fleet.quota_book import QuotaBook, Spending, Standing
from fleet.store import MAX_API_KEYS, MAX_ROUTERS, POWER_LOG_ENTRIES, SITE_TTL_SECONDS, StoreError

MAX_WAITING_EVENTS = 10_000
"""Of one subscriber; a slower one loses its subscription, as it would on Redis."""


@dataclass(slots=True, eq=False)
class _Subscriber:
    sites: bool
    plan: bool
    power_of: frozenset[str] | None
    queue: asyncio.Queue[tuple[str, bytes] | None]

    def wants(self, kind: str, site_id: str) -> bool:
        if kind == "power":
            return self.power_of is None or site_id in self.power_of
        return self.sites if kind == "site" else self.plan


@dataclass(slots=True, kw_only=True)
class MemoryStore:
    """`fleet.store.Store` without a server. `is_down` makes every call fail, as a dead Redis does."""

    clock: Callable[[], float] = time.monotonic
    is_down: bool = False
    _quotas: QuotaBook = field(default_factory=QuotaBook)
    _values: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    _sites: dict[str, float] = field(default_factory=dict)
    _logs: dict[str, deque[bytes]] = field(default_factory=dict)
    _api_keys: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    _lease_holder: tuple[str, float] | None = None
    _subscribers: list[_Subscriber] = field(default_factory=list)

    async def publish_site_report(self, site_id: str, record: bytes, unix_seconds: float) -> None:
        self._set(f"site:{site_id}", record, SITE_TTL_SECONDS)
        self._sites[site_id] = unix_seconds
        self._publish("site", site_id, record)

    async def publish_site_info(self, site_id: str, record: bytes) -> None:
        self._set(f"site-info:{site_id}", record)

    async def publish_power_reading(self, site_id: str, record: bytes, *, log: bool) -> None:
        self._set(f"power:{site_id}", record)
        if log:
            self._logs.setdefault(site_id, deque(maxlen=POWER_LOG_ENTRIES)).append(record)
        self._publish("power", site_id, record)

    async def publish_plan(self, record: bytes, ttl_seconds: float | None = None) -> None:
        self._set("plan", record, float("inf") if ttl_seconds is None else ttl_seconds)
        self._publish("plan", "", record)

    async def publish_router(self, router_id: str, record: bytes, ttl_seconds: int) -> None:
        self._set(f"router:{router_id}", record, ttl_seconds)

    async def routers(self) -> list[bytes]:
        self._check()
        records = [self._get(name) for name in sorted(self._values) if name.startswith("router:")]
        return [record for record in records if record is not None][:MAX_ROUTERS]

    async def acquire_planner_lease(
        self, holder: str, record: bytes, ttl_seconds: float, *, instead_of: bytes = b""
    ) -> bool:
        self._check()
        is_void = bool(instead_of) and await self.planner_lease() == instead_of
        if self._lease_holder is not None and not is_void:
            held_by, until = self._lease_holder
            if held_by != holder and self.clock() < until:
                return False
        self._lease_holder = (holder, self.clock() + ttl_seconds)
        self._set("planner-lease", record, ttl_seconds)
        return True

    async def share_quotas(self, member: str, spendings: Sequence[Spending]) -> list[Standing]:
        self._check()
        return self._quotas.share(member, spendings, self.clock())

    async def write_api_key(self, sha256_hex: str, fields: Mapping[str, str]) -> None:
        self._check()
        self._api_keys[sha256_hex] = {name.encode(): value.encode() for name, value in fields.items()}

    async def update_api_key(self, sha256_hex: str, fields: Mapping[str, str]) -> bool:
        self._check()
        kept = self._api_keys.get(sha256_hex)
        if kept is None:
            return False
        kept.update({name.encode(): value.encode() for name, value in fields.items()})
        return True

    async def api_key_ids(self) -> list[str]:
        self._check()
        return sorted(self._api_keys)[:MAX_API_KEYS]

    async def api_keys(self, ids: Sequence[str]) -> list[dict[bytes, bytes]]:
        self._check()
        return [dict(self._api_keys.get(sha256_hex, {})) for sha256_hex in ids]

    async def site_ids(self, newer_than_unix_seconds: float = 0.0) -> list[str]:
        self._check()
        return sorted(site_id for site_id, at in self._sites.items() if at > newer_than_unix_seconds)

    async def site_reports(self, site_ids: Sequence[str]) -> list[bytes | None]:
        return [self._get(f"site:{site_id}") for site_id in site_ids]

    async def site_infos(self, site_ids: Sequence[str]) -> list[bytes | None]:
        return [self._get(f"site-info:{site_id}") for site_id in site_ids]

    async def cordons(self, site_ids: Sequence[str]) -> list[bytes | None]:
        return [self._get(f"cordon:{site_id}") for site_id in site_ids]

    async def write_cordon(self, site_id: str, record: bytes, ttl_seconds: float | None) -> None:
        self._set(f"cordon:{site_id}", record, float("inf") if ttl_seconds is None else ttl_seconds)

    async def restore_cordon(self, site_id: str, record: bytes, ttl_seconds: float | None) -> None:
        if self._get(f"cordon:{site_id}") is None:
            await self.write_cordon(site_id, record, ttl_seconds)

    async def power_readings(self, site_ids: Sequence[str]) -> list[bytes | None]:
        return [self._get(f"power:{site_id}") for site_id in site_ids]

    async def power_log(self, site_id: str, count: int) -> list[bytes]:
        self._check()
        return list(self._logs.get(site_id, ()))[-count:]

    async def plan(self) -> bytes | None:
        return self._get("plan")

    async def planner_lease(self) -> bytes | None:
        return self._get("planner-lease")

    async def events(
        self, *, sites: bool = False, plan: bool = False, power_of: Sequence[str] | None = ()
    ) -> AsyncIterator[tuple[str, bytes]]:
        self._check()
        wanted = None if power_of is None else frozenset(power_of)
        if not sites and not plan and wanted is not None and not wanted:
            raise ValueError("events() of nothing")
        with self._subscribed(_Subscriber(sites, plan, wanted, asyncio.Queue(MAX_WAITING_EVENTS))) as queue:
            while True:
                event = await queue.get()
                if event is None:
                    raise StoreError("the subscription was lost")
                yield event

    @contextmanager
    def _subscribed(self, subscriber: _Subscriber) -> Iterator[asyncio.Queue[tuple[str, bytes] | None]]:
        self._subscribers.append(subscriber)
        try:
            yield subscriber.queue
        finally:
            self._subscribers.remove(subscriber)

    async def ping(self) -> None:
        self._check()

    async def aclose(self) -> None:
        """Nothing is held."""

    def drop_subscribers(self) -> None:
        """What a restarted server does to those who listen."""
        for subscriber in self._subscribers:
            while not subscriber.queue.empty():
                subscriber.queue.get_nowait()
            subscriber.queue.put_nowait(None)

    def _check(self) -> None:
        if self.is_down:
            raise StoreError("the memory store is switched off")

    def _set(self, name: str, record: bytes, ttl_seconds: float = float("inf")) -> None:
        self._check()
        self._values[name] = (record, self.clock() + ttl_seconds)

    def _get(self, name: str) -> bytes | None:
        self._check()
        record, until = self._values.get(name, (None, 0.0))
        return record if self.clock() < until else None

    def _publish(self, kind: str, site_id: str, record: bytes) -> None:
        for subscriber in self._subscribers:
            if subscriber.wants(kind, site_id):
                if subscriber.queue.full():
                    while not subscriber.queue.empty():
                        subscriber.queue.get_nowait()
                    subscriber.queue.put_nowait(None)
                else:
                    subscriber.queue.put_nowait((kind, record))
