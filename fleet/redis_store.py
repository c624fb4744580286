"""The store on Redis.

Rule: no call lasts longer than `timeout_seconds`, nothing is retried here, and every failure is a StoreError
that names the server without its password. The next call connects anew by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import orjson
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from fleet.keys import Keys, is_key_id, is_name
from fleet.loops import errors_as
from fleet.quota_book import FORGET_SECONDS, FRESH_SECONDS, MAX_KEYS, Spending, Standing
from fleet.redis_scripts import READ_HASHES, SHARE_QUOTAS, TAKE_LEASE, UPDATE_HASH
from fleet.store import MAX_API_KEYS, MAX_ROUTERS, POWER_LOG_ENTRIES, SITE_TTL_SECONDS, StoreError
from fleet.wire import MAX_KEY_FIELDS, MAX_PLAN_BYTES, MAX_RECORD_BYTES

T = TypeVar("T")

TIMEOUT_SECONDS = 2.0
MAX_CONNECTIONS = 16
MAX_SITES = 10_000
"""Ids read of `sites`: a hostile writer may add any number."""
SCAN_COUNT = 1000
"""Keys that Redis looks at in one step of a scan: a fraction of a millisecond."""
PING_SECONDS = 10.0
"""A subscription that hears nothing asks so often whether the server still lives."""


class RedisStore:
    """`fleet.store.Store` on a Redis server."""

    def __init__(self, url: str, keys: Keys, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._keys = keys
        self._timeout_seconds = timeout_seconds
        parts = urlsplit(url)
        self._name = parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or 6379}"
        self._redis: Redis = Redis.from_url(
            url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            max_connections=MAX_CONNECTIONS,
            retry=Retry(NoBackoff(), 0),
        )

    # writing

    async def publish_site_report(self, site_id: str, record: bytes, unix_seconds: float) -> None:
        pipe = self._redis.pipeline(transaction=False)
        pipe.set(self._keys.site(site_id), record, ex=SITE_TTL_SECONDS)
        pipe.zadd(self._keys.sites, {site_id: unix_seconds})
        pipe.publish(self._keys.site_channel, record)
        await self._do(pipe.execute())

    async def publish_site_info(self, site_id: str, record: bytes) -> None:
        await self._do(self._redis.set(self._keys.site_info(site_id), record))

    async def publish_power_reading(self, site_id: str, record: bytes, *, log: bool) -> None:
        pipe = self._redis.pipeline(transaction=False)
        pipe.set(self._keys.power(site_id), record)
        pipe.publish(self._keys.power_channel(site_id), record)
        if log:
            pipe.xadd(
                self._keys.power_log(site_id), {"record": record}, maxlen=POWER_LOG_ENTRIES, approximate=True
            )
        await self._do(pipe.execute())

    async def publish_plan(self, record: bytes, ttl_seconds: float | None = None) -> None:
        pipe = self._redis.pipeline(transaction=False)
        milliseconds = None if ttl_seconds is None else max(1, round(ttl_seconds * 1000))
        pipe.set(self._keys.plan, record, px=milliseconds)
        pipe.publish(self._keys.plan_channel, record)
        await self._do(pipe.execute())

    async def publish_router(self, router_id: str, record: bytes, ttl_seconds: int) -> None:
        await self._do(self._redis.set(self._keys.router(router_id), record, ex=ttl_seconds))

    async def routers(self) -> list[bytes]:
        found: set[bytes] = set()
        cursor = 0
        while len(found) < MAX_ROUTERS:
            cursor, names = await self._do(
                self._redis.scan(cursor, match=self._keys.router("*"), count=SCAN_COUNT)
            )
            found.update(names)
            if cursor == 0:
                break
        names = [name.decode("utf-8", "replace") for name in sorted(found)[:MAX_ROUTERS]]
        return [record for record in await self._get(names) if record is not None]

    async def acquire_planner_lease(
        self, holder: str, record: bytes, ttl_seconds: float, *, instead_of: bytes = b""
    ) -> bool:
        milliseconds = max(1, round(ttl_seconds * 1000))
        taken: Awaitable[Any] = self._redis.eval(
            TAKE_LEASE, 1, self._keys.planner_lease, holder, record, milliseconds, instead_of
        )
        return bool(await self._do(taken))

    async def share_quotas(self, member: str, spendings: Sequence[Spending]) -> list[Standing]:
        told = orjson.dumps([list(one) for one in spendings])
        shared: Awaitable[Any] = self._redis.eval(
            SHARE_QUOTAS, 1, self._keys.quotas, member, told, FRESH_SECONDS, FORGET_SECONDS, MAX_KEYS
        )
        answer = orjson.loads(await self._do(shared))
        return [
            Standing(key_id, requests, tokens, None if own is None else (own[0], own[1]), int(elsewhere))
            for key_id, requests, tokens, own, elsewhere in answer or ()
        ]

    async def write_api_key(self, sha256_hex: str, fields: Mapping[str, str]) -> None:
        name = self._keys.api_key(sha256_hex)
        pipe = self._redis.pipeline(transaction=True)
        pipe.delete(name)
        for field, value in fields.items():
            pipe.hset(name, field, value)
        await self._do(pipe.execute())

    async def update_api_key(self, sha256_hex: str, fields: Mapping[str, str]) -> bool:
        words = [word for pair in fields.items() for word in pair]
        updated: Awaitable[Any] = self._redis.eval(UPDATE_HASH, 1, self._keys.api_key(sha256_hex), *words)
        return bool(await self._do(updated))

    async def write_cordon(self, site_id: str, record: bytes, ttl_seconds: float | None) -> None:
        key = self._keys.cordon(site_id)
        await self._do(self._redis.set(key, record, px=_milliseconds(ttl_seconds)))

    async def restore_cordon(self, site_id: str, record: bytes, ttl_seconds: float | None) -> None:
        key = self._keys.cordon(site_id)
        await self._do(self._redis.set(key, record, px=_milliseconds(ttl_seconds), nx=True))

    # reading

    async def api_key_ids(self) -> list[str]:
        prefix = self._keys.api_key("").encode()
        pattern = self._keys.api_key("") + "*"  # a fleet name has no character that a pattern knows
        found: set[str] = set()
        cursor = 0
        while len(found) < MAX_API_KEYS:
            cursor, names = await self._do(self._redis.scan(cursor, match=pattern, count=SCAN_COUNT))
            ids = (name.removeprefix(prefix).decode("utf-8", "replace") for name in names)
            found.update(sha256_hex for sha256_hex in ids if is_key_id(sha256_hex))
            if cursor == 0:
                break
        return sorted(found)[:MAX_API_KEYS]

    async def api_keys(self, ids: Sequence[str]) -> list[dict[bytes, bytes]]:
        if not ids:
            return []
        names = [self._keys.api_key(sha256_hex) for sha256_hex in ids]
        read: Awaitable[Any] = self._redis.eval(
            READ_HASHES, len(names), *names, 2 * MAX_KEY_FIELDS, 2 * MAX_RECORD_BYTES
        )
        return [dict(zip(flat[::2], flat[1::2], strict=True)) for flat in await self._do(read)]

    async def site_ids(self, newer_than_unix_seconds: float = 0.0) -> list[str]:
        found = await self._do(
            self._redis.zrevrangebyscore(
                self._keys.sites, "+inf", f"({newer_than_unix_seconds!r}", start=0, num=MAX_SITES
            )
        )
        names = [raw.decode("utf-8", "replace") for raw in found]
        return sorted(name for name in names if is_name(name))

    async def site_reports(self, site_ids: Sequence[str]) -> list[bytes | None]:
        return await self._get([self._keys.site(site_id) for site_id in site_ids])

    async def site_infos(self, site_ids: Sequence[str]) -> list[bytes | None]:
        return await self._get([self._keys.site_info(site_id) for site_id in site_ids])

    async def cordons(self, site_ids: Sequence[str]) -> list[bytes | None]:
        return await self._get([self._keys.cordon(site_id) for site_id in site_ids])

    async def power_readings(self, site_ids: Sequence[str]) -> list[bytes | None]:
        return await self._get([self._keys.power(site_id) for site_id in site_ids])

    async def power_log(self, site_id: str, count: int) -> list[bytes]:
        entries = await self._do(self._redis.xrevrange(self._keys.power_log(site_id), count=count))
        return [fields[b"record"] for _, fields in reversed(entries) if b"record" in fields]

    async def plan(self) -> bytes | None:
        return (await self._get([self._keys.plan], MAX_PLAN_BYTES))[0]

    async def planner_lease(self) -> bytes | None:
        return (await self._get([self._keys.planner_lease]))[0]

    async def events(
        self, *, sites: bool = False, plan: bool = False, power_of: Sequence[str] | None = ()
    ) -> AsyncIterator[tuple[str, bytes]]:
        kinds: dict[bytes, str] = {}
        if sites:
            kinds[self._keys.site_channel.encode()] = "site"
        if plan:
            kinds[self._keys.plan_channel.encode()] = "plan"
        for site_id in power_of or ():
            kinds[self._keys.power_channel(site_id).encode()] = "power"
        if not kinds and power_of is not None:
            raise ValueError("events() of nothing")
        subscription: PubSub = self._redis.pubsub()
        try:
            if kinds:
                await self._do(subscription.subscribe(*kinds))
            if power_of is None:
                await self._do(subscription.psubscribe(self._keys.power_channel_pattern))
            is_asked = False
            while True:
                message = await self._next(subscription)
                if message is None and is_asked:
                    raise StoreError(f"redis at {self._name}: a subscription got no answer")
                is_asked = message is None
                if message is None:
                    await self._do(subscription.ping())
                elif message["type"] in ("message", "pmessage"):
                    yield kinds.get(message["channel"], "power"), message["data"]
        finally:
            await self._close(subscription)

    async def _next(self, subscription: PubSub) -> dict[str, Any] | None:
        """The next message, None after a quiet spell."""
        with self._as_store_error():
            message: dict[str, Any] | None = await subscription.get_message(timeout=PING_SECONDS)
        return message

    async def ping(self) -> None:
        await self._do(self._redis.ping())

    async def aclose(self) -> None:
        await self._close(self._redis)

    async def _close(self, what: Redis | PubSub) -> None:
        """It is of no use any more, however it ends."""
        with contextlib.suppress(StoreError), self._as_store_error():
            await what.aclose()

    async def _get(self, names: list[str], max_bytes: int = MAX_RECORD_BYTES) -> list[bytes | None]:
        """What the keys hold, in one round trip, of each no more than one byte over `max_bytes`.

        One hostile value cannot fill the time and memory of the others, and who reads it sees that it is too
        large. A key of a wrong type reads as missing, and so does an empty one: GETRANGE tells no difference.

        Raises:
            StoreError: as for every call; what the server says of a wrong type is none.
        """
        if not names:
            return []
        pipe = self._redis.pipeline(transaction=False)
        for name in names:
            pipe.getrange(name, 0, max_bytes)
        answers = await self._do(pipe.execute(raise_on_error=False))
        for answer in answers:
            if isinstance(answer, ResponseError) and not str(answer).startswith("WRONGTYPE"):
                raise StoreError(f"redis at {self._name}: {answer}") from answer
        return [answer if isinstance(answer, bytes) and answer else None for answer in answers]

    async def _do(self, call: Any) -> Any:
        with self._as_store_error():
            async with asyncio.timeout(self._timeout_seconds):
                try:
                    return await call
                except RedisConnectionError:
                    # a Redis that was restarted has closed the others too: each would fail one call more
                    await self._redis.connection_pool.disconnect(inuse_connections=False)
                    raise

    @contextlib.contextmanager
    def _as_store_error(self) -> Iterator[None]:
        """Around every wait for the client.

        redis-py waits within asyncio.wait_for, which on Python 3.11 loses a cancellation that comes as the
        wait ends, well or by an error; a task that must end would go on forever.
        """
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"
        cancels = task.cancelling()
        try:
            with errors_as(StoreError, f"redis at {self._name}"):
                yield
        except StoreError:
            if task.cancelling() > cancels:
                raise asyncio.CancelledError from None
            raise
        if task.cancelling() > cancels:
            raise asyncio.CancelledError


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else max(1, round(seconds * 1000))
