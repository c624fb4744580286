"""The whole agent's energy account against the fake GPUs' own log."""

from __future__ import annotations

import asyncio
import csv
import itertools
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.site_agent.test_agent import running_agent

SECONDS = 6.0


def logged_joules(path: Path, begin: float, end: float) -> float:
    """Integral of the site's watts in the fake meter's 10-Hz log between two times, each sample held."""
    with path.open() as lines:
        rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    points = [(float(row["unix_seconds"]), float(row["site_watts"])) for row in rows]
    joules = 0.0
    for (at, watts), (after, _) in itertools.pairwise(points):
        joules += watts * max(0.0, min(after, end) - max(at, begin))
    return joules


async def test_phases_sum_to_what_the_meter_measured_within_two_percent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams on three engines, then idle time; GPUs' counters in the agent, the meter's log beside it."""
    async with running_agent(tmp_path, monkeypatch) as site:
        await site.until_report({"state": "serving", "ready": 3})

        async def phases() -> tuple[float, dict[str, float]]:
            """Unix time of the agent's last account, and its joules by phase."""
            page = (await site.operations.get("/metrics")).text
            found = {
                sample.labels["phase"]: sample.value
                for family in text_string_to_metric_families(page)
                for sample in family.samples
                if sample.name == "heron_site_energy_joules_total"
            }
            return time.time(), found

        async def changed() -> tuple[float, dict[str, float]]:
            """The account the moment it has grown: it is brought up to date once a second."""
            _, before = await phases()
            async with asyncio.timeout(10):
                while (now := await phases())[1] == before:  # noqa: ASYNC110 -- over HTTP
                    await asyncio.sleep(0.02)
            return now

        begin, first = await changed()

        async def ask() -> None:
            async with site.stream(tokens=300) as answer:
                assert answer.status_code == 200
                async for _ in answer.aiter_bytes():
                    pass

        await asyncio.gather(*(ask() for _ in range(12)))
        await asyncio.sleep(1.5)
        end, last = await changed()
        spent = {phase: last[phase] - first[phase] for phase in last}
        expected = logged_joules(site.state_dir / "fake-power.csv", begin, end)
        assert sum(spent.values()) == pytest.approx(expected, rel=0.02)
        assert spent["decode"] > spent["prefill"] > 0
        assert spent["unsplit"] == 0
        measured = await site.metric("heron_site_energy_measured_joules_total")
        assert measured == pytest.approx(sum(last.values()), rel=0.2)
        tokens = await site.metric('heron_site_tokens_total{model="llama-3.1-70b",phase="decode"')
        assert tokens == pytest.approx(12 * 300, rel=0.01)
        readings = [f'heron_site_gpu_power_watts{{gpu="{gpu}"' for gpu in range(12)]
        assert all([await site.metric(name) > 0 for name in readings])
