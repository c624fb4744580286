"""Sites with real vLLM engines, as processes of their own, over a real Redis: two with one engine each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from cli.ports import free_ports
from cli.toml_text import to_toml
from support.heron_command import HERON
from support.processes import kill_all_with, pids_with
from support.redis_server import RedisServer

ROOT = Path(__file__).parents[2]
LOOPBACK = "127.0.0.1"
FEED_PERIOD_SECONDS = 10.0
"""The feed is replaced to change the wind, and may be away for seconds: caps must not walk down meanwhile."""
SITES = ("north", "coast")
MODEL = "tiny"
NAMEPLATE_WATTS = 5000.0
ONE_ENGINE_WATTS = 1450.0
"""Enough for one of two engines, with the governor's guard, and too little for both."""
START_SECONDS = 240.0
"""For an engine to be ready; half a minute alone on an idle machine."""


def wait_until(condition: Callable[[], object], *, seconds: float, what: Callable[[], str]) -> None:
    """Return once `condition()` is true; else fail with what `what()` then says."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what()}"
        time.sleep(0.1)


class Service:
    """One `heron` process; its output in `<name>.log`."""

    def __init__(self, name: str, arguments: list[str], directory: Path) -> None:
        self.name = name
        self._log = directory / f"{name}.log"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HERON_")}
        environment["TEST_OF_HERON"] = str(directory)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*HERON, *arguments], stdout=log, stderr=log, cwd=ROOT, env=environment
            )

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self._process.kill()
        self._process.wait()

    def tail(self) -> str:
        """What it said last."""
        return f"{self.name}: {self._log.read_text(errors='replace')[-3000:]}"


class VllmFleet:
    """Feed, two agents with their engines, router."""

    def __init__(
        self,
        directory: Path,
        redis_url: str,
        command: str,
        model_path: Path,
        sites: Sequence[str] = SITES,
        instances: int = 1,
        *,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`arguments` and `environment` are the engines', beside their own."""
        self._arguments = arguments
        self._environment = environment or {}
        self.directory = directory
        self.sites = tuple(sites)
        self._instances = instances
        router, router_operations, self._feed_port, *rest = free_ports(3 + 2 * len(self.sites))
        self.base_url = f"http://{LOOPBACK}:{router}/v1"
        self.router_operations = f"http://{LOOPBACK}:{router_operations}"
        self.ingress = {site: f"http://{LOOPBACK}:{rest[2 * n]}" for n, site in enumerate(self.sites)}
        self.operations = {site: f"http://{LOOPBACK}:{rest[2 * n + 1]}" for n, site in enumerate(self.sites)}
        self._tables: dict[str, Any] = {
            "fleet": {"redis_url": redis_url},
            "router": {"port": router, "operations_port": router_operations},
            "sites": [
                self._site(site, rest[2 * n], rest[2 * n + 1], command, model_path)
                for n, site in enumerate(self.sites)
            ],
        }
        self._http = httpx.Client(trust_env=False, timeout=10)
        self._services: dict[str, Service] = {}

    def _site(
        self, site: str, port: int, operations_port: int, command: str, model_path: Path
    ) -> dict[str, Any]:
        return {
            "site_id": site,
            "farm_id": f"{site}-farm",
            "port": port,
            "operations_port": operations_port,
            "feed_url": f"http://{LOOPBACK}:{self._feed_port}",
            "state_dir": str(self.directory / site),
            # 660 W with the engines stopped, 1,100 W with one busy, 1,540 W with two, by the assumed watts
            "safe_floor_watts": 700.0 if self._instances == 1 else ONE_ENGINE_WATTS,
            "firm_power_source": "the test",
            # far above what it needs: its cap may sink for a while when a feed is replaced on a busy machine
            "max_site_watts": 4000.0,
            # an agent on a crowded machine is silent for seconds; its engines must not be killed for that
            "ride_through_seconds": 60.0,
            "governor": {"rest_seconds": 0.0},  # what a drop empties is stopped: that is to be seen here
            "watchdog_seconds": 40.0,
            "engine": {
                "kind": "vllm",
                "model": MODEL,
                "instances": self._instances,
                "max_concurrency": 8,
                "command": [command],
                "model_path": str(model_path),
                "gpus_per_instance": 0,
                # bfloat16 leaves near ties, which two engines may decide differently
                "arguments": ["--dtype", "float32", *self._arguments],
                "start_timeout_seconds": START_SECONDS,
                "environment": {
                    "OMP_NUM_THREADS": "1",  # two engines share the machine with the test
                    "VLLM_ENABLE_RESPONSES_API_STORE": "1",
                    **self._environment,
                },
            },
        }

    @contextmanager
    def running(self) -> Iterator[VllmFleet]:
        """Everything up and both engines ready, for as long as the block lasts."""
        marker = f"TEST_OF_HERON={self.directory}"
        try:
            with ExitStack() as stack:
                stack.callback(self._stop_feed)
                self.set_wind(dict.fromkeys(self.sites, 1.0))
                for site in self.sites:
                    self._run(stack, f"site-{site}", ["site-agent", "--site", site])
                self._run(stack, "router", ["router"])
                for site in self.sites:
                    self.wait_for_engine(site, "ready")
                self.wait_until(lambda: self.is_ok(f"{self.router_operations}/readyz"), "the router is ready")
                yield self
            assert pids_with(marker) == [], "processes are left behind"
        finally:
            kill_all_with(marker)

    def _run(self, stack: ExitStack, name: str, arguments: list[str]) -> None:
        self._services[name] = Service(name, [*arguments, "--config", str(self._config())], self.directory)

        def stop() -> None:
            service = self._services[name]
            assert service.stop() == 0, service.tail()

        stack.callback(stop)

    def _config(self) -> Path:
        path = self.directory / "fleet.toml"
        path.write_text(to_toml(self._tables))
        return path

    def set_wind(self, ratios: Mapping[str, float]) -> None:
        """Replace the feed by one whose farms give these shares of their nameplate."""
        self._stop_feed()
        farms = [
            {
                "farm_id": f"{site}-farm",
                "site_id": site,
                "nameplate_watts": NAMEPLATE_WATTS,
                "source": {
                    "kind": "schedule",
                    "points": [[0.0, ratio]],
                    "period_seconds": FEED_PERIOD_SECONDS,
                },
            }
            for site, ratio in ratios.items()
        ]
        self._tables["power_feed"] = {"port": self._feed_port, "farms": farms}
        arguments = ["power-feed", "--config", str(self._config())]
        self._services["feed"] = Service("feed", arguments, self.directory)
        self.wait_until(lambda: self.is_ok(f"http://{LOOPBACK}:{self._feed_port}/healthz"), "the feed is up")

    def _stop_feed(self) -> None:
        feed = self._services.pop("feed", None)
        if feed is not None:
            assert feed.stop() == 0, feed.tail()

    def wait_until(self, condition: Callable[[], object], what: str, *, seconds: float = 60.0) -> None:
        """Else fail with every log's end."""
        wait_until(
            condition,
            seconds=seconds,
            what=lambda: f"{what}\n{self.tails()}",
        )

    def tails(self) -> str:
        """What every process said last."""
        return "\n".join(one.tail() for one in self._services.values())

    def wait_for_engine(self, site: str, state: str) -> None:
        """Until every engine of the site is in this state, by the agent's own metrics."""
        self.wait_for_engines(site, state, self._instances)

    def wait_for_engines(self, site: str, state: str, count: int) -> None:
        """Until so many are."""
        self.wait_until(
            lambda: self.metric(site, "heron_site_instances", state=state) == count,
            f"{count} engines of {site} are {state}",
            seconds=START_SECONDS,
        )

    def is_ok(self, url: str) -> bool:
        """Whether it answers 200."""
        try:
            return self._http.get(url).status_code == 200
        except httpx.HTTPError:
            return False

    def metric(self, site: str, name: str, **labels: str) -> float | None:
        """One sample of the agent's metrics page; None: not there."""
        try:
            page = self._http.get(f"{self.operations[site]}/metrics").text
        except httpx.HTTPError:
            return None
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return float(sample.value)
        return None

    def json(self, url: str) -> Any:
        """A page that must be there."""
        answer = self._http.get(url)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def restart_agent(self, site: str) -> None:
        """A new agent in place of one that has ended."""
        name = f"site-{site}"
        arguments = ["site-agent", "--site", site, "--config", str(self._config())]
        self._services[name] = Service(name, arguments, self.directory)

    def agent(self, site: str) -> Service:
        """The site's agent."""
        return self._services[f"site-{site}"]

    def engine_group(self, site: str, index: int = 0) -> int:
        """The process group of one of the site's engines, from the agent's pid files."""
        marks = [json.loads(path.read_text()) for path in (self.directory / site / "pids").glob("*.json")]
        (group,) = [mark["pid"] for mark in marks if mark["label"] == f"{site}-{index}"]
        return int(group)

    def engine_url(self, site: str, index: int = 0) -> str:
        """Where its engine listens, from its own command line."""
        words = Path(f"/proc/{self.engine_group(site, index)}/cmdline").read_bytes().decode().split("\0")
        return f"http://{LOOPBACK}:{words[words.index('--port') + 1]}"

    def kill_engine(self, site: str, index: int = 0) -> None:
        """As a crash would: every process of the engine at once."""
        os.killpg(self.engine_group(site, index), signal.SIGKILL)


@contextmanager
def vllm_fleet(
    directory: Path,
    command: str,
    model_path: Path,
    sites: Sequence[str] = SITES,
    instances: int = 1,
    **options: Any,
) -> Iterator[VllmFleet]:
    """The fleet with its Redis, each in a directory of its own: what the fleet leaves is known by its."""
    for name in ("fleet", "redis"):
        (directory / name).mkdir()
    redis = RedisServer(directory / "redis")
    redis.start()
    try:
        made = VllmFleet(directory / "fleet", redis.url, command, model_path, sites, instances, **options)
        with made.running() as fleet:
            yield fleet
    finally:
        redis.stop()
