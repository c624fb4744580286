"""A farm of whole servers: the real feed and real agents as processes, a real Redis; the machines are FAKE.

A machine is a process group with an agent in it, and a controller that speaks Redfish. Switching it off kills
everything on it at once, as a power cut would; switching it on starts an agent, after a while. Its meter is
the fake hardware's own log: a machine that is off writes none and draws nothing, one that boots is counted at
its idle draw.
"""

from __future__ import annotations

import asyncio
import bisect
import json
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from cli.ports import free_ports
from fleet.keys import Keys
from fleet.records import Plan, SiteReport, SolverReport
from support.heron_command import HERON
from support.json_server import JsonServer, json_server
from support.processes import kill_all_with, pids_with
from support.redfish_controller import Controller
from support.redis_server import RedisServer
from support.wait import until, until_it_says

KEYS = Keys(fleet="test")
TOKEN = "secret"
MODEL = "llama-3.1-70b"
IDLE_WATTS = 1.1 * (300 + 280) * 1.02
"""Of a machine whose engine is stopped, by the profile: host and four GPUs; and the meter's noise."""
RIDE_THROUGH_SECONDS = 5.0
"""The agents' default."""


class FakeMachine:
    """FAKE server hardware."""

    def __init__(
        self, site_id: str, directory: Path, environment: Mapping[str, str], *, boot_seconds: float = 1.0
    ) -> None:
        self.site_id = site_id
        self.directory = directory / site_id
        self.directory.mkdir()
        [self.port, self.operations_port] = free_ports(2)
        self.controller = Controller(self._reset)
        self.switched: list[tuple[float, bool]] = []
        """(Unix seconds, on) of each change of its power."""
        self.pid: int | None = None
        self._config = directory / "fleet.toml"
        self._marker = f"FAKE_MACHINE={self.directory}"
        self._environment = {**environment, "FAKE_MACHINE": str(self.directory)}
        self._boot_seconds = boot_seconds
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_on(self) -> bool:
        return bool(self.switched) and self.switched[-1][1]

    def _reset(self, on: bool) -> None:
        """Called by the controller, in its thread."""
        if on and not self.is_on:
            self.switched.append((time.time(), True))
            command = f'sleep {self._boot_seconds}; exec "$@"'
            agent = [*HERON, "site-agent", "--config", str(self._config), "--site", self.site_id]
            with (self.directory / "agent.log").open("ab") as log:
                process = subprocess.Popen(
                    ["sh", "-c", command, "boot", *agent], env=self._environment, stderr=log
                )
            self._processes.append(process)
            self.pid = process.pid
        elif not on and self.is_on:
            while pids_with(self._marker):
                kill_all_with(self._marker)
            for process in self._processes:
                process.wait()
            self.switched.append((time.time(), False))

    async def switch(self, *, on: bool) -> None:
        """By hand, without anybody asking the controller."""
        await asyncio.to_thread(self._reset, on)
        self.controller.state = "On" if on else "Off"

    def drawn(self) -> list[tuple[float, float]]:
        """(Unix seconds, watts) of its meter so far, whole samples only."""
        path = self.directory / "fake-power.csv"
        lines = path.read_text().rpartition("\n")[0].split("\n") if path.exists() else []
        pairs = [line.split(",")[:2] for line in lines if line and not line.startswith("unix")]
        return [(float(at), float(watts)) for at, watts in pairs]

    def close(self) -> None:
        self._reset(False)
        self.controller.close()


class Farm:
    """What a test asks of it."""

    def __init__(
        self, machines: Sequence[FakeMachine], redis: RedisServer, wind: JsonServer, client: httpx.AsyncClient
    ) -> None:
        self.machines = {machine.site_id: machine for machine in machines}
        self.redis = redis
        self.feed_url = ""
        self.client = client
        self.had: list[tuple[float, float]] = []
        """(Unix seconds, watts) of each change of the farm's power."""
        self._wind = wind

    def blow(self, watts: float) -> None:
        """The farm's power from now on."""
        self.had.append((time.time(), watts))
        self._wind.say({"watts": watts})

    def plan(self, *, epoch: int, shares: Mapping[str, float]) -> None:
        """As a planner's."""
        plan = Plan(
            router_id="planner",
            sequence=epoch,
            epoch=epoch,
            solved_at_unix_seconds=1.0,
            valid_for_seconds=600.0,
            solver=SolverReport(status="optimal", seconds=0.1),
            shares={"coast-farm": dict(shares)},
        )
        self.redis.client().set(KEYS.plan, plan.to_json())

    async def page(self, url: str) -> str:
        """The metrics there; empty where nobody answers."""
        try:
            return (await self.client.get(f"{url}/metrics")).text
        except httpx.HTTPError:
            return ""

    async def fed(self, name: str, site_id: str) -> float | None:
        """One of the feed's figures of a site."""
        return value_of(await self.page(self.feed_url), name, site_id)

    async def agent(self, name: str, site_id: str) -> float | None:
        """One of its agent's figures; None while that does not answer."""
        port = self.machines[site_id].operations_port
        return value_of(await self.page(f"http://127.0.0.1:{port}"), name, site_id)

    async def report(self, site_id: str) -> SiteReport | None:
        """As the agent answers; None while it does not."""
        headers = {"authorization": f"Bearer {TOKEN}"}
        try:
            answer = await self.client.get(
                f"{self.machines[site_id].url}/heron/v1/report", headers=headers, timeout=2
            )
        except httpx.HTTPError:
            return None
        return SiteReport.from_json(answer.content) if answer.status_code == 200 else None

    def stored_report(self, site_id: str) -> SiteReport | None:
        """What Redis holds."""
        raw = self.redis.client().get(KEYS.site(site_id))
        return None if raw is None else SiteReport.from_json(raw)  # type: ignore[arg-type]

    async def until_granted(self, wanted: Mapping[str, float], *, tolerance_watts: float = 20.0) -> None:
        """Wait for these grants."""
        seen: dict[str, float | None] = {}

        async def is_so() -> bool:
            seen.update({one: await self.fed("heron_feed_granted_watts", one) for one in wanted})
            return all(abs((seen[one] or 0.0) - watts) <= tolerance_watts for one, watts in wanted.items())

        try:
            await until_it_says(is_so, seconds=60, what=f"{wanted}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {seen}") from None

    async def until_drawn(self, site_id: str, watts: float) -> None:
        """Wait until a machine draws so much."""
        drawn = self.machines[site_id].drawn
        await until(lambda: drawn()[-1][1] >= watts, seconds=60, what=f"{watts:.0f} W at {site_id}")

    async def until_state(self, site_id: str, state: str, *, ready: int | None = None) -> None:
        async def is_so() -> bool:
            report = await self.report(site_id)
            if report is None or report.state != state:
                return False
            return ready is None or report.models[0].ready_instances == ready

        await until_it_says(is_so, seconds=60, what=f"{site_id}: {state}")

    async def complete(self, site_id: str, *, tokens: int = 20) -> int:
        """One request, streamed and read to its end; its status, or 0 where it was cut."""
        body = {"model": MODEL, "prompt": "one two three", "max_tokens": tokens, "stream": True}
        try:
            async with self.client.stream(
                "POST",
                f"{self.machines[site_id].url}/v1/completions",
                json=body,
                headers={"authorization": f"Bearer {TOKEN}"},
            ) as answer:
                data = await answer.aread()
        except httpx.HTTPError:
            return 0
        return answer.status_code if data.endswith(b"data: [DONE]\n\n") or answer.status_code != 200 else 0

    async def load(self, site_id: str) -> None:
        """One client that never has enough; cancel it."""
        while True:
            if await self.complete(site_id, tokens=200) != 200:
                await asyncio.sleep(0.2)

    def had_at_most(self, at: float, *, within_seconds: float) -> float:
        """The most power that the farm had in the time before that instant."""
        past = [watts for since, watts in self.had if since <= at - within_seconds][-1:]
        return max([*past, *(watts for since, watts in self.had if at - within_seconds < since <= at)])

    def together(self) -> list[tuple[float, float]]:
        """(Unix seconds, watts) of all machines, at each sample of any."""
        meters = [_Meter(machine) for machine in self.machines.values()]
        instants = sorted({at for meter in meters for at in meter.instants})
        return [(at, sum(meter.watts_at(at) for meter in meters)) for at in instants]


class _Meter:
    """One machine's draw at any instant."""

    def __init__(self, machine: FakeMachine) -> None:
        samples = machine.drawn()
        self.instants = [at for at, _ in samples]
        self._watts = [watts for _, watts in samples]
        self._switched = machine.switched

    def watts_at(self, at: float) -> float:
        """Nothing while off; its idle draw from being switched on to the first sample; then the last one."""
        changes = [(since, on) for since, on in self._switched if since <= at]
        if not changes or not changes[-1][1]:
            return 0.0
        index = bisect.bisect_right(self.instants, at) - 1
        if index < 0 or self.instants[index] < changes[-1][0]:
            return IDLE_WATTS
        return self._watts[index]


def value_of(page: str, name: str, site_id: str) -> float | None:
    """The sum of one site's values of a metric; None where there is none."""
    values = [
        float(line.rpartition(" ")[2])
        for line in page.splitlines()
        if line.startswith(f"{name}{{") and f'site="{site_id}"' in line
    ]
    return sum(values) if values else None


def _configuration(
    machines: Sequence[FakeMachine],
    redis_url: str,
    feed_port: int,
    wind_url: str,
    watts: float,
    governor: str,
) -> str:
    parts = [
        f"""
        [fleet]
        name = "test"
        redis_url = "{redis_url}"
        site_token = "{TOKEN}"
        [power_feed]
        port = {feed_port}
        interval_seconds = 0.5
        [[power_feed.farms]]
        farm_id = "coast-farm"
        nameplate_watts = {watts}
        source = {{ kind = "http", url = "{wind_url}", json_path = "watts", unit = "W", period_seconds = 1.0, poll_seconds = 0.2 }}
        quality = {{ max_ramp_ratio_per_second = 100, stuck_measurements = 0 }}
        """  # noqa: E501
    ]
    parts += [
        f"""
        [[power_feed.farms.sites]]
        site_id = "{machine.site_id}"
        server_idle_watts = {IDLE_WATTS}
        server = {{ kind = "redfish", system_url = "{machine.controller.url}", min_off_seconds = 1 }}
        """
        for machine in machines
    ]
    parts += [
        f"""
        [[sites]]
        site_id = "{machine.site_id}"
        farm_id = "coast-farm"
        port = {machine.port}
        operations_port = {machine.operations_port}
        feed_url = "http://127.0.0.1:{feed_port}"
        state_dir = {json.dumps(str(machine.directory))}
        host_idle_watts = 300
        [sites.engine]
        kind = "emulated"
        instances = 1
        start_seconds = 0.2
        [sites.governor]
        {governor}
        """
        for machine in machines
    ]
    return "\n".join(parts)


def _start_feed(directory: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    command = [*HERON, "power-feed", "--config", str(directory / "fleet.toml")]
    with (directory / "feed.log").open("wb") as log:
        return subprocess.Popen(command, env=dict(environment), stderr=log)


@asynccontextmanager
async def running_farm(
    directory: Path,
    environment: Mapping[str, str],
    *,
    sites: int,
    nameplate_watts: float,
    watts: float,
    governor: str = "",
) -> AsyncIterator[Farm]:
    """So many machines, switched on, and the feed. `watts` is what the farm has at first; `governor`: keys of
    the agents' table.
    """
    machines = [FakeMachine(f"coast-{number}", directory, environment) for number in range(1, sites + 1)]
    redis = RedisServer(directory)
    [feed_port] = free_ports(1)
    feed: subprocess.Popen[bytes] | None = None
    async with json_server() as wind, httpx.AsyncClient(timeout=30, trust_env=False) as client:
        farm = Farm(machines, redis, wind, client)
        farm.feed_url = f"http://127.0.0.1:{feed_port}"
        farm.blow(watts)
        text = _configuration(machines, redis.url, feed_port, wind.url, nameplate_watts, governor)
        (directory / "fleet.toml").write_text(text)
        try:
            redis.start()
            for machine in machines:
                await machine.switch(on=True)
            feed = _start_feed(directory, environment)

            async def is_up() -> bool:
                return bool(await farm.page(farm.feed_url))

            await until_it_says(is_up, seconds=60, what="the feed's start")
            yield farm
        finally:
            if feed is not None:
                feed.send_signal(signal.SIGTERM)
                await asyncio.to_thread(feed.wait, 20)
            for machine in machines:
                await asyncio.to_thread(machine.close)
            redis.stop()
