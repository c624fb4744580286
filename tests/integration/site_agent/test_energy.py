"""The whole agent's energy account against the fake GPUs' own log, and tenants' joules against the sites'."""

from __future__ import annotations

import asyncio
import csv
import itertools
import logging
import time
from collections import Counter
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.router_fleet import bearer, put_key, router_fleet
from support.wait import until

from fleet.memory_store import MemoryStore
from site_agent import energy_meter
from tests.integration.site_agent.test_agent import FLOOR_GRANT, Site, running_agent

logger = logging.getLogger(__name__)

TENANTS_TOLERANCE_RATIO = 0.15
"""A token's price is the mean of ten seconds: what tenants pay is no closer to what sites spend."""


def logged_joules(path: Path, begin: float, end: float) -> float:
    """Integral of the site's watts in the fake meter's 10-Hz log between two times, each sample held."""
    with path.open() as lines:
        rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    points = [(float(row["unix_seconds"]), float(row["site_watts"])) for row in rows]
    joules = 0.0
    for (at, watts), (after, _) in itertools.pairwise(points):
        joules += watts * max(0.0, min(after, end) - max(at, begin))
    return joules


async def test_a_dead_feeds_wind_is_not_counted_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last reading counts until the cap has walked down."""
    monkeypatch.setattr(energy_meter, "WALK_END_PERIODS", 2.0)
    async with running_agent(tmp_path, monkeypatch) as site:
        await site.until_metric("heron_site_wind_joules_total", 1.0)
        assert await site.metric("heron_site_power_granted_watts") > 0
        monkeypatch.setattr(type(site.feed), "say", lambda _self, _reading: None)
        await site.until_metric("heron_site_power_reading_age_seconds", 2.1)
        assert await site.metric("heron_site_power_granted_watts") == 0, "absent"
        await asyncio.sleep(1.5)  # the account's last second with it
        counted, spent = [await site.metric(f"heron_site_{name}_joules_total") for name in ("wind", "energy")]
        await site.until_metric("heron_site_energy_joules_total", spent + 3000.0)
        assert await site.metric("heron_site_wind_joules_total") == counted


def phases_of(page: str) -> dict[str, float]:
    """The account's joules by phase, from a page of metrics."""
    return {
        sample.labels["phase"]: sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "heron_site_energy_joules_total"
    }


async def changed(site: Site) -> tuple[float, dict[str, float]]:
    """Unix time and the account the moment it has grown: it is brought up to date once a second."""
    before = phases_of((await site.operations.get("/metrics")).text)
    async with asyncio.timeout(10):
        while (now := phases_of((await site.operations.get("/metrics")).text)) == before:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return time.time(), now


async def test_phases_sum_to_what_the_meter_measured_within_two_percent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams on three engines, then idle time; GPUs' counters in the agent, the meter's log beside it."""
    async with running_agent(tmp_path, monkeypatch) as site:
        await site.until_report({"state": "serving", "ready": 3})

        begin, first = await changed(site)

        async def ask() -> None:
            async with site.stream(tokens=300) as answer:
                assert answer.status_code == 200
                async for _ in answer.aiter_bytes():
                    pass

        await asyncio.gather(*(ask() for _ in range(12)))
        await asyncio.sleep(1.5)
        end, last = await changed(site)
        spent = {phase: last[phase] - first[phase] for phase in last}
        expected = logged_joules(site.state_dir / "fake-power.csv", begin, end)
        logger.info("the account says %.4f of what the meter's log does", sum(spent.values()) / expected)
        assert sum(spent.values()) == pytest.approx(expected, rel=0.02)
        assert spent["decode"] > spent["prefill"] > 0
        assert spent["unsplit"] == 0
        measured = await site.metric("heron_site_energy_measured_joules_total")
        assert measured == pytest.approx(sum(last.values()), rel=0.2)
        tokens = await site.metric('heron_site_tokens_total{model="llama-3.1-70b",phase="decode"')
        assert tokens == pytest.approx(12 * 300, rel=0.01)
        readings = [f'heron_site_gpu_power_watts{{gpu="{gpu}"' for gpu in range(12)]
        assert all([await site.metric(name) > 0 for name in readings])
        await site.until_metric("heron_site_request_joules_count", 12)
        requests = await site.metric("heron_site_request_joules_sum")
        assert requests == pytest.approx(last["prefill"] + last["decode"], rel=0.01)


async def test_what_tenants_pay_is_what_the_sites_spent_on_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tenants, two sites, streams that go on at the other site when one loses its power; and each site's
    whole is what its own meter saw."""
    store = MemoryStore()
    for tenant in ("acme", "other"):
        await put_key(store, f"key-of-{tenant}", tenant=tenant)
    async with (
        running_agent(tmp_path, monkeypatch, store=store) as north,
        running_agent(tmp_path, monkeypatch, store=store, site_id="coast") as coast,
        router_fleet(store, auth="keys") as fleet,
    ):
        for site in (north, coast):
            await site.until_report({"state": "serving", "ready": 3})
        await until(lambda: fleet.router.ring is not None and fleet.router.ring.read_at is not None)
        await until(lambda: len(fleet.router.view.snapshot.models.get("llama-3.1-70b", ())) == 2)
        model, text, numbers = "llama-3.1-70b", "tell me of the wind at sea " * 40, itertools.count()

        async def ask(tenant: str, tokens: int) -> None:
            content = f"{next(numbers)} {text}"  # another beginning each time: no site is drawn to it
            body = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": tokens}
            status, data = await fleet.stream(body | {"stream": True}, headers=bearer(f"key-of-{tenant}"))
            assert (status, data.endswith(b"data: [DONE]\n\n")) == (200, True)

        async def has_prices() -> None:
            """Both sites have worked for long enough to say what a token costs."""
            while any(
                one.joules_per_output_token is None for one in fleet.router.view.snapshot.models[model]
            ):
                await asyncio.gather(*(ask("acme", 100) for _ in range(16)))

        async def keep_on(tenant: str, tokens: int, times: int) -> None:
            for _ in range(times):
                await ask(tenant, tokens)

        async with asyncio.timeout(60):
            await has_prices()
        before = [await changed(site) for site in (north, coast)]
        fleet.router.metrics.energy.clear()
        streams = [keep_on("acme", 800, 1) for _ in range(8)] + [keep_on("other", 400, 1) for _ in range(8)]
        running = [asyncio.create_task(one) for one in streams]
        # under way, of either tenant, and too long to end while the site drains
        await until(lambda: all(one.in_flight > 2 for one in fleet.router.view.registry.entries.values()))
        await asyncio.sleep(1)
        north.grant(FLOOR_GRANT)
        await asyncio.gather(*running)
        assert fleet.totals["completed"] == fleet.totals["requests"]
        assert fleet.totals["resumed"] > 0
        after = [await changed(site) for site in (north, coast)]
        paid: Counter[str] = Counter()
        for (tenant, _model, _phase), joules in fleet.router.metrics.energy.items():
            paid[tenant] += joules
        spent = sum(
            last[phase] - first[phase]
            for (_, first), (_, last) in zip(before, after, strict=True)
            for phase in ("prefill", "decode")
        )
        assert sum(paid.values()) == pytest.approx(spent, rel=TENANTS_TOLERANCE_RATIO)
        assert paid["acme"] > 1.5 * paid["other"]
        for site, (begin, first), (end, last) in zip((north, coast), before, after, strict=True):
            expected = logged_joules(site.state_dir / "fake-power.csv", begin, end)
            assert sum(last.values()) - sum(first.values()) == pytest.approx(expected, rel=0.02)
