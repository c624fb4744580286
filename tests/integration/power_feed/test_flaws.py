"""Every flaw of DESIGN §8, put into a real Modbus device: seen as a mark, a metric and an alert."""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from support.modbus_device import ModbusDevice
from support.programs import need
from support.wait import until, until_it_says

from cli.ports import free_ports
from fleet.records import PowerReading
from fleet.store import StoreError
from power_feed.app import FeedService
from power_feed.config import FeedConfig
from power_feed.quality import CHECKS

RULES = Path(__file__).parents[3] / "deploy" / "prometheus" / "rules.yml"
NAMEPLATE_WATTS = 1000.0
FLAWS = ("missing", "not_a_number", "stale", "negative", "above_nameplate", "stuck", "fall", "rise")
ADDRESS = {flaw: 10 + 2 * index for index, flaw in enumerate(FLAWS)}


class AwayStore:
    """Answers nothing, ever, whatever it is asked."""

    def __getattr__(self, name: str) -> Any:
        async def away(*_arguments: object, **_named: object) -> None:
            raise StoreError("no store here")

        return away


class Flawed:
    """A running feed with one farm for each flaw, and what it said of each."""

    def __init__(self, device: ModbusDevice, dying: ModbusDevice) -> None:
        self.device = device
        self.dying = dying
        self.readings: dict[str, list[PowerReading]] = {flaw: [] for flaw in FLAWS}
        farms = [self._farm(flaw) for flaw in FLAWS]
        config = {"port": 0, "interval_seconds": 0.05, "farms": farms}
        self.service = FeedService(FeedConfig.model_validate(config), AwayStore())  # type: ignore[arg-type]
        publish = self.service.hub.publish

        def record(site_id: str, raw: bytes) -> None:
            self.readings[site_id].append(PowerReading.from_json(raw))
            publish(site_id, raw)

        self.service.hub.publish = record  # type: ignore[method-assign]

    def _farm(self, flaw: str) -> dict[str, Any]:
        source = {
            "kind": "modbus",
            "host": "127.0.0.1",
            "port": self.dying.port if flaw == "stale" else self.device.port,
            "unit": "W",
            "period_seconds": 0.1,
            "max_retry_seconds": 0.2,
            "timeout_seconds": 0.5,
            "power": {"address": ADDRESS[flaw], "type": "int32" if flaw == "missing" else "float32"},
        }
        if flaw == "missing":
            source["missing_value"] = -(2**31)
        return {
            "farm_id": f"{flaw}-farm".replace("_", "-"),
            "site_id": flaw,
            "nameplate_watts": NAMEPLATE_WATTS,
            "source": source,
            "quality": {"stuck_measurements": 12 if flaw == "stuck" else 0, "stale_periods": 20},
        }

    def hold(self, flaw: str, watts: float) -> None:
        device = self.dying if flaw == "stale" else self.device
        device.hold(ADDRESS[flaw], "i" if flaw == "missing" else "f", watts)

    def marks(self, flaw: str) -> set[str]:
        return {reading.quality for reading in self.readings[flaw]}

    def failed(self) -> dict[tuple[str, str], float]:
        """(site, check) → count, from the metrics page."""
        page = self.service.exposition().decode()
        return {
            (sample.labels["site"], sample.labels["check"]): sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == "heron_feed_failed_checks_total"
        }


@pytest.fixture
async def flawed() -> AsyncIterator[Flawed]:
    device, dying = ModbusDevice(), ModbusDevice()
    subject = Flawed(device, dying)
    for flaw in FLAWS:
        subject.hold(flaw, 100 if flaw == "rise" else 500)
    await device.start()
    await dying.start()
    await subject.service.start()
    yield subject
    await subject.service.stop()
    await device.stop()
    await dying.stop()


@asynccontextmanager
async def prometheus(directory: Path, target: str) -> AsyncIterator[str]:
    """A real one with the shipped rules, that scrapes the feed twice a second."""
    port = free_ports(1)[0]
    config = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "heron-feed", "static_configs": [{"targets": [target]}]}],
    }
    path = directory / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    program = need("prometheus", "prometheus")
    process = await asyncio.create_subprocess_exec(
        program,
        f"--config.file={path}",
        f"--storage.tsdb.path={directory / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()


async def firing(url: str) -> set[tuple[str, str, str]]:
    """(alert, site, check or farm) of all that fire."""
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"{url}/api/v1/alerts")
            if answer.status_code != 200:  # Prometheus is not ready yet
                return set()
            alerts = answer.json()["data"]["alerts"]
    except httpx.HTTPError:
        return set()
    return {
        (
            alert["labels"]["alertname"],
            alert["labels"].get("site", ""),
            alert["labels"].get("check", alert["labels"].get("farm", "")),
        )
        for alert in alerts
        if alert["state"] == "firing"
    }


async def test_each_flaw_is_a_mark_a_metric_and_an_alert(flawed: Flawed, tmp_path: Path) -> None:
    """From the device's register to a real Prometheus' alert, for every check there is."""
    steady = set(FLAWS) - {"stuck"}
    await until(lambda: all("good" in flawed.marks(flaw) for flaw in FLAWS), seconds=20, what="good readings")
    assert all(flawed.marks(flaw) == {"good"} for flaw in steady)

    flawed.hold("missing", -(2**31))
    flawed.hold("not_a_number", math.nan)
    flawed.hold("negative", -50)
    flawed.hold("above_nameplate", 1500)
    flawed.hold("fall", 0)
    flawed.hold("rise", 900)
    await flawed.dying.stop()
    expected = {(flaw, "ramp" if flaw in ("fall", "rise") else flaw) for flaw in FLAWS}
    await until(lambda: expected <= set(flawed.failed()), seconds=20, what="each check's failure")
    assert {check for _, check in expected} == set(CHECKS)

    for flaw in ("missing", "not_a_number", "stale"):
        last = flawed.readings[flaw][-1]
        assert (last.quality, last.available_power_watts) == ("fallback", 500.0), flaw
    assert flawed.readings["negative"][-1].quality == "suspect"
    assert flawed.readings["negative"][-1].available_power_watts == 0.0
    assert flawed.readings["above_nameplate"][-1].quality == "suspect"
    await until(lambda: flawed.readings["stuck"][-1].quality == "suspect", seconds=20, what="stuck")

    async with prometheus(tmp_path, f"127.0.0.1:{flawed.service.port}") as url:
        wanted = {("HeronFeedCheckFailed", site, check) for site, check in expected}
        wanted.add(("HeronSourceDown", "", "stale-farm"))

        async def all_fire() -> bool:
            return wanted <= await firing(url)

        await until_it_says(all_fire, seconds=60, what=f"{wanted}")
        seen = await firing(url)
    assert not {alert for alert in seen if alert[0] == "HeronSourceDown" and alert[2] != "stale-farm"}


async def test_a_suspicious_fall_is_obeyed_at_once_and_a_rise_after_two_more(flawed: Flawed) -> None:
    """The first reading after a fall grants the low value; a rise is good with its third measurement."""
    await until(lambda: all("good" in flawed.marks(flaw) for flaw in ("fall", "rise")), seconds=20)
    flawed.hold("fall", 0)
    flawed.hold("rise", 900)

    def is_over(flaw: str, watts: float) -> bool:
        last = flawed.readings[flaw][-1]
        return (last.quality, last.available_power_watts) == ("good", watts)

    await until(lambda: is_over("fall", 0.0) and is_over("rise", 900.0), seconds=20, what="both believed")
    low = [reading for reading in flawed.readings["fall"] if reading.available_power_watts == 0.0]
    assert low[0].quality == "suspect"
    assert {reading.quality for reading in flawed.readings["fall"]} == {"good", "suspect"}
    high = [reading for reading in flawed.readings["rise"] if reading.available_power_watts == 900.0]
    doubted = {reading.observed_at_unix_seconds for reading in high if reading.quality == "suspect"}
    assert len(doubted) == 2
