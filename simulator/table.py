"""Which figures of a result are shown, under which name, in which form. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.estimates import estimate

Result = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure."""

    short: str
    long: str
    read: Callable[[Result], float | None]
    form: str = "{:.3f}"
    mean_form: str | None = None
    """Of a mean over seeds; None: as one seed's. Of a count it is no whole number."""
    is_percentile: bool = False
    """None is infinite, not unknown."""


def _all(name: str) -> Callable[[Result], float | None]:
    return lambda result: result["all"][name]


def _quantile(kind: str, name: str, part: str = "all") -> Callable[[Result], float | None]:
    return lambda result: result[part][kind][name] if result[part]["offered"] else math.nan


def _refused_ratio(result: Result) -> float | None:
    offered = result["all"]["offered"]
    return result["all"]["shed"] / offered if offered else None


_ATTAINED = Row(
    short="attained",
    long="share of the offered requests within the SLO",
    read=_all("slo_attainment_ratio"),
    form="{:.2%}",
)
_BROKEN = Row(
    short="broken",
    long="accepted and ended with an error",
    read=_all("broken"),
    form="{:.0f}",
    mean_form="{:.1f}",
)
_TTFT_P99 = Row(
    short="TTFT p99", long="TTFT p99, s", read=_quantile("ttft_seconds", "p99"), is_percentile=True
)
_E2E_P99 = Row(
    short="E2E p99",
    long="E2E p99, s",
    read=_quantile("e2e_seconds", "p99"),
    form="{:.2f}",
    is_percentile=True,
)
_OVER_CAP = Row(
    short="over cap s",
    long="seconds above a cap beyond the ride-through",
    read=lambda result: result["cap_exceeded_seconds"],
    form="{:.1f}",
)
_JOULES = Row(
    short="J/token",
    long="joules per output token",
    read=lambda result: result["joules_per_output_token"],
    form="{:.2f}",
)
ROWS: tuple[Row, ...] = (
    Row(
        short="offered/s",
        long="offered requests per second",
        read=_all("offered_requests_per_second"),
        form="{:.2f}",
    ),
    Row(
        short="goodput/s",
        long="requests per second within the SLO",
        read=_all("goodput_requests_per_second"),
        form="{:.2f}",
    ),
    _ATTAINED,
    Row(
        short="served",
        long="share of the offered requests that were served",
        read=_all("served_ratio"),
        form="{:.2%}",
    ),
    Row(short="shed", long="requests refused", read=_all("shed"), form="{:.0f}", mean_form="{:.1f}"),
    _BROKEN,
    Row(
        short="resumed",
        long="broken off by a site and served whole",
        read=_all("resumed"),
        form="{:.0f}",
        mean_form="{:.1f}",
    ),
    Row(short="TTFT p50", long="TTFT p50, s", read=_quantile("ttft_seconds", "p50"), is_percentile=True),
    _TTFT_P99,
    Row(
        short="E2E p50",
        long="E2E p50, s",
        read=_quantile("e2e_seconds", "p50"),
        form="{:.2f}",
        is_percentile=True,
    ),
    _E2E_P99,
    _OVER_CAP,
    _JOULES,
)
"""All figures, of a policy alone and of each run."""
COLUMNS: tuple[Row, ...] = (
    _ATTAINED,
    Row(
        short="refused",
        long="share of the offered requests that was shed",
        read=_refused_ratio,
        form="{:.2%}",
    ),
    _BROKEN,
    _TTFT_P99,
    _E2E_P99,
    _JOULES,
    _OVER_CAP,
)
"""What policies are compared by: with their names no wider than 80 characters."""


def by_policy(cells: Sequence[Result]) -> dict[str, list[Result]]:
    """The results of each policy, in the order of the cells; a seed that is there twice once."""
    found: dict[str, dict[int, Result]] = {}
    for one in cells:
        found.setdefault(one["cell"]["policy"], {})[one["cell"]["seed"]] = one["result"]
    return {name: list(seeds.values()) for name, seeds in found.items()}


def shown(row: Row, results: Sequence[Result]) -> str:
    """One figure's mean over seeds with half its 95 % interval: `88.15% ± 0.34%`; one seed: `88.15%`."""
    form = row.form if len(results) == 1 else row.mean_form or row.form
    return estimate([_value(row, one) for one in results]).text(form)


def _value(row: Row, result: Result) -> float:
    value = row.read(result)
    if value is None:
        return math.inf if row.is_percentile else math.nan
    return value


def table_rows(results: Sequence[Result]) -> list[list[str]]:
    """Policy, seed, and every figure, of each result."""
    return [
        [one["cell"]["policy"], str(one["cell"]["seed"]), *(shown(row, [one["result"]]) for row in ROWS)]
        for one in results
    ]
