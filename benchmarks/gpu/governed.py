"""One site whose only load is a real GPU, held to a cap that falls in steps: its draw by the GPU's own meter.

The site is the GPU alone (no host, no overhead), so that nothing is assumed: what the meter says is what is
judged. Clocks are left alone (`nvml-read-only`): the ladder is admission, then stopping the engine.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx

from benchmarks.gpu.meter import GpuMeter
from cli.judge import judge
from cli.ports import free_ports
from cli.power_logs import read_power_log
from cli.toml_text import to_toml
from fleet.power import CapRule, RideThrough
from site_agent.governor import SPIKE_SECONDS
from site_agent.recent import RecentMean

ROOT = Path(__file__).parents[2]
SITE = "north"
TOKEN = "gpu-campaign-" + "0" * 32
MARGIN_RATIO = 0.05
RIDE_THROUGH_SECONDS = 5.0
MAX_SITE_WATTS = 850.0
FLOOR_WATTS = 100.0
"""Firm power: above an H100 without an engine, below one with an engine awake and empty or at work."""
START_SECONDS = 240.0
STEPS = ((0.0, 850.0), (0.12, 600.0), (0.24, 850.0), (0.4, 0.0), (0.5, 850.0))
"""From this share of the run on, watts of wind: full; enough for an empty engine only; full; none: the engine
must stop; full."""


def govern(
    directory: Path,
    *,
    command: str,
    model_path: Path,
    profile: Path,
    meter: GpuMeter,
    seconds: float,
    requests_per_second: float,
    arguments: Sequence[str],
) -> dict[str, Any]:
    """Bring the fleet up, send a steady load while the wind falls and rises, judge; then `kill -9` the agent.

    `arguments` are further ones of vLLM.

    Raises:
        RuntimeError: the fleet does not serve in time.
    """
    redis_port, router_port, operations_port, feed_port, site_port, site_operations_port = free_ports(6)
    start_file = directory / "wind-start"
    tables = {
        "fleet": {"redis_url": f"redis://127.0.0.1:{redis_port}/0", "site_token": TOKEN},
        "router": {"port": router_port, "operations_port": operations_port},
        "power_feed": {
            "port": feed_port,
            "start_file": start_file,
            "farms": [
                {
                    "farm_id": "farm",
                    "site_id": SITE,
                    "nameplate_watts": MAX_SITE_WATTS,
                    "source": {
                        "kind": "schedule",
                        "points": [[share * seconds, watts / MAX_SITE_WATTS] for share, watts in STEPS],
                    },
                }
            ],
        },
        "sites": [
            {
                "site_id": SITE,
                "farm_id": "farm",
                "port": site_port,
                "operations_port": site_operations_port,
                "feed_url": f"http://127.0.0.1:{feed_port}",
                "state_dir": directory / "state",
                "margin_ratio": MARGIN_RATIO,
                "max_site_watts": MAX_SITE_WATTS,
                "safe_floor_watts": FLOOR_WATTS,
                "firm_power_source": "the machine's own mains",
                "ride_through_seconds": RIDE_THROUGH_SECONDS,
                "overhead_ratio": 1.0,
                "host_idle_watts": 0.0,
                "engine": {
                    "kind": "vllm",
                    "command": [command],
                    "model": "llama-8b-shape",
                    "model_path": str(model_path),
                    "profile": str(profile),
                    "instances": 1,
                    "gpus_per_instance": 1,
                    "max_concurrency": 128,
                    "gpu_driver": "nvml-read-only",
                    "arguments": ["--max-model-len", "8192", *arguments],
                },
            }
        ],
    }
    config = directory / "fleet.toml"
    config.write_text(to_toml(tables))
    log = directory / "gpu.csv"
    with meter.logging(log), _up(config, directory / "up.log") as fleet:
        began = time.monotonic()
        base_url = f"http://127.0.0.1:{router_port}"
        _wait_until_serving(base_url, fleet)
        ready_seconds = time.monotonic() - began
        start = time.time()
        start_file.write_text(f"{start}\n")
        replayed = directory / "replay.json"
        _heron(
            [
                *("replay", "--url", base_url, "--model", "llama-8b-shape", "--json", str(replayed)),
                *("--arrivals", "poisson", "--rate", str(requests_per_second), "--quiet"),
                *("--mean-prompt-tokens", "400", "--mean-output-tokens", "200", "--seconds", str(seconds)),
            ],
            directory,
        )
        end = time.time()
        gone_seconds = _kill_agent(fleet.pid, meter)
    verdict = _judge(log, start, end, seconds)
    return {
        "ready_seconds": ready_seconds,
        "start_unix_seconds": start,
        "steps": [[share * seconds, watts] for share, watts in STEPS],
        "verdict": verdict,
        "traffic": json.loads(replayed.read_text()),
        "seconds_from_kill_of_agent_to_gpu_without_engine": gone_seconds,
    }


RULE = CapRule(max_site_watts=MAX_SITE_WATTS, margin_ratio=MARGIN_RATIO, safe_floor_watts=FLOOR_WATTS)


def _judge(log: Path, start: float, end: float, seconds: float) -> dict[str, Any] | None:
    """By the mean of half a second, as the governor (docs/decisions/0021)."""
    samples = [one for one in read_power_log(log) if start <= one.unix_seconds <= end]
    mean = RecentMean(hold_seconds=SPIKE_SECONDS)

    def wind_watts(at: float) -> float:
        return [watts for share, watts in STEPS if share * seconds <= at - start][-1]

    verdict = judge(
        (replace(one, site_watts=mean.observe(one.site_watts, one.unix_seconds)) for one in samples),
        granted_watts=wind_watts,
        rule=RULE,
        limits=RideThrough.for_site(max_site_watts=MAX_SITE_WATTS, seconds=RIDE_THROUGH_SECONDS),
        idle_watts=min(one.site_watts for one in samples),
    )
    return (
        None
        if verdict is None
        else asdict(verdict) | {"peak_reading_watts": max(one.site_watts for one in samples)}
    )


def _heron(arguments: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    with (directory / "commands.log").open("a") as log:
        log.write(f"{arguments}\n{done.returncode}\n{done.stdout}\n{done.stderr}\n")
    return done


@contextmanager
def _up(config: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        fleet = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "up", "--config", str(config)],
            cwd=ROOT,
            stdout=out,
            stderr=out,
        )
    try:
        yield fleet
    finally:
        fleet.send_signal(signal.SIGTERM)
        try:
            fleet.wait(timeout=60)
        except subprocess.TimeoutExpired:
            fleet.kill()
            fleet.wait()


def _wait_until_serving(base_url: str, fleet: subprocess.Popen[bytes]) -> None:
    give_up_at = time.monotonic() + START_SECONDS
    body: Mapping[str, Any] = {"model": "llama-8b-shape", "prompt": "x", "max_tokens": 1}
    while time.monotonic() < give_up_at and fleet.poll() is None:
        try:
            if httpx.post(f"{base_url}/v1/completions", json=body, timeout=60).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise RuntimeError(f"{base_url} does not serve: see up.log and heron-logs")


def _kill_agent(fleet_pid: int, meter: GpuMeter) -> float | None:
    """`kill -9` of the agent; seconds until the GPU's memory is free again, None: not within 30 s."""
    agents = [pid for pid in _children(fleet_pid) if b"site-agent" in _command_line(pid)]
    os.kill(fleet_pid, signal.SIGSTOP)  # nobody starts it again meanwhile
    began = time.monotonic()
    for pid in agents:
        os.kill(pid, signal.SIGKILL)
    found = None
    while found is None and time.monotonic() - began < 30:
        if meter.read().memory_gib < 4:
            found = time.monotonic() - began
        time.sleep(0.05)
    os.kill(fleet_pid, signal.SIGCONT)
    return found


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def _command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
