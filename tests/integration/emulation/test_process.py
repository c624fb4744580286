"""The process of the fake hardware: its control API, its meter, its end."""

from __future__ import annotations

import asyncio
import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from support.fake_hardware import START_SECONDS, fake_hardware, settings
from support.wait import until

from fleet.profile import LLAMA_70B_H100_TP4 as PROFILE

COMMAND = (sys.executable, "-m", "site_agent.emulation", "--config")
GREEDY: dict[str, Any] = {"messages": [{"role": "user", "content": "baba"}], "stream": True}


def is_alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def read_log(path: Path) -> list[dict[str, str]]:
    """All whole lines so far."""
    lines = path.read_text().splitlines(keepends=True)
    return list(csv.DictReader(line for line in lines if line.endswith("\n")))


async def test_power_log_follows_what_the_engines_do(tmp_path: Path) -> None:
    """Ten lines a second in wall time, site watts with overhead and host, lag and noise in them."""
    path = tmp_path / "power.csv"
    async with fake_hardware(
        engines=2, power_log=str(path), host_idle_watts=600.0, overhead_ratio=1.1, seed=3
    ) as hardware:
        stopped = (2 * PROFILE.stopped_watts + 600) * 1.1
        await until(lambda: len(read_log(path)) >= 3, what="three lines")
        assert float(read_log(path)[0]["site_watts"]) == pytest.approx(stopped, rel=0.03)
        url = await hardware.start_engine()
        async with httpx.AsyncClient(base_url=url, timeout=30.0) as raw:
            request = asyncio.create_task(raw.post("/v1/chat/completions", json=GREEDY))
            busy = (PROFILE.stopped_watts + PROFILE.watts(1, PROFILE.full_clock_mhz) + 600) * 1.1
            await until(lambda: float(read_log(path)[-1]["site_watts"]) > 0.97 * busy, what="busy watts")
            await hardware.stop_engine()
            await asyncio.gather(request, return_exceptions=True)
        await until(lambda: float(read_log(path)[-1]["site_watts"]) < 1.03 * stopped, what="stopped watts")
        described = await hardware.describe()
    rows = read_log(path)
    assert list(rows[0]) == [
        *("unix_seconds", "site_watts"),
        *(f"fake_gpu_{index}_watts" for index in range(8)),
    ]
    times = [float(row["unix_seconds"]) for row in rows]
    assert times == sorted(times)
    assert abs(times[-1] - time.time()) < 60
    assert len(times) <= (times[-1] - times[0]) / 0.1 + 2
    for row in rows:
        gpus = sum(float(row[name]) for name in row if name.startswith("fake_gpu"))
        assert float(row["site_watts"]) == pytest.approx((gpus + 600) * 1.1, abs=1.0)
    assert described["fake"] is True
    assert len(described["gpus"]) == 8
    assert described["gpus"][0]["energy_joules"] > described["gpus"][7]["energy_joules"] > 0


async def test_clock_reaches_gpus_and_engine_and_lasts_over_restarts() -> None:
    """Locked, refused when it does not exist, unlocked."""
    async with fake_hardware() as hardware:

        async def set_clock(clock_mhz: int | None) -> httpx.Response:
            body = {"instance_id": "north-0", "clock_mhz": clock_mhz}
            return await hardware.control.post("/gpus/clock", json=body)

        async def until_clock(clock_mhz: int) -> None:
            async with asyncio.timeout(START_SECONDS):
                while {gpu["clock_mhz"] for gpu in (await hardware.describe())["gpus"]} != {clock_mhz}:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)

        await hardware.start_engine()
        assert (await set_clock(800)).status_code == 200
        await until_clock(800)
        await hardware.stop_engine()
        await hardware.start_engine()
        await until_clock(800)
        refused = await set_clock(5000)
        assert refused.status_code == 400
        assert "takes 800 to 1980" in refused.json()["error"]["message"]
        assert (await set_clock(None)).status_code == 200
        await until_clock(1980)
        power = (await hardware.control.get("/gpus/power")).json()
        assert power["fake"] is True
        assert power["power_watts"] > 0


async def test_engine_that_starts_answers_503_and_draws_idle_watts() -> None:
    """Until `start_seconds` are over; it can be stopped meanwhile."""
    async with fake_hardware(start_seconds=3600.0, power_lag_seconds=0.0) as hardware:
        answer = await hardware.control.post("/engines/north-0/start")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{answer.json()['port']}") as raw:
            assert (await raw.get("/health")).status_code == 503
            assert (await raw.post("/v1/completions", json={"prompt": "a"})).status_code == 503
        assert await hardware.state() == "starting"
        watts = sum(gpu["power_watts"] for gpu in (await hardware.describe())["gpus"])
        assert watts == pytest.approx(PROFILE.idle_watts, rel=0.05)
        again = await hardware.control.post("/engines/north-0/start")
        assert again.status_code == 409
        assert again.json()["error"]["reason"] == "busy"
        await hardware.stop_engine()
        await hardware.stop_engine()
        assert await hardware.state() == "stopped"


async def test_reading_a_long_prompt_draws_prefills_watts() -> None:
    """More than a batch of one does, over the four steps that it takes."""
    full = PROFILE.full_clock_mhz
    async with fake_hardware(power_lag_seconds=0.0, power_noise_ratio=0.0) as hardware:
        url = await hardware.start_engine()
        async with httpx.AsyncClient(base_url=url, timeout=30.0) as raw:
            prompt = {"prompt": list(range(1000, 8000)), "max_tokens": 1}
            request = asyncio.create_task(raw.post("/v1/completions", json=prompt))
            seen = 0.0
            while not request.done():
                power = (await hardware.control.get("/gpus/power")).json()
                seen = max(seen, float(power["power_watts"]))
                await asyncio.sleep(0.01)
            assert (await request).status_code == 200
    assert PROFILE.watts(1, full) * 1.1 < seen <= PROFILE.prefill_watts(full) * 1.001


async def test_wrong_calls_are_refused_with_a_reason() -> None:
    """Unknown engine, port in use, fault of a stopped engine."""
    async with fake_hardware() as hardware:
        unknown = await hardware.control.post("/engines/x/start")
        assert unknown.status_code == 404
        assert "there are north-0" in unknown.json()["error"]["message"]
        with socket.create_server(("127.0.0.1", 0)) as taken:
            body = {"port": taken.getsockname()[1]}
            answer = await hardware.control.post("/engines/north-0/start", json=body)
        assert answer.status_code == 409
        assert answer.json()["error"]["reason"] == "port_in_use"
        assert str(body["port"]) in answer.json()["error"]["message"]
        fault = await hardware.control.post("/engines/north-0/fault", json={"kind": "crash"})
        assert fault.status_code == 409
        assert (await hardware.control.post("/engines/north-0/fault", json={"kind": "x"})).status_code == 422
        assert await hardware.start_engine()


async def test_sigterm_ends_it_cleanly() -> None:
    """Streams are cut, the exit code is 0."""
    async with fake_hardware() as hardware:
        url = await hardware.start_engine()
        async with httpx.AsyncClient(base_url=url, timeout=30.0) as raw:
            request = asyncio.create_task(raw.post("/v1/chat/completions", json=GREEDY))
            await hardware.until_running(1)
            hardware.process.send_signal(signal.SIGTERM)
            assert await hardware.process.wait() == 0
            with pytest.raises(httpx.RemoteProtocolError):
                await request


async def test_end_of_standard_input_ends_it() -> None:
    """A parent that is gone has closed it."""
    async with fake_hardware() as hardware:
        assert hardware.process.stdin is not None
        hardware.process.stdin.close()
        assert await hardware.process.wait() == 0


async def test_killed_parent_takes_it_along() -> None:
    """By the kernel's signal, also when something else holds its standard input open."""
    reader, writer = os.pipe()
    parent_code = (
        "import os, subprocess, sys, time, json\n"
        "config = json.loads(sys.argv[1]) | {'parent_pid': os.getpid()}\n"
        "child = subprocess.Popen([*sys.argv[2:], json.dumps(config)], stdin=int(sys.stdin.fileno()),\n"
        "                         stdout=subprocess.PIPE)\n"
        "print(child.stdout.readline().decode(), end='', flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", parent_code, orjson.dumps(settings()).decode(), *COMMAND),
        stdin=reader,
        stdout=subprocess.PIPE,
    )
    try:
        assert parent.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            child = orjson.loads(await parent.stdout.readline())["pid"]
        assert is_alive(child)
        parent.kill()
        await until(lambda: not is_alive(child), what="the end of the fake hardware")
    finally:
        os.close(reader)
        os.close(writer)
        if parent.returncode is None:
            parent.kill()
            await parent.wait()


def test_taken_control_port_is_a_clear_error() -> None:
    """Exit 1, saying which port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = orjson.dumps(settings(control_port=port)).decode()
        ended = subprocess.run(
            [*COMMAND, config, "--keep"], capture_output=True, text=True, timeout=60, check=False
        )
    assert ended.returncode == 1
    assert f"127.0.0.1:{port}: Address already in use" in ended.stderr


@pytest.mark.parametrize(
    ("config", "message"), [("{", "--config: settings: Invalid JSON"), ("{}", "--config: profile:")]
)
def test_wrong_settings_exit_2(config: str, message: str) -> None:
    """One line a fault."""
    ended = subprocess.run([*COMMAND, config], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert message in ended.stderr
