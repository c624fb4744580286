"""Watts of a measured profile: by batch, by clock, while prefilling, empty and stopped. Pure.

Rule: of several figures the highest counts, for a cap is kept by them; what nobody measured is assumed, and
says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fleet.performance import interpolate
from fleet.power_states import GPU_IDLE_WATTS, GPU_STOPPED_WATTS
from fleet.profiles.document import ProfileDocumentError
from fleet.profiles.measured_points import Point

STOPPED_RATIO = GPU_STOPPED_WATTS / GPU_IDLE_WATTS
"""Watts without an engine ÷ awake and empty, as of the shipped profiles' H100."""
PREFILL_RATIO = 1.25
"""Watts of nothing but prefill ÷ the highest row, where rows do not say: the shipped profile's 2,454 W ÷ its
2,002 W at batch 64."""
LEAST_PREFILL_SPREAD = 0.2
"""Between two rows' shares of prefill, for them to say what all of it draws."""
LEAST_DYNAMIC_RATIO = 0.25
"""Of the highest watts above idle, for a row to say how they follow the clock."""
DEFAULT_IDLE_WATTS, DEFAULT_BUSY_WATTS = 200.0, 400.0
_MEASURED = "measured: heron profile run"


@dataclass(frozen=True, slots=True, kw_only=True)
class AssumedWatts:
    """What the configuration says of one instance, for what was not measured; None: it does not say."""

    stopped: float | None = None
    idle: float | None = None
    busy: float | None = None


NOTHING_ASSUMED = AssumedWatts()


@dataclass(frozen=True, slots=True, kw_only=True)
class WattsFit:
    """Of one instance, all its GPUs together."""

    batches: tuple[int, ...]
    """Ascending, those with watts at full clock; empty: none was measured."""
    watts: tuple[float, ...]
    stopped_watts: float
    idle_watts: float
    idle_source: str
    busy_watts: float
    """Where no batch was measured."""
    prefill_watts: float | None
    clock_points: tuple[tuple[float, float], ...]

    def at(self, batch: int) -> tuple[float, str]:
        """Watts at full clock, and their source."""
        if not self.batches:
            return self.busy_watts, "assumed: assumed_busy_watts, no power was measured"
        found = interpolate(self.batches, self.watts, at=batch)
        return found, _MEASURED if batch in self.batches else "modelled: between measured batches"


def check_watts(
    points: Sequence[Point], assumed: AssumedWatts, *, idle_watts: float | None, name: str
) -> None:
    """Whether a cap may be kept by these watts; `name` is the file's, for messages.

    Raises:
        ProfileDocumentError: none were measured and none configured, or the largest batch has none.
    """
    if not any(one.watts for one in points):
        wanted = [
            key
            for key, value in (
                ("assumed_idle_watts", idle_watts if assumed.idle is None else assumed.idle),
                ("assumed_busy_watts", assumed.busy),
            )
            if value is None
        ]
        if wanted:
            raise ProfileDocumentError(
                f"{name}: no row has watts, so nothing says what an instance draws: measure with --gpus, or "
                f"set {' and '.join(wanted)} in [sites.engine] (all GPUs of one instance together)"
            )
        return
    full = [one for one in points if one.is_full_clock]
    largest = max(one.batch for one in full)
    if not any(one.watts for one in full if one.batch == largest):
        raise ProfileDocumentError(
            f"{name}: the largest batch, {largest}, has no watts at full clock, a smaller one's would stand "
            "for it, too low: take its rows out of the file and run the same `heron profile run` again"
        )


def fit_watts(
    points: Sequence[Point],
    assumed: AssumedWatts,
    *,
    degree: int,
    idle_watts: float | None,
    prefill_rate: float,
    limit_watts: float | None = None,
) -> WattsFit:
    """`idle_watts`: measured; `prefill_rate`: prompt tokens per second at full clock.

    `limit_watts`: of the GPUs together, beyond which nothing is extended.
    """
    full = [one for one in points if one.is_full_clock and one.watts]
    lowest = min((one.watts for one in points if one.watts), default=None)
    idle, source = _idle(idle_watts, assumed, degree, lowest)
    stopped, stopped_source = assumed.stopped, "stopped: assumed_stopped_watts"
    if stopped is None:
        stopped, stopped_source = idle * STOPPED_RATIO, "stopped: modelled, 0.61 of that, as of an H100"
    by_batch = {batch: max(idle, *_watts_of(full, batch)) for batch in sorted({one.batch for one in full})}
    busy = DEFAULT_BUSY_WATTS if assumed.busy is None else assumed.busy
    return WattsFit(
        batches=tuple(by_batch),
        watts=tuple(by_batch.values()),
        stopped_watts=min(stopped, idle),
        idle_watts=idle,
        idle_source=f"{source}; {stopped_source}",
        busy_watts=max(busy, idle),
        prefill_watts=_prefill_watts(full, by_batch, prefill_rate, limit_watts) if by_batch else None,
        clock_points=_clock_points(points, idle),
    )


def _watts_of(points: Sequence[Point], batch: int) -> list[float]:
    return [one.watts for one in points if one.batch == batch and one.watts is not None]


def _idle(
    measured: float | None, assumed: AssumedWatts, degree: int, lowest: float | None
) -> tuple[float, str]:
    if measured is not None:
        return measured, f"idle {_MEASURED}"
    if assumed.idle is not None:
        return assumed.idle, "idle: assumed_idle_watts"
    if lowest is None:
        return DEFAULT_IDLE_WATTS, "idle assumed: no power was measured"
    return min(degree * GPU_IDLE_WATTS, lowest), "idle modelled: 115 W a GPU, as of an H100"


def _clock_points(points: Sequence[Point], idle: float) -> tuple[tuple[float, float], ...]:
    """(clock ÷ full clock, dynamic watts ÷ those at full clock): the highest of any batch, never falling."""
    full: dict[tuple[int, int], float] = {}
    for one in points:
        if one.is_full_clock and one.watts is not None:
            key = one.batch, one.asked_prompt_tokens
            full[key] = max(full.get(key, 0.0), one.watts - idle)
    least = LEAST_DYNAMIC_RATIO * max(full.values(), default=0.0)
    ratios: dict[int, float] = {}
    for one in points:
        dynamic = full.get((one.batch, one.asked_prompt_tokens), 0.0)
        if not one.is_full_clock and one.watts is not None and dynamic > 0 and dynamic >= least:
            ratio = min(1.0, max(0.0, one.watts - idle) / dynamic)
            ratios[one.clock_mhz] = max(ratios.get(one.clock_mhz, 0.0), ratio)
    if not ratios:
        return ()
    found, highest = [], 0.0
    for clock in sorted(ratios):
        highest = max(highest, ratios[clock])
        found.append((clock / points[0].full_clock_mhz, highest))
    return (*found, (1.0, 1.0))


def _prefill_watts(
    full: Sequence[Point], by_batch: dict[int, float], prefill_rate: float, limit_watts: float | None
) -> float:
    """Of nothing but prefill: rows of one batch, whose prompts differ, extended to a share of 1.

    At least the highest row, and beyond it no more than the GPUs' limit. Where no two rows' shares differ
    enough: `PREFILL_RATIO` times that row.
    """
    numerator = denominator = 0.0
    for batch in by_batch:
        rows = [
            (min(1.0, one.requests_per_second * one.prompt_tokens / prefill_rate), one.watts or 0.0)
            for one in full
            if one.batch == batch
        ]
        shares = [share for share, _ in rows]
        if max(shares) - min(shares) < LEAST_PREFILL_SPREAD:
            continue
        share_mean, watts_mean = sum(shares) / len(rows), sum(watts for _, watts in rows) / len(rows)
        spread = sum((share - share_mean) ** 2 for share in shares)
        slope = sum((share - share_mean) * (watts - watts_mean) for share, watts in rows) / spread
        numerator += spread * (watts_mean + slope * (1 - share_mean))
        denominator += spread
    highest = max(by_batch.values())
    extended = highest * PREFILL_RATIO if denominator == 0 else numerator / denominator
    return max(highest, extended if limit_watts is None else min(extended, limit_watts))
