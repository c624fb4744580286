"""The console's counters out of what a process counts anyway."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from router.console.facts import Counters
from router.live.ledger import Ledger
from router.live.metrics import RouterMetrics
from router.policy.stream_end import LossCode

CONTINUED = frozenset({"exact", "faithful"})
"""Results of a resume that went well."""
LOSSES = frozenset(get_args(LossCode))


def own_counters(ledger: Ledger, metrics: RouterMetrics) -> Counters:
    """Of a router that is one process."""
    ttft: dict[float, float] = {}
    for durations in metrics.durations.values():
        for bound, count in durations.ttft.buckets():
            ttft[float(bound)] = ttft.get(float(bound), 0.0) + count
    return make_counters(
        ledger, resumes=metrics.resumes, retries=metrics.retries, refusals=metrics.refusals, ttft=ttft
    )


def make_counters(
    ledger: Ledger,
    *,
    resumes: Mapping[tuple[str, ...], float],
    retries: Mapping[str, int],
    refusals: Mapping[str, int],
    ttft: Mapping[float, float],
) -> Counters:
    """`resumes` by method and result, as `RouterMetrics` has them; `ttft`: see `Buckets`."""
    by_result: dict[str, int] = {}
    for (_, result), count in resumes.items():
        by_result[result] = by_result.get(result, 0) + round(count)
    return Counters(
        ledger=ledger.totals(),
        resumed=sum(count for result, count in by_result.items() if result in CONTINUED),
        losses={result: count for result, count in by_result.items() if result in LOSSES},
        not_resumed={
            result: count for result, count in by_result.items() if result not in CONTINUED | LOSSES
        },
        retries=dict(retries),
        refusals=dict(refusals),
        ttft=ttft,
    )
