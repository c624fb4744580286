"""How fast a measured engine prefills, and what of its gaps between tokens is decode. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fleet.performance import ClockModel, PerformanceProfile
from fleet.profiles.measured_points import Point

UNKNOWN_PREFILL_RATE = 1000.0
"""Prompt tokens per second where no first token was timed: assumed, slow."""
MAX_PREFILL_SHARE = 0.4
"""Of the steps, up to which their median is a decode step."""
DERIVED = "derived: heron profile run; step = batch ÷ tokens per second less prefill"
MAX_OVERHEAD_RATIO = 1.5
"""Of a step that only prefills, beyond its tokens, to a decode step of the smallest batch."""
LEAST_RATIO = 0.1
"""Of a time that is not the part's which a fit takes off it, whatever the fit says."""
MEASURED = "measured: heron profile run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefill:
    """At full clock."""

    tokens_per_second: float
    step_seconds: float
    source: str
    batch: int | None
    """Whose first tokens were used."""


def fit_prefill(full: Sequence[Point]) -> Prefill:
    """From the points at full clock: first tokens of the smallest batch, which waits for nobody."""
    timed = [one for one in full if one.ttft_seconds is not None]
    if not timed:
        return Prefill(
            tokens_per_second=UNKNOWN_PREFILL_RATE,
            step_seconds=0.0,
            source="assumed: no first token was timed",
            batch=None,
        )
    batch = min(one.batch for one in timed)
    timed = [one for one in timed if one.batch == batch]
    steps = [one.itl_seconds for one in timed if one.itl_seconds is not None]
    most_overhead = min(steps) if steps else 0.0
    lengths = {one.asked_prompt_tokens for one in timed}
    source = f"{'measured' if batch == 1 else 'derived'}: heron profile run, first tokens of batch {batch}"
    rows = [(one.prefill_steps, one.prompt_tokens, one.ttft_seconds or 0.0) for one in timed]
    if len(lengths) < 2:
        overhead = min([most_overhead, *(0.9 * ttft / chunks for chunks, _, ttft in rows)])
        source = source.replace("measured", "derived", 1)
        source += " and one prompt length; a step's own time is taken as a decode step"
    else:
        overhead = min(max(0.0, _free_overhead(rows)), MAX_OVERHEAD_RATIO * most_overhead)
    return Prefill(
        tokens_per_second=1 / _seconds_per_token(rows, overhead),
        step_seconds=overhead,
        source=source,
        batch=batch,
    )


def _free_overhead(rows: Sequence[tuple[int, float, float]]) -> float:
    """Least squares of chunks · overhead + tokens · rest, both free, relative to the times."""
    cc = sum((chunks / ttft) ** 2 for chunks, _, ttft in rows)
    ct = sum(chunks * tokens / ttft**2 for chunks, tokens, ttft in rows)
    tt = sum((tokens / ttft) ** 2 for _, tokens, ttft in rows)
    c1 = sum(chunks / ttft for chunks, _, ttft in rows)
    t1 = sum(tokens / ttft for _, tokens, ttft in rows)
    determinant = cc * tt - ct * ct
    if determinant <= 1e-9 * cc * tt:
        return 0.0
    return (c1 * tt - t1 * ct) / determinant


def _seconds_per_token(rows: Sequence[tuple[int, float, float]], overhead: float) -> float:
    """With this overhead; at least a tenth of what it would be without, so that it stays a rate."""
    tt = sum((tokens / ttft) ** 2 for _, tokens, ttft in rows)
    found = sum(tokens / ttft * (1 - chunks * overhead / ttft) for chunks, tokens, ttft in rows) / tt
    return max(found, LEAST_RATIO * sum(tokens / ttft for _, tokens, ttft in rows) / tt)


def fit_prefill_sensitivity(profile: PerformanceProfile, lower: Sequence[Point], prefill: Prefill) -> float:
    """How far prefill follows the clock, 0 to 1; as assumed elsewhere where no first token says."""
    numerator = denominator = 0.0
    for one in lower:
        if one.ttft_seconds is None or one.batch != prefill.batch:
            continue
        alone = one.prompt_tokens / prefill.tokens_per_second
        steps = one.prefill_steps * profile.prefill_step_seconds(one.clock_mhz)
        stretch = alone * (one.full_clock_mhz / one.clock_mhz - 1) / one.ttft_seconds
        numerator += stretch * (one.ttft_seconds - steps - alone) / one.ttft_seconds
        denominator += stretch * stretch
    if denominator == 0:
        return ClockModel().prefill_sensitivity
    return min(1.0, max(0.0, numerator / denominator))


def step_seconds(point: Point, prefill_rate: float) -> tuple[float | None, str]:
    """The decode step of a point, and its source: the median gap where most steps carry no prefill.

    `prefill_rate`: prompt tokens per second at the point's clock.

    Else a second's steps less the prefill in it: (1 − prefill's share) · decoding ÷ tokens per second, where
    those decode that do not wait for their first token (Little's law). None where the window was too short
    for that: fewer requests ended in it than run.
    """
    rate, median = point.requests_per_second, point.itl_seconds
    carrying = 0.0
    if median is not None and point.batch > 1:
        carrying = rate * point.prefill_steps * median
    if median is not None and carrying <= MAX_PREFILL_SHARE:
        return median, MEASURED
    if point.ttft_seconds is None or point.ended_requests < point.batch:
        return None, ""
    share = rate * point.prompt_tokens / prefill_rate
    decoding = max(1.0, point.batch - rate * point.ttft_seconds)
    found = (1 - share) * decoding / point.tokens_per_second
    if median is not None:
        found = min(max(found, 0.2 * median), median)
    return (found, DERIVED) if found > 0 else (None, "")
