"""What the console counts is the same of one process and of its workers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from router.live.console_counters import own_counters
from router.live.ledger import Ledger
from router.live.metrics import ModelDurations, RouterMetrics, StateCollector
from router.workers.counters import workers_counters
from router.workers.prometheus import read_page


def metrics() -> RouterMetrics:
    """Some of everything."""
    made = RouterMetrics(CollectorRegistry())
    made.count_retry("closed")
    made.count_refusal("no_power")
    for result in ("exact", "faithful", "power_lost", "connect"):
        made.count_resume("ids", result)
    for model in ("m", "n"):
        made.durations[model] = ModelDurations()
        made.durations[model].ttft.observe(0.03)
    return made


def test_a_worker_s_metrics_say_what_its_own_counts_say() -> None:
    """Resumes by how they went, buckets over all models."""
    own = metrics()
    StateCollector(own, lambda: iter(()))
    found = own_counters(Ledger(), own)
    assert (found.resumed, found.losses, found.not_resumed) == (2, {"power_lost": 1}, {"connect": 1})
    assert (found.ttft[0.025], found.ttft[0.05], found.ttft[float("inf")]) == (0.0, 2.0, 2.0)
    page = read_page(own.registry.collect())
    assert workers_counters(Ledger(), [page]) == found
    both = workers_counters(Ledger(), [page, page])
    assert (both.resumed, both.retries, both.refusals) == (4, {"closed": 2}, {"no_power": 2})
    assert both.ttft[0.05] == 4.0
