"""The router's metrics (`heron_router_`). Counts that the router keeps anyway are read when scraped, so that
they cost a request nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from fleet.loops import Loops
from router.live.demand_meter import DemandMeter
from router.live.energy import Energy
from router.live.exchange import Exchange
from router.live.ledger import OUTCOMES, Outcome

TTFT_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 10.0, 20.0, 30.0, 60.0)
E2E_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Durations:
    """A histogram that costs a request one bisection; Prometheus gets it when it scrapes."""

    __slots__ = ("_bounds", "_counts", "sum_seconds")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum_seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self.sum_seconds += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound, how many were not above it), as Prometheus has it."""
        names = [*(str(bound) for bound in self._bounds), "+Inf"]
        return list(zip(names, accumulate(map(float, self._counts)), strict=True))


class ModelDurations:
    """Of one model."""

    __slots__ = ("e2e", "ttft")

    def __init__(self) -> None:
        self.ttft = Durations(TTFT_BUCKETS)
        self.e2e = Durations(E2E_BUCKETS)


class RouterMetrics:
    """The histograms and the counters that nobody else keeps."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.demand = DemandMeter()
        self.durations: dict[str, ModelDurations] = {}
        """By model."""
        self.affinity: Mapping[str, int] = {}
        """Decisions by result; empty where affinity is switched off."""
        self.energy: Energy = {}
        """Joules by tenant, model and phase."""
        self.retries: dict[str, int] = {}
        """By reason."""
        self.resumes: dict[tuple[str, ...], int] = {}
        """By method (ids, text, none) and result (exact, faithful, refused, no_room, …)."""
        self.as_chats: dict[tuple[str, ...], int] = {}
        """Streams of other APIs by API and by what came of asking for them as chats."""
        self.records_refused: dict[tuple[str, ...], int] = {}
        """By kind and reason."""
        self.refusals: dict[str, int] = {}
        """Requests refused by this router itself, by code."""
        self.polls: dict[str, int] = {"ok": 0, "failed": 0}
        self.loops = Loops()

    def finished(self, exchange: Exchange, now: float) -> None:
        """A request is over."""
        if exchange.as_chat is not None:
            self.as_chats[exchange.as_chat] = self.as_chats.get(exchange.as_chat, 0) + 1
        is_complete = exchange.outcome == "completed"
        if not is_complete and exchange.first_token_at is None:
            return
        durations = self.durations.get(exchange.model)
        if durations is None:
            durations = self.durations[exchange.model] = ModelDurations()
        if exchange.first_token_at is not None:
            durations.ttft.observe(exchange.first_token_at - exchange.received_at)
        if is_complete:
            durations.e2e.observe(now - exchange.received_at)

    def count_retry(self, reason: str) -> None:
        """A request goes to another site."""
        self.retries[reason] = self.retries.get(reason, 0) + 1

    def count_resume(self, method: str, result: str) -> None:
        """A broken stream was continued, or was not."""
        self.resumes[method, result] = self.resumes.get((method, result), 0) + 1

    def count_refusal(self, code: str) -> None:
        """A request was refused by this router itself."""
        self.refusals[code] = self.refusals.get(code, 0) + 1

    def count_refused(self, kind: str, reason: str) -> None:
        """A record was refused."""
        self.records_refused[kind, reason] = self.records_refused.get((kind, reason), 0) + 1


class StateCollector(Collector):
    """Reads the router's state when Prometheus asks."""

    def __init__(self, metrics: RouterMetrics, state: Callable[[], Iterator[Metric]]) -> None:
        self._metrics = metrics
        self._state = state
        metrics.registry.register(self)

    def describe(self) -> list[Metric]:
        """Nothing in advance: the names are checked when they are collected."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families that are not histograms."""
        metrics = self._metrics
        yield _histogram(
            "heron_router_ttft_seconds",
            "Request received to first token sent, of every stream that had one, however it ended; act on"
            " p99 above the SLO: add capacity.",
            {model: durations.ttft for model, durations in metrics.durations.items()},
        )
        yield _histogram(
            "heron_router_e2e_seconds",
            "Request received to last byte sent, completed requests only.",
            {model: durations.e2e for model, durations in metrics.durations.items()},
        )
        yield counter(
            "heron_router_affinity",
            "Requests with a session or a long prompt, by whether they went where its cache is; act on many"
            " overridden: load is uneven or sites are full.",
            ["result"],
            {(result,): count for result, count in metrics.affinity.items()},
        )
        yield counter(
            "heron_router_energy_joules",
            "Energy of requests: tokens times what their site says a token takes; idle time is in none.",
            ["tenant", "model", "phase"],
            metrics.energy,
        )
        yield counter(
            "heron_router_retries",
            "Requests sent to another site, by reason; act when it grows: look at that site.",
            ["reason"],
            {(reason,): count for reason, count in metrics.retries.items()},
        )
        yield counter(
            "heron_router_resumes",
            "Broken streams continued elsewhere (result exact, faithful) or given up (any other result).",
            ["method", "result"],
            metrics.resumes,
        )
        yield counter(
            "heron_router_streams_as_chats",
            "Streams of Messages and Responses: asked for as chats, which can go on elsewhere, or why not.",
            ["api", "result"],
            metrics.as_chats,
        )
        yield counter(
            "heron_router_records_refused",
            "Records from Redis or a site that were not used; act: find the writer in the log.",
            ["kind", "reason"],
            metrics.records_refused,
        )
        yield counter(
            "heron_router_refusals",
            "Requests that the router itself refused, by the code that the client was given.",
            ["code"],
            {(code,): count for code, count in metrics.refusals.items()},
        )
        yield counter(
            "heron_router_report_polls",
            "Reports fetched from sites directly, while Redis is silent.",
            ["result"],
            {(result,): count for result, count in metrics.polls.items()},
        )
        yield counter(
            "heron_router_loop_failures",
            "Parts of the router that failed unforeseen, and went on. Any: report the log's trace.",
            ["loop"],
            {(name,): count for name, count in metrics.loops.failures.items()},
        )
        yield from self._state()


def _histogram(name: str, text: str, by_model: Mapping[str, Durations]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=["model"])
    for model, durations in sorted(by_model.items()):
        family.add_metric([model], durations.buckets(), durations.sum_seconds)
    return family


def counter(name: str, text: str, labels: list[str], values: Mapping[tuple[str, ...], float]) -> Metric:
    """A counter family with one sample per label set."""
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(list(key), value)
    return family


def gauge(name: str, text: str, labels: list[str], values: Mapping[tuple[str, ...], float]) -> Metric:
    """A gauge family with one sample per label set."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(list(key), value)
    return family


def outcome_samples(by_model: Mapping[tuple[str, Outcome], int]) -> dict[tuple[str, ...], int]:
    """Every outcome of every model that was asked for, zeros too: a rate needs the zero before the one."""
    models = {model for model, _ in by_model}
    return {(model, outcome): by_model.get((model, outcome), 0) for model in models for outcome in OUTCOMES}
