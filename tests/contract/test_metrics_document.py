"""docs/metrics.md has exactly the metrics that the services have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any, get_args

from prometheus_client import CollectorRegistry
from support.metric_document import documented

from fleet.process_metrics import Service, add_process_metrics
from gateway.tls_metrics import add_tls_metrics
from power_feed.metrics import FeedMetrics
from router.config import RouterConfig
from router.live.events import EventRing
from router.live.ledger import Ledger
from router.live.metrics import RouterMetrics, StateCollector
from router.live.plan_intake import PlanIntake
from router.live.plan_metrics import PlannerFigures, plan_families
from router.live.policy_switch import PolicySwitch
from router.live.state_metrics import (
    fleet_families,
    key_families,
    ledger_families,
    policy_families,
    traffic_families,
)
from router.workers.merge import GREATEST, PARENT_ONLY
from router.workers.parent import worker_families
from site_agent.accounting import EnergyAccount
from site_agent.energy_metrics import EnergyCollector
from site_agent.metrics import Sample, SiteCollector, SiteFacts
from site_agent.request_energy import RequestEnergy

Described = dict[str, tuple[str, tuple[str, ...]]]


def described(families: Iterable[Any]) -> Described:
    """Name → type and labels, of metrics and of what a collector yields."""
    found: Described = {}
    for family in families:
        name = getattr(family, "name", None) or family._name
        kind = getattr(family, "type", None) or family._type
        found[name] = (kind, tuple(family._labelnames))
    return found


def router_metrics() -> Described:
    registry = CollectorRegistry()
    metrics = RouterMetrics(registry)
    nothing: Any = SimpleNamespace(snapshot=SimpleNamespace(sites={}), entries={})
    crew: Any = SimpleNamespace(children=[], ready=0, restarts=0, lost_requests=0)

    def families() -> Iterator[Any]:
        yield from ledger_families(Ledger())
        yield from traffic_families(nothing, {})
        yield from key_families(None, now=100.0, unix_now=1e9)
        yield from plan_families(PlanIntake(), PlannerFigures(), now=100.0)
        yield from fleet_families(nothing, is_store_up=True, now=100.0)
        yield from worker_families(crew)
        yield from policy_families(PolicySwitch(RouterConfig(), EventRing()))

    collector = StateCollector(metrics, families)
    histograms = [one for one in registry._collector_to_names if one is not collector]
    return described(histograms) | described(collector.collect())


def site_metrics() -> Described:
    facts = SiteFacts(
        site_id="north",
        farm_id="north-farm",
        model="m",
        gpu="fake",
        is_governor_enabled=True,
        server_idle_watts=1000.0,
        safe_floor_watts=0.0,
        max_site_watts=7000.0,
    )
    sample = Sample(
        state="serving",
        cap_watts=5000.0,
        draw_watts=1600.0,
        draw_source="gpu",
        granted_watts=6000.0,
        cap_exceeded_seconds=0.0,
        below_idle_seconds=0.0,
        episodes=0,
        correction_ratio=1.0,
        clock_mhz=1980,
        target_instances=3,
        instance_states={},
        headroom_requests=48,
        in_flight=0,
        reading_age_seconds=0.5,
        clock_skew_seconds=0.0,
        is_path_up={},
        readings_taken=0,
        records_refused={},
        outcomes={},
        pushbacks={},
        commands={},
        broken_streams=0,
        engine_faults={},
        scrape_failures=0,
        loop_failures={"reporter": 1},
        is_plan_valid=False,
        reports_published=0,
        reports_failed=0,
        watchdog_restarts=0,
        meter_age_seconds=0.5,
        meter_failures=0,
    )
    meter: Any = SimpleNamespace(account=EnergyAccount(), gpus=(), requests=RequestEnergy())
    energy = EnergyCollector(site_id="north", model="m", meter=meter)
    site = SiteCollector(facts=facts, sample=lambda: sample)
    return described(site.collect()) | described(energy.collect())


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    """Name, type and labels, of all three services."""
    feed = described(FeedMetrics().registry._collector_to_names)
    in_code = router_metrics() | site_metrics() | feed
    for service in get_args(Service):
        labels = {"site": "north"} if service == "site" else {}
        in_code |= described([add_process_metrics(CollectorRegistry(), service, **labels)])
        in_code |= described([add_tls_metrics(CollectorRegistry(), service, None, **labels)])
    rows = documented()
    in_document = {row.name: (row.kind, row.labels) for row in rows}
    assert len(rows) == len(in_document), "a metric is documented twice"
    assert in_document == in_code


def test_every_metric_has_a_meaning_and_says_what_to_do() -> None:
    """No cell is empty."""
    for row in documented():
        assert len(row.cells) == 2, row.name
        assert all(row.cells), row.name


def test_workers_gauges_are_merged_by_a_rule() -> None:
    """Each gauge that workers have is known to be a sum or a worst; the names in the rules exist."""
    nothing: Any = SimpleNamespace(entries={})
    of_workers = described(traffic_families(nothing, {}))
    gauges = {name for name, (kind, _) in of_workers.items() if kind == "gauge"}
    summed = {"heron_router_held_requests", "heron_router_site_in_flight_requests"}
    assert gauges == summed | GREATEST
    assert set(router_metrics()) >= PARENT_ONLY
