"""From an engine that nobody knows to a site that keeps its cap by it: measure, check, load, power falls."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.fake_hardware import MODEL, PROFILE, FakeHardware, fake_hardware

from cli import exit_codes
from cli import profile_run as command
from cli.main import main
from fleet.profile import PROFILES
from replay import profile_run
from site_agent import profile_check
from site_agent.config import SiteConfig
from tests.integration.site_agent.test_agent import begin_streams, running_agent, site_config

CLOCKS = (1980, 1300, 800)


class HostMeter:
    """The fake GPUs' own counters and clocks, over the control API of their process."""

    def __init__(self, hardware: FakeHardware) -> None:
        self._url = hardware.control_url

    async def joules(self) -> float | None:
        """See Meter."""
        host = await self._call("GET", "/host", None)
        return sum(float(gpu["energy_joules"]) for gpu in host["gpus"])

    async def clock_mhz(self) -> float | None:
        """See Meter."""
        return None

    async def set_clock(self, clock_mhz: int | None) -> None:
        """See Meter."""
        await self._call("POST", "/gpus/clock", {"instance_id": "north-0", "clock_mhz": clock_mhz})

    async def aclose(self) -> None:
        """See Meter."""

    async def _call(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=self._url) as client:  # of this loop: the command has its own
            answer = await client.request(method, path, json=body)
            assert answer.status_code == 200, answer.text
            return dict(answer.json())


async def measure(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`heron profile run` on an emulated engine whose hardware follows the shipped profile."""
    monkeypatch.setattr(profile_run, "SETTLE_SECONDS", 0.3)
    async with fake_hardware(max_concurrency=16, power_lag_seconds=0.05) as hardware:
        monkeypatch.setattr(command, "_meter", lambda *_: HostMeter(hardware))
        arguments = ["profile", "run", "--url", await hardware.start_engine(), "--out", str(path)]
        arguments += ["--batches", "1,8", "--prompts", "64,800", "--output-tokens", "48"]
        arguments += ["--clocks", ",".join(map(str, CLOCKS)), "--tensor-parallel-degree", "4"]
        assert await asyncio.to_thread(main, [*arguments, "--seconds", "1.5"]) == exit_codes.DONE


async def test_a_measured_engine_becomes_a_site_that_lowers_its_clocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The site reckons with the file alone; its fake hardware goes on as the shipped profile says."""
    path, truth = tmp_path / "mine.json", PROFILES[PROFILE]
    await measure(path, monkeypatch)
    facts = json.loads(path.read_text())["engine"]
    assert facts["kv_tokens"] == truth.kv_tokens
    assert facts["idle_watts"] == pytest.approx(truth.idle_watts, rel=0.1)
    capsys.readouterr()
    assert await asyncio.to_thread(main, ["profile", "check", str(path), "--json"]) == exit_codes.DONE
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 2 * 2 * 3 * 2 + 2 * 3

    engine = {"kind": "emulated", "start_seconds": 0.2, "profile": str(path), "hardware_profile": PROFILE}
    changes: dict[str, Any] = {
        "engine": engine | {"max_concurrency": 8},
        "governor": {"further_fall_ratio": 0.2},
    }
    _, config = site_config(tmp_path, "http://127.0.0.1:9", **changes)
    _follows(config)
    model = config.site_model()
    async with running_agent(tmp_path, monkeypatch, **changes) as site:
        await site.until_report({"state": "serving", "ready": 3})
        streams = await begin_streams(site, 18)
        site.grant(1.15 * model.worst_watts(model.uniform(3), 1000) / 0.95)
        await site.until_clock(below_mhz=1980)
        async with asyncio.timeout(20):
            while (report := await site.report())["power"]["headroom_watts"] < 0:  # noqa: ASYNC110 -- HTTP
                await asyncio.sleep(0.05)
        clocks = {one["gpu_clock_mhz"] for one in report["models"][0]["instances"]}
        assert clocks < set(model.steps_mhz), "also between the measured clocks"
        assert report["models"][0]["ready_instances"] == 3, "no engine had to go"
        assert not any(stream.done() for stream in streams), "nor a stream"
        assert await site.metric("heron_site_cap_exceeded_seconds_total") == 0
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)


def _follows(config: SiteConfig) -> None:
    """The file's profile is the hardware's, as near as two seconds a point on a busy machine can tell."""
    truth, found = PROFILES[PROFILE], config.performance_profile()
    assert found.clocks_mhz == tuple(sorted(CLOCKS))
    for clock in CLOCKS:
        assert found.watts(8, clock) == pytest.approx(truth.watts(8, clock), rel=0.25)
        expected = truth.itl_seconds(8, clock, 8 * 500)
        assert found.itl_seconds(8, clock, 8 * 500) == pytest.approx(expected, rel=0.25)
    findings = profile_check.examine(config)
    assert [one.status for one in findings] == ["pass", "warn"]
    assert MODEL in findings[0].message
    assert "assumed_stopped_watts" in findings[1].action
