"""The summary of a run: one dict, which is the JSON, and a table of it for the terminal. Pure.

What the load generator cannot know (retries, power, energy) is given by the caller; what nobody gave is null
in the JSON: unknown, not zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from rich.table import Table

from replay.measures import LogHistogram, Quantiles
from replay.results import Results
from replay.schedule import ScheduleCounts

SHOWN_REASONS = 5
"""Below the table; the JSON has them all."""


def summary(
    results: Results,
    *,
    inputs: Mapping[str, Any],
    schedule: ScheduleCounts,
    retried: int | None = None,
    resumed: int | None = None,
    cap_exceeded_seconds: float | None = None,
    energy_joules: float | None = None,
    sites: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """The run as plain values, ready for JSON.

    `goodput_requests_per_second` = requests that completed within the SLO ÷ seconds of the schedule, in which
    they were offered; `slo_attainment_ratio` = the same ÷ all requests (shed, broken and cancelled ones count
    as not good), so goodput ÷ offered load. Both are null without an SLO, ratios and percentiles without a
    value. TTFT is of every request that got a token, E2E of completed ones. `inputs` names wind, trace and
    engine; `sites` defaults to what the answers' `x-heron-site` told. `load_generator` holds what is needed
    to trust the rest.
    """
    counts = results.outcomes
    requests = results.requests
    good = results.good if results.slo is not None else None
    seconds = schedule.seconds
    return {
        "requests": requests,
        "completed": counts["completed"],
        "shed": counts["shed"],
        "client_cancelled": counts["client_cancelled"],
        "broken": counts["broken"],
        "failed": counts["failed"],
        "lost": counts["lost"],
        "retried": retried,
        "resumed": resumed,
        "goodput_requests_per_second": None if good is None or seconds <= 0 else good / seconds,
        "slo_attainment_ratio": None if good is None or requests == 0 else good / requests,
        "ttft_seconds": _percentiles(results.ttft),
        "itl_seconds": _percentiles(results.itl),
        "e2e_seconds": _percentiles(results.e2e),
        "cap_exceeded_seconds": cap_exceeded_seconds,
        "energy_joules": energy_joules,
        "sites": {
            name: dict(values) for name, values in (_sites(results) if sites is None else sites).items()
        },
        "inputs": dict(inputs),
        "load_generator": _load_generator(results, schedule),
    }


def _percentiles(values: Quantiles | LogHistogram) -> dict[str, float | None]:
    return {"p50": values.quantile(0.5), "p99": values.quantile(0.99)}


def _sites(results: Results) -> dict[str, dict[str, int]]:
    return {
        name: {
            "requests": site.requests,
            "completed": site.completed,
            "output_tokens": site.output_tokens,
        }
        for name, site in sorted(results.sites.items())
    }


def _load_generator(results: Results, schedule: ScheduleCounts) -> dict[str, Any]:
    values: dict[str, Any] = {
        "duration_seconds": results.duration_seconds,
        "late_sends": results.late_sends,
        "max_lateness_seconds": results.max_lateness_seconds,
        "unsent": results.unsent,
        "client_retries": results.client_retries,
        "corrupted": results.corrupted,
        "corruptions": list(results.corruptions),
        "prompt_tokens": results.prompt_tokens,
        "output_tokens": results.output_tokens,
        "trace_prompt_tokens": results.wanted_prompt_tokens,
        "trace_output_tokens": results.wanted_output_tokens,
        "without_usage": results.without_usage,
        "reasons": dict(results.reasons.most_common()),
    }
    slo = results.slo
    values["slo"] = (
        None
        if slo is None
        else {
            "factor": slo.factor,
            "alone_prefill_tokens_per_second": slo.prefill_tokens_per_second,
            "alone_itl_seconds": slo.itl_seconds,
        }
    )
    values["schedule"] = {
        "seconds": schedule.seconds,
        "scheduled": schedule.scheduled,
        "prompt_tokens": schedule.prompt_tokens,
        "output_tokens": schedule.output_tokens,
        "thinned": schedule.thinned,
        "shortened": schedule.shortened,
        "raised": schedule.raised,
    }
    return values


def table(values: Mapping[str, Any], *, title: str = "Replay") -> Table:
    """The summary for a terminal; unknown values show as a dash."""
    view = Table(title=title, show_header=False, title_justify="left")
    view.add_column(justify="left")
    view.add_column(justify="right")
    for name in ("requests", "completed", "shed", "client_cancelled", "broken", "failed", "lost"):
        view.add_row(name.replace("_", " "), _whole(values[name]))
    for name in ("retried", "resumed"):
        view.add_row(name, _whole(values[name]))
    view.add_section()
    generator = values["load_generator"]
    sending, whole = generator["schedule"]["seconds"], generator["duration_seconds"]
    view.add_row("sending / in all", f"{duration(sending)} / {duration(whole)}")
    view.add_row("offered load", _rate(values["requests"], sending, "requests"))
    view.add_row("output", _rate(generator["output_tokens"], whole, "tokens"))
    goodput, ratio = values["goodput_requests_per_second"], values["slo_attainment_ratio"]
    view.add_row("goodput", "–" if goodput is None else f"{goodput:.2f} requests/s")
    view.add_row("SLO attainment", "–" if ratio is None else f"{ratio:.1%}")
    for label, name in (("TTFT", "ttft_seconds"), ("ITL", "itl_seconds"), ("E2E", "e2e_seconds")):
        pair = values[name]
        view.add_row(f"{label} p50 / p99", f"{duration(pair['p50'])} / {duration(pair['p99'])}")
    view.add_section()
    exceeded, energy = values["cap_exceeded_seconds"], values["energy_joules"]
    view.add_row("above the cap", "–" if exceeded is None else f"{exceeded:.1f} s")
    view.add_row("energy", "–" if energy is None else f"{energy / 3.6e6:.3f} kWh")
    view.add_row("tokens in / out", f"{generator['prompt_tokens']:,} / {generator['output_tokens']:,}")
    late = f"{generator['late_sends']:,} (at most {duration(generator['max_lateness_seconds'])})"
    view.add_row("late sends", late)
    view.add_row("not sent (too many in flight)", _whole(generator["unsent"]))
    view.add_row("corrupted answers", _whole(generator["corrupted"]))
    view.add_section()
    for name, value in values["inputs"].items():
        view.add_row(name, "–" if value is None else str(value))
    return view


def reasons(values: Mapping[str, Any]) -> list[str]:
    """Why requests did not complete, the most frequent reasons first, one line each."""
    counted = values["load_generator"]["reasons"].items()
    return [f"{count:,} × {reason}" for reason, count in islice(counted, SHOWN_REASONS)]


def duration(seconds: float | None) -> str:
    """Seconds with three digits and a unit that suits: `843 µs`, `17.0 ms`, `2.31 s`; None is a dash."""
    if seconds is None:
        return "–"
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} µs"


def _rate(count: int, seconds: float, what: str) -> str:
    return f"{count / seconds:,.2f} {what}/s" if seconds > 0 else "–"


def _whole(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"
