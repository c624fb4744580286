"""The whole agent with the real emulated host process: power falls and returns, crashes, SIGTERM, kill -9."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from support.processes import kill_all_with, pids_with
from support.router_fleet import TOKEN
from support.scripted_store import ScriptedStore
from support.stub_feed import StubFeed, reading, running_feed
from support.wait import until

from cli.ports import free_ports
from fleet.config import ConfigError, FleetConfig
from fleet.records import SiteInfo, SiteReport
from site_agent import app, leftovers
from site_agent.config import SiteConfig
from site_agent.drivers.emulated import EmulatedHardware
from site_agent.processes import Processes

FLOOR_GRANT = 1.1 * 1584 / 0.95
"""The scenario `sudden-drop`: just above what stopped engines draw."""
FULL_GRANT = 10_000.0


@dataclass(slots=True)
class Site:
    """A running agent."""

    client: httpx.AsyncClient
    operations: httpx.AsyncClient
    store: ScriptedStore
    feed: StubFeed
    state_dir: Path

    site_id: str
    watts: list[float]

    def grant(self, watts: float) -> None:
        """From now on, once a second."""
        self.watts[0] = watts
        self.feed.say(reading(watts, site_id=self.site_id))

    async def report(self) -> dict[str, Any]:
        answer = await self.client.get("/heron/v1/report")
        assert answer.status_code == 200
        return dict(answer.json())

    async def until_report(self, wanted: dict[str, Any], seconds: float = 30.0) -> dict[str, Any]:
        """Poll until state, and ready instances if given, are as wanted."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            report = await self.report()
            seen = {"state": report["state"], "ready": report["models"][0]["ready_instances"]}
            if seen | wanted == seen:
                return report
            assert loop.time() < deadline, f"wanted {wanted}, last seen {seen}"
            await asyncio.sleep(0.05)

    async def until_clock(self, *, below_mhz: int, seconds: float = 20.0) -> None:
        """Poll until every instance that is ready says that its GPUs run slower than this."""
        async with asyncio.timeout(seconds):
            while True:
                instances = (await self.report())["models"][0]["instances"]
                ready = [one["gpu_clock_mhz"] for one in instances if one["state"] == "ready"]
                if ready and max(ready) < below_mhz:
                    return
                await asyncio.sleep(0.05)

    def stream(self, tokens: int = 400) -> Any:
        body = {"model": "llama-3.1-70b", "prompt": "one two three", "max_tokens": tokens, "stream": True}
        return self.client.stream("POST", "/v1/completions", json=body)

    async def metric(self, name: str) -> float:
        page = (await self.operations.get("/metrics")).text
        values = [line.rpartition(" ")[2] for line in page.splitlines() if line.startswith(name)]
        return sum(float(value) for value in values)

    async def until_metric(self, name: str, least: float, seconds: float = 20.0) -> None:
        """Poll until it is at least so much."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while (value := await self.metric(name)) < least:
            assert loop.time() < deadline, f"{name}: wanted {least}, last seen {value}"
            await asyncio.sleep(0.05)


def site_config(tmp_path: Path, feed_url: str, **changes: Any) -> tuple[FleetConfig, SiteConfig]:
    state_dir = tmp_path / "north"
    values: dict[str, Any] = {
        "site_id": "north",
        "farm_id": "north-farm",
        "state_dir": state_dir,
        "feed_url": feed_url,
        "safe_floor_watts": 1600.0,
        "firm_power_source": "grid",
        "engine": {"kind": "emulated", "start_seconds": 0.2},
        **changes,
    }
    return FleetConfig(site_token=TOKEN), SiteConfig.model_validate(values)  # type: ignore[arg-type]


@asynccontextmanager
async def running_agent(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    site_id: str = "north",
    store: Any = None,
    **changes: Any,
) -> AsyncIterator[Site]:
    """`serve` in this process, its engines in theirs, a reading every second."""
    store = store or ScriptedStore()
    changes |= {"site_id": site_id, "farm_id": f"{site_id}-farm", "state_dir": tmp_path / site_id}
    agents: list[app.SiteAgent] = []
    original = app.SiteAgent.__init__

    def remember(self: app.SiteAgent, *arguments: Any) -> None:
        original(self, *arguments)
        agents.append(self)

    monkeypatch.setattr(app.SiteAgent, "__init__", remember)
    async with running_feed() as feed:
        fleet, site = site_config(tmp_path, feed.url, **changes)
        watts = [FULL_GRANT]

        async def speak() -> None:
            while True:
                feed.say(reading(watts[0], site_id=site_id))
                await asyncio.sleep(0.5)

        speaking = asyncio.create_task(speak())
        serving = asyncio.create_task(app.serve(fleet, site, store=store))
        try:
            await until(lambda: serving.done() or (agents and agents[0].records.ingress_url), seconds=30)
            if serving.done():
                serving.result()
            [agent] = agents
            headers = {"authorization": f"Bearer {TOKEN}"}
            async with (
                httpx.AsyncClient(base_url=agent.records.ingress_url, headers=headers, timeout=30) as client,
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{agent.operations.port}") as operations,
            ):
                yield Site(
                    client=client,
                    operations=operations,
                    store=store,
                    feed=feed,
                    state_dir=site.state_dir,
                    site_id=site_id,
                    watts=watts,
                )
        finally:
            speaking.cancel()
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving


async def test_a_site_serves_and_says_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Report and info in the store, the same report over HTTP, models, metrics, readiness."""
    async with running_agent(tmp_path, monkeypatch, has_server_switch=True) as site:
        report = await site.until_report({"state": "serving", "ready": 3})
        await until(lambda: site.store.report is not None and b'"serving"' in site.store.report)
        assert site.store.report is not None
        assert site.store.info is not None
        published, info = SiteReport.from_json(site.store.report), SiteInfo.from_json(site.store.info)
        assert published.agent_id == report["agent_id"] == info.agent_id
        assert info.server_idle_watts == pytest.approx(1584)
        assert info.gpu_count == 12
        assert info.capabilities.token_ids
        assert info.capabilities.server_power
        assert "/v1/chat/completions" in info.capabilities.paths
        assert report["models"][0]["max_concurrency"] == 48
        assert report["models"][0]["headroom_requests"] == 45
        assert report["power"]["draw_source"] == "gpu"
        assert (await site.client.get("/v1/models")).json()["data"][0]["max_model_len"] == 8192
        async with site.stream(20) as answer:
            assert answer.headers["x-heron-instance"].startswith("north-")
            assert (await answer.aread()).endswith(b"data: [DONE]\n\n")
        assert await site.metric("heron_site_in_flight_requests") == 0
        assert await site.metric("heron_site_requests_total") == 1
        assert (await site.operations.get("/healthz")).status_code == 200
        assert (await site.operations.get("/readyz")).status_code == 200
        await until(
            lambda: SiteReport.from_json(site.store.reports[-1]).models[0].kv_cache_usage_ratio is not None,
            what="the engines' own metrics in a report",
        )


async def test_a_sudden_drop_is_complied_with_and_power_brings_everything_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams break off without their end, the cap holds, nothing is left in flight; then it serves again."""
    async with running_agent(tmp_path, monkeypatch) as site:
        await site.until_report({"state": "serving", "ready": 3})
        streams = await begin_streams(site, 30)
        site.grant(FLOOR_GRANT)
        await site.until_report({"state": "dark", "ready": 0})
        assert set(await asyncio.gather(*streams)) == {"broken"}
        pushback = await site.client.post("/v1/completions", json={"model": "llama-3.1-70b", "prompt": "x"})
        assert pushback.status_code == 503
        assert pushback.headers["x-heron-pushback"] == "power"
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 10
        while (report := await site.report())["power"]["headroom_watts"] < 0:
            assert loop.time() < deadline, report["power"]
            await asyncio.sleep(0.05)
        assert await site.metric("heron_site_cap_exceeded_seconds_total") == 0
        assert await site.metric("heron_site_in_flight_requests") == 0
        site.grant(FULL_GRANT)
        await site.until_report({"state": "serving", "ready": 3}, seconds=40)
        assert await _read(site, 10) == "complete"


async def _read(site: Site, tokens: int = 2000, started: asyncio.Event | None = None) -> str:
    """How a stream ended: complete | broken | cut | the status. `started` is set at its first piece."""
    data = b""
    try:
        async with site.stream(tokens) as answer:
            if answer.status_code != 200:
                return str(answer.status_code)
            async for piece in answer.aiter_raw():
                data += piece
                if started is not None:
                    started.set()
    except httpx.RemoteProtocolError:
        return "broken"
    return "complete" if data.endswith(b"data: [DONE]\n\n") else "cut"


async def begin_streams(site: Site, count: int) -> list[asyncio.Task[str]]:
    """So many long streams, each with its first tokens."""
    events = [asyncio.Event() for _ in range(count)]
    streams = [asyncio.create_task(_read(site, started=event)) for event in events]
    for event in events:
        await asyncio.wait_for(event.wait(), 20)
    return streams


async def test_without_the_governor_the_cap_is_exceeded_and_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """So that the test of the governor can fail."""
    quick = {"ride_through_seconds": 2.0, "watchdog_seconds": 1.5}
    governor = {"enabled": False, "reaction_seconds": 0.5, "drain_seconds": 0.5, "stop_seconds": 0.5}
    async with running_agent(tmp_path, monkeypatch, governor=governor, **quick) as site:
        assert "THE GOVERNOR IS SWITCHED OFF" in caplog.text
        await site.until_report({"state": "serving", "ready": 3})
        site.grant(FLOOR_GRANT)
        await site.until_metric("heron_site_cap_exceeded_seconds_total", 1)
        assert (await site.report())["state"] == "serving"
        assert await site.metric("heron_site_governor_enabled") == 0


async def test_engines_that_open_slowly_are_not_taken_for_hung(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent's heart beats while its drivers open, however long a busy machine takes for that."""
    beats: list[Processes] = []
    beat, open_hardware = Processes.beat, EmulatedHardware.open

    def counted(self: Processes) -> None:
        beats.append(self)
        beat(self)

    async def slow(self: EmulatedHardware) -> None:
        await open_hardware(self)
        await until(lambda: len(beats) > 30, what="beats for 3 s, longer than the watchdog waits")

    monkeypatch.setattr(Processes, "beat", counted)
    monkeypatch.setattr(EmulatedHardware, "open", slow)
    async with running_agent(tmp_path, monkeypatch, watchdog_seconds=2.0) as site:
        await site.until_report({"state": "serving", "ready": 3})
        assert beats[0].watchdog_restarts == 0


async def test_without_redis_and_without_the_feed_it_ends_at_its_floor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis alone away changes nothing; when the feed is silent too the cap walks down."""
    async with running_agent(tmp_path, monkeypatch) as site:
        await site.until_report({"state": "serving", "ready": 3})
        site.store.is_down = True
        assert await _read(site, 10) == "complete"
        site.feed.server.stop_accepting()
        site.feed.cut()
        await site.until_report({"state": "dark", "ready": 0}, seconds=40)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 20
        while (report := await site.report())["power"]["cap_watts"] > 1600:
            assert loop.time() < deadline, report["power"]
            await asyncio.sleep(0.05)
        assert await site.metric("heron_site_reports_failed_total") > 0


async def test_an_engine_that_crashes_in_mid_stream_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its streams are cut; the site goes on with the others meanwhile."""
    async with running_agent(tmp_path, monkeypatch) as site:
        await site.until_report({"state": "serving", "ready": 3})
        streams = await begin_streams(site, 6)
        control = orjson.loads((site.state_dir / "fake-hardware.json").read_bytes())
        os.kill(control["pid"], signal.SIGKILL)
        assert set(await asyncio.gather(*streams)) == {"broken"}
        await site.until_metric("heron_site_engine_faults_total", 3)
        await site.until_report({"ready": 3}, seconds=40)
        assert await site.metric("heron_site_in_flight_requests") == 0
        assert await _read(site, 10) == "complete"


async def test_a_second_agent_for_the_same_site_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would fight the first over engines and records."""
    async with running_agent(tmp_path, monkeypatch) as site:
        fleet, other = site_config(tmp_path, site.feed.url)
        with pytest.raises(ConfigError, match="another site agent"):
            await app.serve(fleet, other, store=ScriptedStore())  # type: ignore[arg-type]


async def test_a_port_that_is_taken_is_a_clear_error(tmp_path: Path) -> None:
    """And nothing is left running."""
    async with running_feed() as feed:
        fleet, site = site_config(tmp_path, feed.url, port=feed.server.port)
        store = ScriptedStore()
        with pytest.raises(ConfigError, match=rf"127.0.0.1:{feed.server.port}: Address already in use"):
            await app.serve(fleet, site, store=store)  # type: ignore[arg-type]
        assert store.is_closed
        assert not list((site.state_dir / leftovers.PIDS_DIRECTORY).glob("*.json"))


AGENT = """
import sys
from pathlib import Path

import uvloop
from support.scripted_store import ScriptedStore

from site_agent import app, config

fleet, site = config.load(Path(sys.argv[1]), None)
uvloop.run(app.serve(fleet, site, store=ScriptedStore()))
"""


@dataclass(slots=True)
class AgentProcess:
    """An agent as a process of its own."""

    process: asyncio.subprocess.Process
    url: str
    marker: str

    def others(self) -> list[int]:
        """Its engines and watchdog."""
        return [pid for pid in pids_with(self.marker) if pid != self.process.pid]

    async def slots(self) -> int:
        async with httpx.AsyncClient() as client:
            try:
                return int((await client.get(f"{self.url}/health")).json()["slots"])
            except httpx.HTTPError:
                return -1


@asynccontextmanager
async def agent_process(
    tmp_path: Path,
    feed: StubFeed,
    name: str = "1",
    *,
    engine: str = '{ kind = "emulated", start_seconds = 0.1 }',
    slots: int = 48,
    restart: str = "{}",
) -> AsyncIterator[AgentProcess]:
    port = _free_port()
    path = tmp_path / "fleet.toml"
    path.write_text(
        f"""
[[sites]]
site_id = "north"
farm_id = "f"
port = {port}
feed_url = "{feed.url}"
state_dir = "{tmp_path}/state"
watchdog_seconds = 1.0
shutdown_grace_seconds = 20
engine = {engine}
restart = {restart}
"""
    )
    marker = f"SITE_AGENT_TEST={tmp_path}-{name}"  # whole: two workers may have it by the same name
    key, _, value = marker.partition("=")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        AGENT,
        str(path),
        env={**os.environ, key: value, "PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    agent = AgentProcess(process=process, url=f"http://127.0.0.1:{port}", marker=marker)
    try:
        deadline = asyncio.get_running_loop().time() + 40
        while await agent.slots() < slots:
            assert process.returncode is None, "the agent ended"
            assert asyncio.get_running_loop().time() < deadline, "the agent did not come up"
            if feed.listeners:
                feed.say(reading(FULL_GRANT))
            await asyncio.sleep(0.1)
        yield agent
    finally:
        kill_all_with(marker)
        await process.wait()


def _free_port() -> int:
    return free_ports(1)[0]


async def test_sigterm_lets_a_stream_finish_and_leaves_nothing(tmp_path: Path) -> None:
    """Exit 0; new requests are pushed back meanwhile."""
    async with running_feed() as feed, agent_process(tmp_path, feed) as agent:
        body = {"model": "llama-3.1-70b", "prompt": "one", "max_tokens": 100, "stream": True}
        async with (
            httpx.AsyncClient(timeout=30) as client,
            client.stream("POST", f"{agent.url}/v1/completions", json=body) as answer,
        ):
            assert answer.status_code == 200
            agent.process.terminate()
            deadline = asyncio.get_running_loop().time() + 10
            while await agent.slots() != 0:
                assert asyncio.get_running_loop().time() < deadline
            assert (await answer.aread()).endswith(b"data: [DONE]\n\n")
        assert await agent.process.wait() == 0
        assert agent.others() == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_an_agent_that_is_killed_or_hangs_leaves_no_engine(
    tmp_path: Path, number: signal.Signals
) -> None:
    """The watchdog sees to it; and the next agent starts as if nothing had been."""
    async with running_feed() as feed:
        async with agent_process(tmp_path, feed) as agent:
            assert len(agent.others()) == 2  # the watchdog, and the process of the fake hardware
            agent.process.send_signal(number)
            await until(lambda: agent.others() == [], what="engines and watchdog gone")
        async with agent_process(tmp_path, feed, "2") as again:
            assert await again.slots() == 48


@pytest.mark.parametrize("control", ["governed", "power_cap_only", "gpu_idling", "dynamo_like"])
async def test_every_site_control_keeps_a_live_cap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, control: str
) -> None:
    """`[sites.governor] control`: each gets under a cap of two thirds by its own means, and serves on."""
    async with running_agent(tmp_path, monkeypatch, governor={"control": control}) as site:
        await site.until_report({"state": "serving", "ready": 3})
        site.grant(5000.0)
        async with asyncio.timeout(30):
            while not _complies(await site.report(), control):
                await site.client.get("/v1/models")
        async with site.stream(20) as answer:
            assert answer.status_code == 200
            assert (await answer.aread()).endswith(b"data: [DONE]\n\n")
        assert await site.metric("heron_site_cap_exceeded_seconds_total") == 0


def _complies(report: dict[str, Any], control: str) -> bool:
    """Whether the draw is within the lowered cap, by the means that the control has."""
    power, instances = report["power"], report["models"][0]["instances"]
    ready = [one["gpu_clock_mhz"] for one in instances if one["state"] == "ready"]
    means = {
        "power_cap_only": len(ready) == 3 and max(ready, default=1980) < 1980,
        "gpu_idling": 1 <= len(ready) < 3 and min(ready, default=0) == 1980,
    }
    is_within = 4000 < power["cap_watts"] < 5000 and power["draw_watts"] <= power["cap_watts"]
    return is_within and means.get(control, len(ready) >= 1)


async def test_a_site_control_that_is_none_is_refused(tmp_path: Path) -> None:
    """With those that there are."""
    with pytest.raises(ValueError, match=r"governed.*power_cap_only.*gpu_idling.*dynamo_like"):
        site_config(tmp_path, "http://127.0.0.1:1", governor={"control": "best"})
