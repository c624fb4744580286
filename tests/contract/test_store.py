"""One suite for every store: in memory, and on a real Redis server."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import uvloop
from support.redis_server import RedisServer
from support.wait import until

from fleet import memory_store, redis_store
from fleet.keys import Keys
from fleet.memory_store import MAX_WAITING_EVENTS, MemoryStore
from fleet.quota_book import QuotaBook, Spending
from fleet.records import SiteReport
from fleet.redis_store import RedisStore
from fleet.store import POWER_LOG_ENTRIES, Store, StoreError
from fleet.wire import MAX_PLAN_BYTES, MAX_RECORD_BYTES, RecordError


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    made = RedisStore(request.getfixturevalue("redis_server").url, Keys(fleet="suite"))
    yield made
    await made.aclose()


class Listener:
    """Collects a store's events in the background."""

    def __init__(self, store: Store, **wanted: object) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.error: StoreError | None = None
        self._task = asyncio.create_task(self._listen(store, wanted))

    async def _listen(self, store: Store, wanted: dict[str, object]) -> None:
        try:
            async for event in store.events(**wanted):  # type: ignore[arg-type]
                self.heard.append(event)
        except StoreError as error:
            self.error = error

    async def until_heard(self, store: Store, publish: object, event: tuple[str, bytes]) -> None:
        """Publish until it is heard: a subscription takes a moment to stand."""
        for _ in range(200):
            await publish()  # type: ignore[operator]
            await asyncio.sleep(0.01)
            if event in self.heard:
                return
        raise AssertionError(f"{event} was never heard, only {self.heard}")

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_an_empty_store_has_nothing(store: Store) -> None:
    """Missing is None, and asking for nothing gives nothing."""
    await store.ping()
    assert await store.site_ids() == []
    assert await store.site_reports(["north"]) == [None]
    assert await store.site_infos(["north"]) == [None]
    assert await store.power_readings([]) == []
    assert await store.power_log("north", 10) == []
    assert await store.plan() is None
    assert await store.planner_lease() is None
    assert await store.api_key_ids() == []
    assert await store.api_keys([]) == []
    assert await store.api_keys(["0" * 64]) == [{}]


async def test_reports_are_kept_per_site_with_their_time(store: Store) -> None:
    """In the order asked for; sites are found by when they last reported."""
    await store.publish_site_report("north", b"n", 100.0)
    await store.publish_site_report("coast", b"c", 200.0)
    await store.publish_site_report("north", b"n2", 150.0)
    assert await store.site_reports(["coast", "ridge", "north"]) == [b"c", None, b"n2"]
    assert await store.site_ids() == ["coast", "north"]
    assert await store.site_ids(newer_than_unix_seconds=150.0) == ["coast"]


async def test_infos_and_plan_are_kept(store: Store) -> None:
    """Latest wins."""
    await store.publish_site_info("north", b"i")
    await store.publish_plan(b"p1")
    await store.publish_plan(b"p2")
    await store.publish_router("r", b"here", 15)
    await store.publish_router("s", b"too", 15)
    assert await store.site_infos(["north"]) == [b"i"]
    assert await store.plan() == b"p2"
    assert sorted(await store.routers()) == [b"here", b"too"]


async def test_cordons_are_kept_per_site_until_they_are_over(store: Store) -> None:
    """In the order asked for."""
    await store.write_cordon("north", b"n", None)
    await store.write_cordon("coast", b"c", 3600.0)
    assert await store.cordons(["coast", "ridge", "north"]) == [b"c", None, b"n"]
    await store.write_cordon("coast", b"c2", 0.05)
    assert await store.cordons(["coast"]) == [b"c2"]
    for _ in range(100):
        if await store.cordons(["coast", "north"]) == [None, b"n"]:
            break
        await asyncio.sleep(0.02)
    assert await store.cordons(["coast", "north"]) == [None, b"n"]


async def test_a_cordon_is_restored_only_where_there_is_none(store: Store) -> None:
    """Whatever an operator wrote meanwhile stands."""
    await store.write_cordon("north", b"new", None)
    await store.restore_cordon("north", b"old", None)
    await store.restore_cordon("coast", b"old", 0.05)
    assert await store.cordons(["north", "coast"]) == [b"new", b"old"]
    for _ in range(100):
        if await store.cordons(["coast"]) == [None]:
            break
        await asyncio.sleep(0.02)
    assert await store.cordons(["coast"]) == [None]


async def test_a_plan_is_gone_when_it_is_over(store: Store) -> None:
    """A router that starts later must not take it for a new one."""
    await store.publish_plan(b"p", 0.05)
    for _ in range(500):
        if await store.plan() is None:
            break
        await asyncio.sleep(0.01)
    assert await store.plan() is None


async def test_api_keys_are_hashes_that_are_written_whole_and_changed_by_field(store: Store) -> None:
    """By the key's SHA-256; a change makes no key where there is none."""
    one, other = "1" * 64, "0" * 64
    await store.write_api_key(one, {"tenant": "acme", "tiers": "default"})
    await store.write_api_key(one, {"tenant": "acme", "name": "é"})
    await store.write_api_key(other, {"tenant": "zeta"})
    assert await store.api_key_ids() == [other, one]
    assert await store.update_api_key(one, {"revoked_at_unix_seconds": "5.0", "name": "n"})
    assert not await store.update_api_key("2" * 64, {"revoked_at_unix_seconds": "5.0"})
    assert await store.api_keys([one, "2" * 64, other]) == [
        {b"tenant": b"acme", b"name": b"n", b"revoked_at_unix_seconds": b"5.0"},
        {},
        {b"tenant": b"zeta"},
    ]
    assert await store.api_key_ids() == [other, one]


async def test_the_power_log_keeps_what_it_is_told_to(store: Store) -> None:
    """Oldest first, the newest `count` of them."""
    for number in range(5):
        await store.publish_power_reading("north", b"%d" % number, log=number != 2)
    assert await store.power_readings(["north"]) == [b"4"]
    assert await store.power_log("north", 3) == [b"1", b"3", b"4"]


async def test_a_lease_has_one_holder(store: Store) -> None:
    """The holder renews, another waits, and gets it when it has run out."""
    mine, theirs = (orjson.dumps({"router_id": name}) for name in ("a", "b"))
    assert await store.acquire_planner_lease("a", mine, 0.2)
    assert await store.acquire_planner_lease("a", mine, 0.2)
    assert not await store.acquire_planner_lease("b", theirs, 30)
    assert await store.planner_lease() == mine
    for _ in range(500):
        if await store.acquire_planner_lease("b", theirs, 30):
            break
        await asyncio.sleep(0.01)
    assert await store.planner_lease() == theirs


async def test_events_carry_the_record_the_moment_it_is_written(store: Store) -> None:
    """Each subscriber hears what it asked for."""
    everything = Listener(store, sites=True, plan=True, power_of=None)
    north_only = Listener(store, power_of=["north"])
    await everything.until_heard(store, lambda: store.publish_site_report("a", b"r", 1.0), ("site", b"r"))
    await everything.until_heard(store, lambda: store.publish_plan(b"p"), ("plan", b"p"))
    await everything.until_heard(
        store, lambda: store.publish_power_reading("coast", b"c", log=False), ("power", b"c")
    )
    await north_only.until_heard(
        store, lambda: store.publish_power_reading("north", b"n", log=False), ("power", b"n")
    )
    assert set(north_only.heard) == {("power", b"n")}
    await everything.stop()
    await north_only.stop()


async def test_asking_for_no_events_is_a_mistake(store: Store) -> None:
    """It would wait for ever."""
    with pytest.raises(ValueError, match="nothing"):
        await anext(aiter(store.events()))


async def test_keys_of_redis_are_those_of_the_contract(redis_server: RedisServer) -> None:
    """As docs/records.md names them, with the TTL of a site."""
    store = RedisStore(redis_server.url, Keys(fleet="f"))
    await store.publish_site_report("north", b"r", 5.0)
    await store.publish_power_reading("north", b"p", log=True)
    await store.write_api_key("a" * 64, {"tenant": "acme"})
    client = redis_server.client()
    assert client.hgetall("heron:f:key:" + "a" * 64) == {b"tenant": b"acme"}
    assert client.get("heron:f:site:north") == b"r"
    assert 55 <= client.ttl("heron:f:site:north") <= 60
    assert client.zrange("heron:f:sites", 0, -1, withscores=True) == [(b"north", 5.0)]
    assert client.get("heron:f:power:north") == b"p"
    assert client.xlen("heron:f:power-log:north") == 1
    await store.aclose()


async def test_hostile_keys_spoil_nothing_else(redis_server: RedisServer) -> None:
    """A key of a wrong type is missing, a foreign id that is no name is passed over."""
    store = RedisStore(redis_server.url, Keys(fleet="f"))
    client = redis_server.client()
    client.hset("heron:f:site:bad", "a", "b")
    client.zadd("heron:f:sites", {b"\xff\xfe": 9, "has space": 9, "x" * 300: 9, "good": 9, "bad": 9})
    client.set("heron:f:site:good", b"g")
    assert await store.site_ids() == ["bad", "good"]
    assert await store.site_reports(["bad", "good"]) == [None, b"g"]
    client.set("heron:f:key:" + "b" * 64, "no hash")
    client.hset("heron:f:key:no-sha", "tenant", "x")
    client.hset("heron:other:key:" + "c" * 64, "tenant", "x")
    await store.write_api_key("a" * 64, {"tenant": "acme"})
    assert await store.api_key_ids() == ["a" * 64, "b" * 64]
    assert await store.api_keys(["b" * 64, "a" * 64]) == [{}, {b"tenant": b"acme"}]
    await store.aclose()


async def test_a_value_far_too_large_costs_one_byte_over_the_limit(redis_server: RedisServer) -> None:
    """Only what is read of it is more than a record may be; the others are whole, and come with it."""
    store = RedisStore(redis_server.url, Keys(fleet="f"))
    client = redis_server.client()
    largest = b"g" * MAX_RECORD_BYTES
    client.setrange("heron:f:site:bad", 50_000_000, "x")
    client.set("heron:f:site:good", largest)
    client.set("heron:f:site:empty", "")
    client.config_resetstat()
    reports = await store.site_reports(["bad", "good", "none", "empty"])
    sent_bytes = client.info("stats")["total_net_output_bytes"]
    assert [report and len(report) for report in reports] == [
        MAX_RECORD_BYTES + 1,
        MAX_RECORD_BYTES,
        None,
        None,
    ]
    assert reports[1] == largest
    assert sent_bytes < 3 * MAX_RECORD_BYTES
    with pytest.raises(RecordError, match="at most") as caught:
        SiteReport.from_json(reports[0] or b"")
    assert caught.value.reason == "too_large"
    for name in ("site-info:bad", "power:bad", "plan", "planner-lease", "router:r"):
        client.setrange(f"heron:f:{name}", 5_000_000, "x")
    read = [
        *await store.site_infos(["bad"]),
        *await store.power_readings(["bad"]),
        await store.planner_lease(),
        *await store.routers(),
    ]
    assert [len(record or b"") for record in read] == [MAX_RECORD_BYTES + 1] * 4
    assert len(await store.plan() or b"") == MAX_PLAN_BYTES + 1
    await store.aclose()


async def test_what_the_server_refuses_is_a_store_error(redis_server: RedisServer) -> None:
    """A user who may not read is not told that nothing is there."""
    client = redis_server.client()
    client.acl_setuser("blind", enabled=True, nopass=True, commands=["+ping"], keys=["*"], channels=["*"])
    url = redis_server.url.replace("redis://", "redis://blind:any@")
    store = RedisStore(url, Keys(fleet="f"))
    with pytest.raises(StoreError, match="permissions"):
        await store.site_reports(["a"])
    await store.aclose()


async def test_more_keys_than_a_fleet_may_have_are_not_all_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bound for memory; which ones are read then is not said."""
    monkeypatch.setattr(redis_store, "MAX_API_KEYS", 3)
    monkeypatch.setattr(memory_store, "MAX_API_KEYS", 3)
    for number in range(5):
        await store.write_api_key(f"{number:064d}", {"tenant": "acme"})
    assert len(await store.api_key_ids()) == 3


async def test_a_dead_redis_is_a_store_error_and_comes_back_by_itself(redis_server: RedisServer) -> None:
    """The message names the server, never the password; a subscription ends; the next call connects anew."""
    url = redis_server.url.replace("redis://", "redis://user:secret@")
    plain = RedisStore(redis_server.url, Keys())
    listener = Listener(plain, sites=True)
    await listener.until_heard(plain, lambda: plain.publish_site_report("a", b"r", 1.0), ("site", b"r"))
    redis_server.stop()
    secret = RedisStore(url, Keys())
    with pytest.raises(StoreError, match=str(redis_server.port)) as caught:
        await secret.ping()
    assert "secret" not in str(caught.value)
    await until(lambda: listener.error is not None, what="the subscription ends")
    redis_server.start()
    await plain.ping()
    assert await plain.site_ids() == []
    await listener.stop()
    await plain.aclose()
    await secret.aclose()


@pytest.mark.parametrize("is_heard", [False, True], ids=["a call", "a subscription"])
def test_a_connection_reset_before_its_first_word_is_a_store_error(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, is_heard: bool
) -> None:
    """uvloop says RuntimeError then, which is no error of the client's; a site agent has died of it."""

    async def use() -> None:
        store = RedisStore(redis_server.url, Keys())
        client = redis_server.client()
        events = store.events(sites=True)
        waiting = asyncio.ensure_future(anext(events))
        await until(lambda: client.pubsub_numsub(Keys().site_channel)[0][1] == 1)
        connect = asyncio.open_connection

        async def connect_and_reset(**arguments: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await connect(**arguments)
            writer.transport.abort()
            await asyncio.sleep(0.01)
            return reader, writer

        monkeypatch.setattr(asyncio, "open_connection", connect_and_reset)
        if is_heard:
            client.client_kill_filter(_type="pubsub")
        with pytest.raises(StoreError, match=r"redis at .*handler is closed"):
            await (waiting if is_heard else store.ping())
        monkeypatch.undo()
        await store.ping()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await events.aclose()
        await store.aclose()

    uvloop.run(use())


async def test_a_redis_that_hangs_is_a_store_error_within_the_time_out(redis_server: RedisServer) -> None:
    """A stopped process keeps its port open and answers nothing."""
    store = RedisStore(redis_server.url, Keys(), timeout_seconds=0.2)
    await store.ping()
    redis_server.pause()
    try:
        with pytest.raises(StoreError):
            await store.ping()
    finally:
        redis_server.resume()
    await store.ping()
    await store.aclose()


async def test_a_subscription_on_a_redis_that_hangs_ends(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection stays open, so only an unanswered question shows it; a quiet one that answers stays."""
    monkeypatch.setattr(redis_store, "PING_SECONDS", 0.05)
    store = RedisStore(redis_server.url, Keys(), timeout_seconds=0.5)
    listener = Listener(store, sites=True)
    await listener.until_heard(store, lambda: store.publish_site_report("a", b"1", 1.0), ("site", b"1"))
    client = redis_server.client()
    pings = client.info("commandstats")["cmdstat_ping"]["calls"]
    await until(lambda: client.info("commandstats")["cmdstat_ping"]["calls"] >= pings + 3, what="pings")
    await listener.until_heard(store, lambda: store.publish_site_report("a", b"2", 2.0), ("site", b"2"))
    assert listener.error is None
    redis_server.pause()
    try:
        await until(lambda: listener.error is not None, what="the subscription ends")
    finally:
        redis_server.resume()
    assert str(redis_server.port) in str(listener.error)
    await listener.stop()
    await store.aclose()


async def test_a_key_of_a_wrong_type_fails_a_write_and_says_so(redis_server: RedisServer) -> None:
    """The rest of the report is written all the same, and the next call works."""
    store = RedisStore(redis_server.url, Keys(fleet="f"))
    client = redis_server.client()
    client.set("heron:f:sites", "no sorted set")
    with pytest.raises(StoreError, match="WRONGTYPE"):
        await store.publish_site_report("north", b"r", 5.0)
    assert await store.site_reports(["north"]) == [b"r"]
    await store.aclose()


async def test_a_hash_that_is_far_too_large_holds_up_no_other(redis_server: RedisServer) -> None:
    """By the number of its fields, or by their size."""
    client = redis_server.client()
    for number, mapping in enumerate(
        ({str(field): "" for field in range(9999)}, {"tenant": "x" * (600 << 10)})
    ):
        client.hset(f"heron:default:key:{number:064d}", mapping=mapping)
    client.set(f"heron:default:key:{2:064d}", "no hash")
    client.hset(f"heron:default:key:{3:064d}", mapping={"tenant": "acme", "empty": ""})
    store = RedisStore(redis_server.url, Keys())
    found = await store.api_keys([f"{number:064d}" for number in range(5)])
    assert found == [{}, {}, {}, {b"tenant": b"acme", b"empty": b""}, {}]
    await store.aclose()


async def test_a_lease_that_is_not_believed_can_be_replaced(redis_server: RedisServer) -> None:
    """Exactly that one, and no other that came meanwhile."""
    store = RedisStore(redis_server.url, Keys())
    forged = b'{"router_id":"evil"}'
    redis_server.client().set("heron:default:planner-lease", forged, px=10**12)
    assert not await store.acquire_planner_lease("a", b'{"router_id":"a"}', 30)
    assert not await store.acquire_planner_lease("a", b'{"router_id":"a"}', 30, instead_of=b"another")
    assert await store.acquire_planner_lease("a", b'{"router_id":"a"}', 30, instead_of=forged)
    assert not await store.acquire_planner_lease("b", b'{"router_id":"b"}', 30, instead_of=forged)
    await store.aclose()


async def test_what_is_no_lease_holds_nothing(redis_server: RedisServer) -> None:
    """Junk under the key, without a TTL, must not keep every planner out for ever."""
    store = RedisStore(redis_server.url, Keys(fleet="f"))
    client = redis_server.client()
    mine = orjson.dumps({"router_id": "a"})
    for junk in (b"", b"\xff", b"[]", b"{", b"3", b"{}", b'{"router_id": null}', b'["router_id"]'):
        client.set("heron:f:planner-lease", junk)
        assert await store.acquire_planner_lease("a", mine, 30), junk
        assert await store.planner_lease() == mine
        assert 0 < client.pttl("heron:f:planner-lease") <= 30_000
    client.set("heron:f:planner-lease", orjson.dumps({"router_id": "b"}))  # one that never ends
    assert await store.acquire_planner_lease("a", mine, 30)
    client.delete("heron:f:planner-lease")
    client.hset("heron:f:planner-lease", "router_id", "b")
    assert await store.acquire_planner_lease("a", mine, 30)
    assert await store.planner_lease() == mine
    await store.aclose()


async def test_the_power_log_is_bounded(redis_server: RedisServer) -> None:
    """Redis trims by whole nodes of about a hundred; what is no reading there is passed over."""
    store = RedisStore(redis_server.url, Keys(fleet="f"))
    client = redis_server.client()
    pipe = client.pipeline(transaction=False)
    for _ in range(POWER_LOG_ENTRIES + 500):
        pipe.xadd("heron:f:power-log:north", {"other": "x"})
    pipe.execute()
    await store.publish_power_reading("north", b"p", log=True)
    assert client.xlen("heron:f:power-log:north") <= POWER_LOG_ENTRIES + 200
    assert await store.power_log("north", 10) == [b"p"]
    await store.aclose()


async def test_a_memory_store_forgets_when_redis_would() -> None:
    """Reports after their TTL, a router's presence after its own; the rest stays."""
    now = 1000.0
    store = MemoryStore(clock=lambda: now)
    await store.publish_site_report("north", b"r", 5.0)
    await store.publish_site_info("north", b"i")
    now = 1059.9
    assert await store.site_reports(["north"]) == [b"r"]
    now = 1060.0
    assert await store.site_reports(["north"]) == [None]
    assert await store.site_infos(["north"]) == [b"i"]
    assert await store.site_ids() == ["north"]


async def test_a_memory_log_is_bounded_as_well() -> None:
    """The newest stay."""
    store = MemoryStore()
    for number in range(POWER_LOG_ENTRIES + 5):
        await store.publish_power_reading("north", b"%d" % number, log=True)
    kept = await store.power_log("north", 2 * POWER_LOG_ENTRIES)
    assert (len(kept), kept[0]) == (POWER_LOG_ENTRIES, b"5")


async def test_a_listener_of_a_memory_store_that_lags_loses_its_subscription() -> None:
    """As on Redis: memory is bounded, and it subscribes anew and re-reads."""
    store = MemoryStore()
    events = store.events(sites=True)
    first = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    for number in range(MAX_WAITING_EVENTS + 2):
        await store.publish_site_report("a", b"%d" % number, 1.0)
    with pytest.raises(StoreError):
        await first


async def test_a_memory_store_can_be_switched_off() -> None:
    """So that a test sees what a service does without its store."""
    store = MemoryStore()
    listener = Listener(store, sites=True)
    await listener.until_heard(store, lambda: store.publish_site_report("a", b"r", 1.0), ("site", b"r"))
    store.is_down = True
    store.drop_subscribers()
    with pytest.raises(StoreError):
        await store.ping()
    await until(lambda: listener.error is not None)


async def test_after_a_restart_of_redis_one_call_fails_at_most(redis_server: RedisServer) -> None:
    """Every connection that was kept is dead; the first that is tried tells of all."""
    store = RedisStore(redis_server.url, Keys(fleet="suite"))
    await asyncio.gather(*(store.publish_site_info("a", b"x") for _ in range(6)))
    redis_server.stop()
    redis_server.start()
    failures = 0
    for _ in range(8):
        try:
            await store.publish_site_info("a", b"x")
        except StoreError:
            failures += 1
    assert failures <= 1
    await store.aclose()


async def test_quotas_are_shared_as_in_the_book(store: Store) -> None:
    """The same reports, at random, to a store and to the book itself: the same standings."""
    rng, book, keys = random.Random(4), QuotaBook(), [f"{number:064x}" for number in range(3)]
    totals = {(member, key): [0.0, 0.0] for member in "abc" for key in keys}
    counted: dict[tuple[str, str], tuple[float, float]] = {}
    began = time.monotonic()
    for _ in range(60):
        member = rng.choice("abc")
        spendings = []
        for key in rng.sample(keys, rng.randint(0, 3)):
            total = totals[member, key]
            total[0] += rng.randint(0, 9)
            total[1] += rng.choice((rng.uniform(-50, 900), 0.0))
            known = counted.get((member, key), (0.0, 0.0))
            limits = (None, 60_000) if key == keys[0] else (600, rng.choice((None, 40_000)))
            spendings.append(
                Spending(key, total[0], known[0], total[1], known[1], rng.randint(0, 4), *limits)
            )
        expected = {one.key_id: one for one in book.share(member, spendings, time.monotonic() - began)}
        found = {one.key_id: one for one in await store.share_quotas(member, spendings)}
        assert found.keys() == expected.keys()
        for key, one in found.items():
            assert one.in_flight_elsewhere == expected[key].in_flight_elsewhere
            assert (one.counted is None) == (expected[key].counted is None)
            if one.counted is not None and expected[key].counted is not None:
                assert one.counted == pytest.approx(expected[key].counted)
                counted[member, key] = one.counted
            for name in ("requests_level", "tokens_level"):
                mine, theirs = getattr(one, name), getattr(expected[key], name)
                assert (mine is None) == (theirs is None)
                if mine is not None:
                    assert mine == pytest.approx(theirs, abs=200.0 if name == "tokens_level" else 3.0)


async def test_what_is_no_quota_is_passed_over(redis_server: RedisServer) -> None:
    """Whatever is written there, the next word of a router's stands."""
    client, store, key = redis_server.client(), RedisStore(redis_server.url, Keys()), "ab" * 32
    spending = Spending(key, 10.0, 0.0, 0.0, 0.0, 1, 60, None)
    hostile = (
        *("", "no", "[]", "{}", '{"at": "x", "members": {}}', '{"at": 1, "members": 5}'),
        '{"at": 1, "members": {"a": "x"}}',
        '{"at": 1, "members": {"a": [1, 2, null, 4]}}',
        '{"at": 1, "members": {}, "requests": "x"}',
        '{"at": 1, "members": {}, "tokens": {"limit": 1}}',
        '{"at": 1, "members": {}, "tokens": {"limit": 1, "level": 1e999}}',
        '{"at": 1, "members": {"b": [1, 2, -1e999, 4]}}',
    )
    for junk in hostile:
        client.delete("heron:default:quotas")
        client.hset("heron:default:quotas", mapping={key: junk, "other": junk})
        (told,) = await store.share_quotas("a", [spending])
        assert told.requests_level == pytest.approx(50.0), junk
    client.set("heron:default:quotas", "no hash")
    (told,) = await store.share_quotas("a", [spending])
    assert told.requests_level == pytest.approx(50.0)
    assert client.ttl("heron:default:quotas") > 0
    await store.aclose()
