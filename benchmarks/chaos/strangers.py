"""Records that a stranger writes into Redis: broken, old, doubled, of a second writer, of another type.

Never one that grants a site more than the wind gives: while the feed is silent its place may be taken by
whoever can write to Redis (DESIGN §4: a second writer is refused until the first has been silent for 2 s).
"""

from __future__ import annotations

import json
import random
from typing import Any

from redis.asyncio import Redis

from fleet.keys import Keys

HUGE_BYTES = 2 << 20
STRANGER = "stranger"


class Stranger:
    """Somebody who may write to the fleet's Redis, and should not."""

    def __init__(self, redis_url: str, keys: Keys, rng: random.Random) -> None:
        self._redis: Redis = Redis.from_url(redis_url, socket_timeout=2.0, socket_connect_timeout=2.0)
        self._keys = keys
        self._rng = rng
        self._kept: dict[str, bytes] = {}

    async def aclose(self) -> None:
        """Go."""
        await self._redis.aclose()

    async def remember(self, site_id: str) -> None:
        """What stands there now, to be written again later.

        Raises:
            RedisError: Redis does not answer.
        """
        for name in self._names(site_id):
            if await self._redis.type(name) == b"string" and (raw := await self._redis.get(name)):
                self._kept[name] = raw if isinstance(raw, bytes) else raw.encode()

    async def write_old(self, site_id: str) -> None:
        """What stood there before, again; on the channels too."""
        for name in self._names(site_id):
            if name in self._kept:
                await self._redis.set(name, self._kept[name])
                await self._redis.publish(self._channel(name, site_id), self._kept[name])

    async def write_garbage(self, site_id: str) -> None:
        """What no reader can take."""
        name = self._rng.choice((*self._names(site_id), self._keys.cordon(site_id), self._keys.plan))
        raw = self._garbage()
        await self._redis.set(name, raw)
        await self._redis.publish(self._channel(name, site_id), raw)

    def _garbage(self) -> bytes:
        whole = next(iter(self._kept.values()), b"{}")
        return self._rng.choice(
            (
                b"",
                b"\xff\xfe" + self._rng.randbytes(40),
                b"[" * 5000,
                b"x" * HUGE_BYTES,
                whole[: len(whole) // 2],
                b'{"schema_version": "9.0"}',
                b'{"schema_version": "1.0", "sequence": 1e400}',
                b'{"schema_version": "1.0", "sequence": -1, "site_id": "../../etc"}',
                b"null",
            )
        )

    async def write_second(self, site_id: str) -> None:
        """Well-formed records of another writer: a site full of room, and wind that is gone."""
        changes: tuple[tuple[str, str, dict[str, Any]], ...] = (
            (self._keys.site(site_id), "agent_id", {"state": "serving"}),
            (self._keys.power(site_id), "feed_id", {"granted_power_watts": 0.0}),
        )
        for name, writer, fields in changes:
            if name not in self._kept:
                continue
            record = json.loads(self._kept[name])
            record |= {writer: STRANGER, "sequence": record["sequence"] + 3_600_000, **fields}
            raw = json.dumps(record).encode()
            self._kept[name] = raw
            await self._redis.publish(self._channel(name, site_id), raw)

    async def change_types(self, target: str) -> None:
        """Keys that are no strings any more, or the set of sites that is one."""
        if target == "sites":
            await self._redis.set(self._keys.sites, "no set")
            return
        for name in self._names(target):
            await self._redis.delete(name)
            await self._redis.rpush(name, "a list")

    async def remove(self, target: str) -> None:
        """Take away what `change_types` left."""
        for name in (self._keys.sites,) if target == "sites" else self._names(target):
            if await self._redis.type(name) != (b"zset" if target == "sites" else b"string"):
                await self._redis.delete(name)

    async def flush(self) -> None:
        """FLUSHALL."""
        await self._redis.flushall()

    def _names(self, site_id: str) -> tuple[str, ...]:
        return self._keys.site(site_id), self._keys.power(site_id), self._keys.site_info(site_id)

    def _channel(self, name: str, site_id: str) -> str:
        if name == self._keys.power(site_id):
            return self._keys.power_channel(site_id)
        return self._keys.plan_channel if name == self._keys.plan else self._keys.site_channel
