"""Which figures of a result are shown, under which name, in which form. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Result = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure."""

    short: str
    long: str
    read: Callable[[Result], float | None]
    form: str = "{:.3f}"
    is_percentile: bool = False
    """None is infinite, not unknown."""


def _all(name: str) -> Callable[[Result], float | None]:
    return lambda result: result["all"][name]


def _quantile(kind: str, name: str, part: str = "all") -> Callable[[Result], float | None]:
    return lambda result: result[part][kind][name] if result[part]["offered"] else math.nan


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
    Row(
        short="attained",
        long="share of the offered requests within the SLO",
        read=_all("slo_attainment_ratio"),
        form="{:.2%}",
    ),
    Row(
        short="served",
        long="share of the offered requests that were served",
        read=_all("served_ratio"),
        form="{:.2%}",
    ),
    Row(short="shed", long="requests refused", read=_all("shed"), form="{:.0f}"),
    Row(short="broken", long="accepted and ended with an error", read=_all("broken"), form="{:.0f}"),
    Row(short="resumed", long="broken off by a site and served whole", read=_all("resumed"), form="{:.0f}"),
    Row(short="TTFT p50", long="TTFT p50, s", read=_quantile("ttft_seconds", "p50"), is_percentile=True),
    Row(short="p99", long="TTFT p99, s", read=_quantile("ttft_seconds", "p99"), is_percentile=True),
    Row(
        short="E2E p50",
        long="E2E p50, s",
        read=_quantile("e2e_seconds", "p50"),
        form="{:.2f}",
        is_percentile=True,
    ),
    Row(
        short="p99",
        long="E2E p99, s",
        read=_quantile("e2e_seconds", "p99"),
        form="{:.2f}",
        is_percentile=True,
    ),
    Row(
        short="over cap s",
        long="seconds above a cap beyond the ride-through",
        read=lambda result: result["cap_exceeded_seconds"],
        form="{:.1f}",
    ),
    Row(
        short="J/token",
        long="joules per output token",
        read=lambda result: result["joules_per_output_token"],
        form="{:.2f}",
    ),
)


def shown(row: Row, result: Result) -> str:
    """One figure as text."""
    value = row.read(result)
    if value is None:
        return "∞" if row.is_percentile else "–"
    return "–" if math.isnan(value) else row.form.format(value)


def table_rows(results: Sequence[Result]) -> list[list[str]]:
    """Policy, seed, and every figure, of each result."""
    return [
        [one["cell"]["policy"], str(one["cell"]["seed"]), *(shown(row, one["result"]) for row in ROWS)]
        for one in results
    ]
