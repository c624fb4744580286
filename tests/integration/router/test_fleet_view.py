"""What the router believes of its fleet, whatever Redis and the sites do."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson
import pytest
from support.router_fleet import RouterFleet, chat, router_fleet
from support.stub_site import Behaviour, StubSite
from support.wait import until

from fleet.memory_store import MemoryStore
from fleet.store import StoreError


def refused(fleet: RouterFleet) -> dict[tuple[str, ...], int]:
    return fleet.router.metrics.records_refused


def event_texts(fleet: RouterFleet, kind: str) -> list[str]:
    return [event["text"] for event in fleet.router.events.recent() if event["kind"] == kind]


async def test_a_change_is_known_at_once(store: Any):
    """By the channel, long before the next re-read."""
    async with router_fleet(store, "a", "b") as fleet:
        fleet.site("a").state = "draining"
        await fleet.site("a").announce(store)
        await until(lambda: fleet.router.view.is_losing_power("a"), seconds=0.9, what="the drain is known")
        for _ in range(5):
            assert (await fleet.post(chat())).status_code == 200
        assert not fleet.site("a").inference
        assert "a is draining, was serving" in event_texts(fleet, "site_state")


async def test_what_the_channel_lost_the_re_read_finds(store: Any):
    """Pub/sub gives speed, the re-read certainty."""
    async with router_fleet(store, "a", announce=False) as fleet:
        store.drop_subscribers()
        await fleet.site("a").announce(store)  # nobody listens now
        await until(lambda: fleet.sequence("a") == fleet.site("a").sequence, what="the site is known")
        assert (await fleet.post(chat())).status_code == 200


async def test_a_record_counts_as_fresh_once_its_sequence_has_advanced(store: Any):
    """What lay in Redis may be an hour old."""
    async with router_fleet(store, "a", announce=False) as fleet:
        await fleet.announce()
        assert not fleet.router.view.snapshot.sites["a"].is_confirmed
        await fleet.announce()
        assert fleet.router.view.snapshot.sites["a"].is_confirmed


HOSTILE: dict[str, bytes] = {
    "not json": b"\xff\x00{",
    "a list": b"[]",
    "empty": b"",
    "huge": b"[" + b"1," * 600_000 + b"1]",
    "no sequence": b'{"schema_version":"1.0","site_id":"x"}',
    "newer version": orjson.dumps({"schema_version": "2.0"}),
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
async def test_garbage_is_refused_counted_and_survived(store: Any, raw: bytes):
    """On the channel and under a key; said once, not at every re-read."""
    async with router_fleet(store, "a") as fleet:
        await store.publish_site_report("x", raw, time.time())
        await store.publish_site_info("a", raw)
        await store.publish_power_reading("a", raw, log=False)
        await until(lambda: any(kind == "SiteInfo" for kind, _ in refused(fleet)), what="it was read")
        await until(lambda: any(kind == "PowerReading" for kind, _ in refused(fleet)), what="it was read")
        await fleet.router.reader.reread()
        counts = dict(refused(fleet))
        await fleet.router.reader.reread()
        assert refused(fleet) == counts
        assert counts
        assert "x" not in fleet.router.view.snapshot.sites
        assert (await fleet.post(chat())).status_code == 200


BAD_REPORTS: dict[str, dict[str, Any]] = {
    "another site's": {"site_id": "b"},
    "state": {"state": "happy"},
    "negative": {"models": [{"model": "m", "headroom_requests": -1}]},
    "model twice": {"models": [{"model": "m"}, {"model": "m"}]},
    "sequence": {"sequence": 2**60},
    "an old one": {"sequence": 5},
}


@pytest.mark.parametrize("changes", BAD_REPORTS.values(), ids=BAD_REPORTS.keys())
async def test_a_bad_report_leaves_the_last_good_one_in_use(store: Any, changes: dict[str, Any]):
    """It ages; that is all."""
    async with router_fleet(store, "a") as fleet:
        before = fleet.router.view.snapshot.sites["a"]
        await store.publish_site_report("a", fleet.site("a").report(**changes), time.time())
        await fleet.router.reader.reread()
        assert fleet.router.view.snapshot.sites["a"] == before
        assert set(fleet.router.view.snapshot.sites) == {"a"}
        assert (await fleet.post(chat())).status_code == 200


URLS = {
    "outside": "http://192.0.2.1:80",
    "metadata": "http://169.254.169.254",
    "with a path": "http://127.0.0.1:1/admin",
    "a file": "file:///etc/passwd",
    "nothing": "",
    "port": "http://127.0.0.1:99999",
    "no such name": "http://name.invalid:80",
    "mapped": "http://[::ffff:192.0.2.1]:80",
}


@pytest.mark.parametrize("url", URLS.values(), ids=URLS.keys())
async def test_an_ingress_url_outside_the_networks_is_never_called(store: Any, url: str):
    """Refused with the setting's name; nothing else suffers."""
    async with router_fleet(store, "a") as fleet:
        evil = StubSite("evil")
        await evil.announce(store, ingress_url=url, models=[{"model": "stolen"}])
        await until(lambda: ("SiteReport", "ingress_url") in refused(fleet), what="it was refused")
        assert "evil" not in fleet.router.view.snapshot.sites
        assert "stolen" not in fleet.router.view.snapshot.models


async def test_a_site_that_moves_outside_the_networks_is_dropped(store: Any):
    """And taken back when it returns."""
    async with router_fleet(store, "a", "b") as fleet:
        site = fleet.site("a")
        await store.publish_site_report("a", site.report(ingress_url="http://192.0.2.1:80"), time.time())
        await until(lambda: "a" not in fleet.router.view.snapshot.sites, what="it is dropped")
        await fleet.announce()
        assert "a" in fleet.router.view.snapshot.sites


async def test_a_host_name_is_resolved_and_pinned(store: Any):
    """`localhost` is inside the default networks."""
    async with router_fleet(store, announce=False) as fleet:
        site = StubSite("named")
        await site.start()
        await site.announce(store, ingress_url=f"http://localhost:{site.port}")
        await until(lambda: "named" in fleet.router.view.snapshot.sites, what="it was resolved")
        origin = fleet.router.view.registry.entries["named"].origin
        assert origin.host in ("127.0.0.1", "::1")
        await site.stop()


async def test_a_silent_redis_is_made_up_for_by_the_sites(store: Any):
    """Their reports are fetched directly, with the site token, until Redis is back."""
    async with router_fleet(store, "a", "b") as fleet:
        store.is_down = True
        kept = fleet.router.view.records("a")
        assert kept is not None
        kept.stored_at -= 10  # as if three seconds had passed
        fleet.site("a").state = "dark"
        await until(lambda: fleet.router.view.is_losing_power("a"), what="the site was asked")
        asked = [one for one in fleet.site("a").seen if one.path == "/heron/v1/report"]
        assert asked[0].headers["authorization"] == "Bearer site-secret"
        await until(lambda: fleet.router.reader.is_store_up is False, what="it is noticed")
        assert (await fleet.post(chat())).status_code == 200
        store.is_down = False
        await until(lambda: fleet.router.reader.is_store_up is True, what="it is back")
        assert any("Redis answers again" in text for text in event_texts(fleet, "store"))


async def test_redis_may_be_absent_at_start(store: Any):
    """The router listens, says that it is not ready, and finds its fleet later."""
    store.is_down = True
    async with router_fleet(store, "a", announce=False) as fleet:
        assert (await fleet.client.get(f"{fleet.operations_url}/healthz")).status_code == 200
        ready = await fleet.client.get(f"{fleet.operations_url}/readyz")
        assert (ready.status_code, ready.json()["reason"]) == (503, "no site is known yet")
        asking = asyncio.create_task(fleet.post(chat()))
        await until(lambda: fleet.router.dispatcher.held == 1, what="the request waits")
        store.is_down = False
        await store.publish_site_report("a", fleet.site("a").report(), time.time())
        assert (await asking).status_code == 200
        assert (await fleet.client.get(f"{fleet.operations_url}/readyz")).status_code == 200
        fleet.router.view.forget("a")  # a balancer would have no better word for clients than this router
        assert (await fleet.client.get(f"{fleet.operations_url}/readyz")).status_code == 200


async def test_a_site_gone_from_redis_is_forgotten_after_its_time():
    """Not while it was heard a minute ago, and not while Redis is away."""
    now = 1000.0
    store = MemoryStore(clock=lambda: now)
    async with router_fleet(store, "a", "b") as fleet:
        now += 61  # the records' TTL is over
        await fleet.announce(fleet.site("b"))
        await fleet.router.reader.reread()
        assert "a" in fleet.router.view.snapshot.sites
        kept = fleet.router.view.records("a")
        assert kept is not None
        kept.arrived_at -= 61
        store.is_down = True
        with pytest.raises(StoreError):
            await fleet.router.reader.reread()
        assert "a" in fleet.router.view.snapshot.sites
        store.is_down = False
        await fleet.router.reader.reread()
        assert set(fleet.router.view.snapshot.sites) == {"b"}
        assert "a" not in fleet.router.view.registry.entries
        assert (await fleet.post(chat())).status_code == 200


async def test_a_dark_fleet_s_models_still_exist(store: Any):
    """503 with a reason, not 404."""
    async with router_fleet(store, "a", hold_seconds=0) as fleet:
        await store.publish_site_report("a", fleet.site("a").report(state="dark", models=[]), time.time())
        await until(lambda: fleet.router.view.is_losing_power("a"), what="it is dark")
        assert (await fleet.post(chat())).status_code == 503
        assert (await fleet.client.get("/v1/models")).json()["data"][0]["id"] == "m"


async def test_a_restarted_agent_may_be_probed_at_once(store: Any):
    """Its breaker was the earlier one's."""
    async with router_fleet(store, "a") as fleet:
        breaker = fleet.router.view.registry.entries["a"].breaker
        for _ in range(3):
            breaker.fail(time.monotonic() + 1000)
        assert breaker.state == "open"
        kept = fleet.router.view.records("a")
        assert kept is not None
        kept.arrived_at -= 10
        fleet.site("a").agent_id = "restarted"
        fleet.site("a").sequence += 1000
        asking = asyncio.create_task(fleet.post(chat()))
        while not asking.done():
            await fleet.site("a").announce(store)
            await asyncio.wait({asking}, timeout=0.2)
        assert (await asking).status_code == 200


async def test_a_second_writer_is_refused_while_the_first_is_heard(store: Any):
    """And alarmed: two agents under one name."""
    async with router_fleet(store, "a") as fleet:
        await fleet.announce()
        await store.publish_site_report(
            "a", fleet.site("a").report(agent_id="impostor", state="dark"), time.time()
        )
        await until(lambda: ("SiteReport", "second_writer") in refused(fleet), what="it was refused")
        assert fleet.router.view.snapshot.sites["a"].agent_id == "agent-a"
        assert any("stop one of them" in text for text in event_texts(fleet, "record_refused"))
        assert (await fleet.post(chat())).status_code == 200


async def test_a_clock_that_is_off_is_told_and_decides_nothing(store: Any):
    """An hour ahead, and still fresh."""
    async with router_fleet(store, "a") as fleet:
        for _ in range(2):
            raw = fleet.site("a").report(observed_at_unix_seconds=time.time() + 3600)
            await store.publish_site_report("a", raw, time.time())
        await until(lambda: event_texts(fleet, "clock"), what="it is told")
        await until(lambda: fleet.sequence("a") == fleet.site("a").sequence, what="it is used")
        assert len(event_texts(fleet, "clock")) == 1
        assert (await fleet.post(chat())).status_code == 200


async def test_breakers_are_told(store: Any):
    """The operator sees which site fails."""
    async with router_fleet(store, "a", "b") as fleet:
        await fleet.site("a").stop()
        while fleet.router.view.registry.entries["a"].breaker.state == "closed":
            assert (await fleet.post(chat())).status_code == 200
        await until(lambda: event_texts(fleet, "breaker"), what="it is told")
        assert event_texts(fleet, "breaker") == ["a fails requests: it gets none but a probe"]


async def test_a_half_open_breaker_lets_one_request_through(store: Any):
    """The site sees the probe alone until that has come back, whatever else ends there meanwhile."""
    async with router_fleet(store, "a", "b") as fleet:
        a, b = fleet.site("a"), fleet.site("b")
        b.headroom = 0
        await fleet.announce()
        earlier, probing = asyncio.Event(), asyncio.Event()
        a.script.extend([Behaviour(gate=earlier), Behaviour(hang=True), Behaviour(gate=probing)])
        early = [asyncio.create_task(fleet.post(chat())) for _ in range(2)]
        await until(lambda: a.running == 2, what="two are under way from before")
        breaker = fleet.router.view.registry.entries["a"].breaker
        for _ in range(3):
            breaker.fail(time.monotonic() - 10)
        probe = asyncio.create_task(fleet.post(chat()))
        await until(lambda: a.running == 3, what="the probe is there")
        b.headroom = 40
        await fleet.announce()
        early[1].cancel()
        await until(lambda: a.disconnects == 1, what="one of the two has left")
        earlier.set()
        assert (await early[0]).status_code == 200
        answers = await asyncio.gather(*(fleet.post(chat()) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}
        assert (len(a.inference), len(b.inference), breaker.state) == (3, 20, "half_open")
        probing.set()
        assert (await probe).status_code == 200
        assert breaker.state == "closed"
        await fleet.settled(client_cancelled=1, completed=22)


async def test_a_stream_that_has_begun_is_a_probe_that_came_back(store: Any):
    """Its end may be minutes away."""
    async with router_fleet(store, "a") as fleet:
        breaker = fleet.router.view.registry.entries["a"].breaker
        for _ in range(3):
            breaker.fail(time.monotonic() - 10)
        gate = asyncio.Event()
        fleet.site("a").script.append(Behaviour(gate=gate))
        asking = asyncio.create_task(fleet.stream(chat(stream=True)))
        await until(lambda: breaker.state == "closed", what="the site counts as well")
        assert not asking.done()
        gate.set()
        assert (await asking)[0] == 200
        await fleet.settled(completed=1)


async def test_a_probe_whose_client_leaves_frees_its_place(store: Any):
    """Also one that had waited for it."""
    async with router_fleet(store, "a") as fleet:
        breaker = fleet.router.view.registry.entries["a"].breaker
        for _ in range(3):
            breaker.fail(time.monotonic() - 10)
        fleet.site("a").script.append(Behaviour(hang=True))
        asking = asyncio.create_task(fleet.post(chat()))
        await until(lambda: fleet.site("a").running == 1, what="the probe is there")
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert (await fleet.post(chat())).status_code == 200
        assert breaker.state == "closed"
        await fleet.settled(client_cancelled=1, completed=1)


async def test_power_steps_are_told(store: Any):
    """The operator sees the wind fall."""
    reading = {
        "schema_version": "1.0",
        "feed_id": "f",
        "sequence": 1,
        "site_id": "a",
        "farm_id": "farm",
        "observed_at_unix_seconds": time.time(),
        "period_seconds": 1.0,
        "available_power_watts": 9000.0,
        "granted_power_watts": 9000.0,
        "nameplate_capacity_watts": 10_000.0,
        "quality": "good",
        "source": "test",
    }
    async with router_fleet(store, "a") as fleet:
        await store.publish_power_reading("a", orjson.dumps(reading), log=False)
        kept = fleet.router.view.records("a")
        assert kept is not None
        await until(lambda: kept.power is not None, what="the reading is known")
        fallen = reading | {"sequence": 2, "granted_power_watts": 1000.0}
        await store.publish_power_reading("a", orjson.dumps(fallen), log=False)
        await until(lambda: event_texts(fleet, "power"), what="the fall is told")
        assert event_texts(fleet, "power") == ["power of a falls from 9.0 to 1.0 kW"]
        page = (await fleet.client.get(f"{fleet.operations_url}/heron/v1/fleet")).json()
        assert page["sites"][0]["wind"]["granted_power_watts"] == 1000.0


async def test_the_operations_surface(store: Any):
    """Ledger, fleet, metrics, health; none of it on the public port."""
    async with router_fleet(store, "a", "b") as fleet:
        await fleet.post(chat())
        await fleet.stream(chat(stream=True))
        await fleet.post(b"{")
        ledger = (await fleet.client.get(f"{fleet.operations_url}/heron/v1/ledger")).json()
        assert (ledger["requests"], ledger["completed"], ledger["client_error"], ledger["lost"]) == (
            3,
            2,
            1,
            0,
        )
        page = (await fleet.client.get(f"{fleet.operations_url}/heron/v1/fleet")).json()
        assert [site["site_id"] for site in page["sites"]] == ["a", "b"]
        assert sum(site["requests"] for site in page["sites"]) == 2
        metrics = (await fleet.client.get(f"{fleet.operations_url}/metrics")).text
        assert 'heron_router_requests_total{model="m",outcome="completed"} 2.0' in metrics
        assert 'heron_router_requests_total{model="unknown",outcome="client_error"} 1.0' in metrics
        assert 'heron_router_ttft_seconds_count{model="m"} 1.0' in metrics
        for path in ("/metrics", "/heron/v1/fleet", "/heron/v1/ledger", "/readyz"):
            assert (await fleet.client.get(path)).status_code == 404


async def test_the_operations_surface_is_no_stranger_s(store: Any):
    """A page that lets its own name point here gets nothing; the public port has no such rule."""
    async with router_fleet(store, "a", operations_names=("heron.example.org",)) as fleet:
        url, policy = fleet.operations_url, orjson.dumps({"policy": "round_robin"})
        for path in ("/", "/console", "/heron/v1/console", "/heron/v1/fleet", "/metrics", "/readyz"):
            for host, status in (("evil.example:1", 421), ("heron.example.org", 200), ("localhost:1", 200)):
                response = await fleet.client.get(f"{url}{path}", headers={"host": host})
                assert response.status_code == status, (path, host)
        refused = await fleet.client.put(
            f"{url}/heron/v1/policy", content=policy, headers={"host": "evil.example"}
        )
        assert (refused.status_code, "operations_names" in refused.json()["error"]) == (421, True)
        assert (await fleet.client.get("/v1/models", headers={"host": "api.example.org"})).status_code == 200
