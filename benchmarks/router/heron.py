"""Heron as its users start it: `heron router --config FILE`, its Redis, five sites that report each second.

Redis and the reports are not the router's: they run on the load's core, and their CPU time is not counted.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import redis

from benchmarks.router.load import API_KEY
from benchmarks.router.peers import Launch, Peer, Place
from benchmarks.router.process import free_ports, running
from benchmarks.router.programs import REPOSITORY, MissingError
from fleet.keys import Keys
from fleet.records import ApiKey, Capabilities, ModelReport, SiteInfo, SiteReport
from fleet.redis_server import find_redis_server

KEYS = Keys(fleet="default")
MODEL = "bench"
ROOM_REQUESTS = 4096
"""Of each site: the router is measured, not its queue."""
REPORT_TTL_SECONDS = 60
COMPILED = REPOSITORY / "build" / "compiled"
REDIS_START_SECONDS = 10.0


class Sites:
    """Announces a fleet of sites whose ingress is the fast upstream, every second, until closed."""

    def __init__(self, redis_port: int, ingress_urls: list[str]) -> None:
        self._redis = redis.Redis(port=redis_port, socket_timeout=5)
        self._urls = {f"site-{index}": url for index, url in enumerate(ingress_urls)}
        self._sequence = time.time_ns() // 1_000_000
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Write the SiteInfo records and begin to report."""
        for site_id, url in self._urls.items():
            info = SiteInfo(
                agent_id=f"agent-{site_id}",
                sequence=self._sequence,
                site_id=site_id,
                farm_id=f"farm-{site_id}",
                region="bench",
                ingress_url=url,
                gpu_model="H100-80GB",
                gpu_count=8,
                server_idle_watts=1000.0,
                overhead_ratio=1.1,
                ride_through_seconds=5.0,
                ride_through_joules=20_000.0,
                safe_floor_watts=0.0,
                max_site_watts=8000.0,
                capabilities=Capabilities(paths=("/v1/chat/completions",), token_ids=True),
            )
            self._redis.set(KEYS.site_info(site_id), info.to_json())
        self._thread.start()

    def _run(self) -> None:
        while not self._closing.wait(1.0):
            self._sequence += 1
            for site_id, url in self._urls.items():
                report = SiteReport(
                    agent_id=f"agent-{site_id}",
                    sequence=self._sequence,
                    site_id=site_id,
                    observed_at_unix_seconds=time.time(),
                    ingress_url=url,
                    state="serving",
                    models=(
                        ModelReport(
                            model=MODEL,
                            ready_instances=1,
                            max_concurrency=ROOM_REQUESTS,
                            headroom_requests=ROOM_REQUESTS,
                        ),
                    ),
                ).to_json()
                self._redis.set(KEYS.site(site_id), report, ex=REPORT_TTL_SECONDS)
                self._redis.zadd(KEYS.sites, {site_id: time.time()})
                self._redis.publish(KEYS.site_channel, report)

    def close(self) -> None:
        """Stop; returns when the last report is out."""
        self._closing.set()
        self._thread.join()
        self._redis.close()


def start_redis(place: Place, stack: ExitStack) -> int:
    """A Redis of its own on the load's core; its port."""
    (port,) = free_ports(1)
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    command: list[str | Path] = [find_redis_server(), *options, "--dir", place.directory]
    stack.enter_context(running(command, core=place.load_core, log=place.directory / "redis.log"))
    give_up = time.monotonic() + REDIS_START_SECONDS
    with redis.Redis(port=port, socket_timeout=5) as client:
        while True:
            try:
                client.ping()
            except redis.RedisError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.02)
            else:
                return port


def launch(place: Place, stack: ExitStack) -> Launch:
    """`heron router`."""
    redis_port = start_redis(place, stack)
    if place.use_keys:
        with redis.Redis(port=redis_port) as client:
            digest = hashlib.sha256(API_KEY.encode()).hexdigest()
            client.hset(KEYS.api_key(digest), mapping=ApiKey(tenant="bench").to_hash())
    sites = Sites(redis_port, place.upstream_urls)
    sites.start()
    stack.callback(sites.close)
    config = place.directory / "fleet.toml"
    config.write_text(
        f"""[fleet]
redis_url = "redis://127.0.0.1:{redis_port}/0"

[router]
port = {place.port}
operations_port = {operations_port(place)}
auth = "{"keys" if place.use_keys else "open"}"
"""
    )
    workers = ["--workers", str(place.workers)] if place.workers > 1 else []
    return Launch(
        command=[sys.executable, "-P", "-m", "cli.main", "router", "--config", config, *workers],
        settle_seconds=2.5,  # every site's sequence has advanced, so that all five count as fresh
    )


def launch_compiled(place: Place, stack: ExitStack) -> Launch:
    """The same, as `scripts/compile` builds it.

    Raises:
        MissingError: it was not built, or from other sources than those here.
    """
    listed = (REPOSITORY / "scripts" / "compiled-modules.txt").read_text().splitlines()
    for name in listed:
        copy = COMPILED / name
        if name.startswith("#"):
            continue
        if not copy.exists() or copy.read_bytes() != (REPOSITORY / name).read_bytes():
            raise MissingError(f"build/compiled/{name} is not what is in the tree: run scripts/compile")
    launched = launch(place, stack)
    return replace(launched, environ={**launched.environ, "PYTHONPATH": str(COMPILED)})


def operations_port(place: Place) -> int:
    """A port that goes with the public one."""
    return place.port + 1


def own_version() -> str:
    """Version and commit."""
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    return f"heron {version('heron-router')} at {said.stdout.strip() or 'an unknown commit'}"


HERON = Peer(name="heron", launch=launch, version=own_version)
HERON_COMPILED = Peer(
    name="heron-compiled", launch=launch_compiled, version=lambda: f"{own_version()}, scripts/compile"
)
