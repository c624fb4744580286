"""The router on a real Redis that comes, goes, and holds anything."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest
from support.router_fleet import chat, router_fleet
from support.wait import until


async def test_sites_are_found_and_served(redis_store: Any):
    """Keys, channel and all."""
    async with router_fleet(redis_store, "a", "b") as fleet:
        for _ in range(4):
            assert (await fleet.post(chat())).status_code == 200
        await fleet.settled(completed=4)


async def test_presence_is_written_with_a_ttl(redis_store: Any, redis_server: Any):
    """For operators."""
    async with router_fleet(redis_store, "a") as fleet:
        key = f"heron:default:router:{fleet.router.router_id}"
        await until(lambda: redis_server.client().ttl(key) > 0, what="presence is there")
        assert redis_server.client().ttl(key) <= 15
        presence = orjson.loads(redis_server.client().get(key))
        assert (presence["policy"], presence["workers"]) == ("heron", 1)


async def test_requests_go_on_without_redis(redis_store: Any, redis_server: Any):
    """And the router finds it again by itself, empty."""
    async with router_fleet(redis_store, "a", "b") as fleet:
        redis_server.stop()
        await until(lambda: fleet.router.reader.is_store_up is False, what="it is missed")
        for _ in range(5):
            assert (await fleet.post(chat())).status_code == 200
        for site_id in ("a", "b"):  # as if three seconds had passed
            kept = fleet.router.view.records(site_id)
            assert kept is not None
            kept.stored_at -= 10
        await until(lambda: all(site.reports_asked for site in fleet.sites), what="the sites are asked")
        redis_server.start()
        await until(lambda: fleet.router.reader.is_store_up is True, what="it is back")
        assert set(fleet.router.view.snapshot.sites) == {"a", "b"}
        sequence = fleet.sequence("a")
        await fleet.announce()
        assert fleet.sequence("a") > sequence
        assert (await fleet.post(chat())).status_code == 200
        await fleet.settled(completed=6)


async def test_redis_may_come_after_the_router(redis_store: Any, redis_server: Any):
    """It listens before."""
    redis_server.stop()
    async with router_fleet(redis_store, "a", announce=False) as fleet:
        await until(lambda: fleet.router.reader.is_store_up is False, what="it is missed")
        redis_server.start()
        await until(lambda: fleet.router.reader.is_store_up is True, what="it is found")
        await fleet.announce()
        assert (await fleet.post(chat())).status_code == 200


@pytest.mark.parametrize("kind", ["list", "hash", "binary", "names"])
async def test_hostile_keys_are_survived(redis_store: Any, redis_server: Any, kind: str):
    """Wrong types, garbage, and ids that are no names."""
    client = redis_server.client()
    if kind == "list":
        client.rpush("heron:default:site:x", "1")
        client.zadd("heron:default:sites", {"x": time.time()})
    elif kind == "hash":
        client.hset("heron:default:site-info:a", "a", "b")
        client.set("heron:default:power:a", b"\xff")
    elif kind == "binary":
        client.set("heron:default:site:x", bytes(range(256)))
        client.zadd("heron:default:sites", {"x": time.time()})
    else:
        client.zadd("heron:default:sites", {b"\xff\xfe": 1, "../../x": 2, "a b": 3, "": 4, "x" * 9999: 5})
    async with router_fleet(redis_store, "a", announce=False) as fleet:
        await fleet.announce()
        client.publish("heron:default:events:site", b"\xff\x00 not json")
        client.publish("heron:default:events:power:a", b"{")
        await until(lambda: fleet.router.metrics.records_refused, what="what was published is refused")
        await fleet.announce()
        assert set(fleet.router.view.snapshot.sites) == {"a"}
        assert (await fleet.post(chat())).status_code == 200
