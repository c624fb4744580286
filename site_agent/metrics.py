"""`heron_site_*`: read from the agent's own state when Prometheus asks, so that nothing is counted twice.

Each help text ends with what to do about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fleet.process_metrics import add_process_metrics

SITE_STATES = ("serving", "draining", "dark", "faulted")
INSTANCE_STATES = ("starting", "ready", "draining", "asleep", "stopped")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One moment of the agent. None: unknown, and then not exported at all."""

    state: str
    cap_watts: float | None
    draw_watts: float | None
    draw_source: str
    granted_watts: float | None
    cap_exceeded_seconds: float
    below_idle_seconds: float
    episodes: int
    correction_ratio: float
    clock_mhz: int
    target_instances: int | None
    instance_states: Mapping[str, int]
    headroom_requests: int
    in_flight: int
    reading_age_seconds: float | None
    clock_skew_seconds: float | None
    is_path_up: Mapping[str, bool]
    readings_taken: int
    records_refused: Mapping[str, int]
    is_plan_valid: bool
    outcomes: Mapping[str, int]
    pushbacks: Mapping[str, int]
    commands: Mapping[str, int]
    broken_streams: int
    engine_faults: Mapping[str, int]
    scrape_failures: int
    loop_failures: Mapping[str, int]
    reports_published: int
    reports_failed: int
    watchdog_restarts: int
    meter_age_seconds: float | None = None
    meter_failures: int | None = None
    """Both None: the site has no meter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFacts:
    """What does not change."""

    site_id: str
    farm_id: str
    model: str
    gpu: Literal["real", "fake", "none"]
    is_governor_enabled: bool
    server_idle_watts: float
    safe_floor_watts: float
    max_site_watts: float


@dataclass(slots=True, kw_only=True, eq=False)
class SiteCollector(Collector):
    """Asks for a `Sample` at each scrape."""

    facts: SiteFacts
    sample: Callable[[], Sample]
    _families: list[Metric] = field(default_factory=list)

    def collect(self) -> Iterable[Metric]:
        """All of them, each labelled with the site."""
        self._families = []
        sample = self.sample()
        self._facts()
        self._power(sample)
        self._engines(sample)
        self._traffic(sample)
        self._contract(sample)
        return self._families

    def _gauge(self, name: str, help_text: str, value: float | None) -> None:
        if value is None:
            return
        family = GaugeMetricFamily(f"heron_site_{name}", help_text, labels=["site"])
        family.add_metric([self.facts.site_id], value)
        self._families.append(family)

    def _gauges(self, name: str, help_text: str, label: str, values: Mapping[str, float]) -> None:
        family = GaugeMetricFamily(f"heron_site_{name}", help_text, labels=["site", label])
        for key, value in values.items():
            family.add_metric([self.facts.site_id, key], value)
        self._families.append(family)

    def _counter(self, name: str, help_text: str, value: float) -> None:
        family = CounterMetricFamily(f"heron_site_{name}", help_text, labels=["site"])
        family.add_metric([self.facts.site_id], value)
        self._families.append(family)

    def _counters(self, name: str, help_text: str, label: str, values: Mapping[str, int]) -> None:
        family = CounterMetricFamily(f"heron_site_{name}", help_text, labels=["site", label])
        for key, value in sorted(values.items()):
            family.add_metric([self.facts.site_id, key], value)
        self._families.append(family)

    def _facts(self) -> None:
        facts = self.facts
        family = GaugeMetricFamily(
            "heron_site_info",
            "Always 1; the labels say what this site is. gpu: real; fake (its watts are made up); none (so "
            "configured: nobody measures it).",
            labels=["site", "farm", "model", "gpu"],
        )
        family.add_metric([facts.site_id, facts.farm_id, facts.model, facts.gpu], 1)
        self._families.append(family)
        self._gauge(
            "governor_enabled",
            "0: the power cap is not kept. Set governor.enabled = true and start the agent anew.",
            float(facts.is_governor_enabled),
        )
        self._gauge(
            "server_idle_watts",
            "What the site draws with every engine stopped. Compare with safe_floor_watts.",
            facts.server_idle_watts,
        )
        self._gauge(
            "safe_floor_watts",
            "Firm power. Below server_idle_watts the site cannot keep every cap: raise it, or let the feed "
            "switch the server off.",
            facts.safe_floor_watts,
        )
        self._gauge(
            "max_watts", "What the site may draw at most, whatever the wind. For scale.", facts.max_site_watts
        )

    def _power(self, sample: Sample) -> None:
        self._gauge(
            "power_cap_watts",
            "What the site may draw now. If it falls to the floor, look at the feed.",
            sample.cap_watts,
        )
        self._gauge(
            "power_granted_watts",
            "The last reading's grant, before margin and floor. None: none came of late, look at the feed.",
            sample.granted_watts,
        )
        if sample.draw_watts is not None:
            self._gauges(
                "power_draw_watts",
                'The site\'s draw. source="modelled" means that no meter answers: check the GPU driver.',
                "source",
                {sample.draw_source: sample.draw_watts},
            )
        self._gauge(
            "meter_age_seconds",
            "Since the site's meter last gave a value; absent without one. Above 3: see the agent's log.",
            sample.meter_age_seconds,
        )
        if sample.meter_failures is not None:
            self._counter(
                "meter_failures",
                "Questions to the site's meter without a usable answer. Growing: see the agent's log.",
                sample.meter_failures,
            )
        self._counter(
            "cap_exceeded_seconds",
            "Time above the cap beyond the ride-through. Must stay 0: see the governor's log of that time.",
            sample.cap_exceeded_seconds,
        )
        self._counter(
            "below_idle_seconds",
            "The part of cap_exceeded_seconds in which the cap was below the idle draw: more firm power is "
            "needed, or a server driver.",
            sample.below_idle_seconds,
        )
        self._counter(
            "ride_through_episodes",
            "Times the draw went above the cap. Many with a steady wind: raise governor.guard_ratio.",
            sample.episodes,
        )
        self._gauge(
            "model_correction_ratio",
            "Measured draw ÷ the profile's worst case, where above 1. Well above: measure the profile.",
            sample.correction_ratio,
        )
        self._gauge(
            "gpu_clock_mhz",
            "The clock ordered last. Low for long: the site is short of power.",
            sample.clock_mhz,
        )
        self._counters(
            "governor_commands",
            "Orders of the governor, by kind. Many starts: raise rise_hold_seconds.",
            "command",
            sample.commands,
        )
        self._counter(
            "watchdog_restarts",
            "Watchdogs that ended and were replaced. Above 0: an overloaded machine, or somebody kills them.",
            sample.watchdog_restarts,
        )

    def _engines(self, sample: Sample) -> None:
        self._gauges(
            "state",
            "1 for the state the site is in. faulted: see heron_site_engine_faults_total and the log.",
            "state",
            {state: float(state == sample.state) for state in SITE_STATES},
        )
        self._gauges(
            "instances",
            "Engines by state. Fewer ready than target_instances for long: see the log.",
            "state",
            {state: float(sample.instance_states.get(state, 0)) for state in INSTANCE_STATES},
        )
        self._gauge(
            "target_instances",
            "Engines that the governor wants awake under the cap.",
            sample.target_instances,
        )
        self._counters(
            "engine_faults",
            "Engines that failed, by reason. The log has each engine's own words.",
            "reason",
            sample.engine_faults,
        )
        self._counter(
            "scrape_failures",
            "Engine metrics pages that could not be read. Constant: the engine hangs.",
            sample.scrape_failures,
        )
        self._counters(
            "loop_failures",
            "Parts of the agent that failed unforeseen, and went on. Any: report the log's trace.",
            "loop",
            sample.loop_failures,
        )

    def _traffic(self, sample: Sample) -> None:
        self._gauge(
            "headroom_requests",
            "Further requests that would be admitted now. 0 for long: add sites.",
            sample.headroom_requests,
        )
        self._gauge(
            "in_flight_requests",
            "Requests open at the ingress. Must fall to 0 without traffic.",
            sample.in_flight,
        )
        self._counters(
            "requests",
            "Requests by how they ended. engine_error or broken without a power drop: see the log.",
            "outcome",
            sample.outcomes,
        )
        self._counters(
            "pushbacks",
            "Requests refused, by reason. Above 1 % in steady state: routers see stale reports.",
            "reason",
            sample.pushbacks,
        )
        self._counter(
            "streams_broken",
            "Requests broken off because power went; routers resume them.",
            sample.broken_streams,
        )

    def _contract(self, sample: Sample) -> None:
        self._gauge(
            "power_reading_age_seconds",
            "Since the last reading came. Above 3: look at the feed and the network to it.",
            sample.reading_age_seconds,
        )
        self._gauge(
            "clock_skew_seconds",
            "This clock less the feed's, less a period of the source. Beyond a few seconds: fix NTP.",
            sample.clock_skew_seconds,
        )
        self._gauges(
            "power_path_up",
            "1 while readings come by this path (direct stream, Redis). Both 0: the cap walks down.",
            "path",
            {path: float(is_up) for path, is_up in sample.is_path_up.items()},
        )
        self._counter("power_readings", "Readings taken. Must grow each second.", sample.readings_taken)
        self._counters(
            "records_refused",
            "Records refused, by reason. Other than duplicates: the log names the writer.",
            "reason",
            sample.records_refused,
        )
        self._gauge(
            "plan_valid",
            "1 while a valid plan names this site: it is to split its GPUs anew. Else it chooses by itself.",
            float(sample.is_plan_valid),
        )
        self._counter("reports_published", "Site reports written to Redis.", sample.reports_published)
        self._counter(
            "reports_failed",
            "Site reports that Redis did not take. Growing: look at Redis.",
            sample.reports_failed,
        )


def create_registry(collector: SiteCollector, *others: Collector) -> CollectorRegistry:
    """A registry of this agent's own, with the process's figures."""
    registry = CollectorRegistry(auto_describe=False)
    for one in (collector, *others):
        registry.register(one)
    add_process_metrics(registry, "site", site=collector.facts.site_id)
    return registry


def render(registry: CollectorRegistry) -> bytes:
    """The page, in Prometheus' text format."""
    return generate_latest(registry)
