"""Judges a run's power from outside: the fake GPUs' own log against the wind that was given. Pure.

Rule: nothing that an agent reports is used. What a site drew comes from the 10-Hz log that the fake GPUs
write themselves; what it might have drawn from the wind, the cap rule and the ride-through alone. What
cannot be known is `None`, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from fleet.power import CapRule, RideThrough, RideThroughAccount

GAP_SECONDS = 1.0
"""Ten missing samples: the host was not there (its agent was killed), rather than late."""
MAX_LINE_CHARACTERS = 4096


class PowerLogError(ValueError):
    """A power log that cannot be judged by; says which line and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerSample:
    """One line of a power log."""

    unix_seconds: float
    site_watts: float
    """Overhead and host included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerVerdict:
    """One site's run."""

    cap_exceeded_seconds: float
    """Above the cap beyond what the ride-through allows."""
    below_idle_seconds: float
    """The part of it in which the cap was below the draw of stopped engines."""
    above_cap_seconds: float
    """All time above the cap, the allowed part included."""
    episodes: int
    energy_joules: float
    peak_watts: float
    unobserved_seconds: float
    """In gaps of the log (a killed agent takes the fake GPUs with it). There the draw is taken as that of
    stopped engines, in the energy too."""


def judge(
    samples: Iterable[PowerSample],
    *,
    granted_watts: Callable[[float], float],
    rule: CapRule,
    limits: RideThrough,
    idle_watts: float,
) -> PowerVerdict | None:
    """Hold a site's log against its cap; `granted_watts(unix_seconds)` is what the wind gave it.

    Each sample stands for the time since the one before. None when there is no sample: unknown.

    Raises:
        PowerLogError: time runs backwards.
    """
    account = RideThroughAccount(limits=limits, idle_watts=idle_watts)
    previous: float | None = None
    energy = above = unobserved = peak = 0.0
    for sample in samples:
        at = sample.unix_seconds
        cap = rule.cap_watts(granted_watts(at))
        elapsed = 0.0 if previous is None else at - previous
        if elapsed < 0:
            raise PowerLogError(f"the log goes back from {previous} to {at} unix seconds")
        if elapsed > GAP_SECONDS:
            account.observe(draw_watts=idle_watts, cap_watts=cap, now=at)
            energy += idle_watts * elapsed
            unobserved += elapsed
        else:
            account.observe(draw_watts=sample.site_watts, cap_watts=cap, now=at)
            energy += sample.site_watts * elapsed
            above += elapsed if sample.site_watts > cap else 0.0
        peak = max(peak, sample.site_watts)
        previous = at
    if previous is None:
        return None
    return PowerVerdict(
        cap_exceeded_seconds=account.exceeded_seconds,
        below_idle_seconds=account.below_idle_seconds,
        above_cap_seconds=above,
        episodes=account.episodes,
        energy_joules=energy,
        peak_watts=peak,
        unobserved_seconds=unobserved,
    )


def parse_power_log(lines: Iterable[str]) -> Iterator[PowerSample]:
    """Read a log as it is written: a header with `unix_seconds` and `site_watts`, then a line a sample.

    A restarted host appends, and may write its header again. A last line without its end was cut by a kill
    and is left out.

    Raises:
        PowerLogError: any other line that is no sample.
    """
    at_column = watts_column = -1
    for number, line in enumerate(lines, start=1):
        cells = line[:MAX_LINE_CHARACTERS].rstrip("\r\n").split(",")
        if "unix_seconds" in cells:
            if "site_watts" not in cells:
                raise PowerLogError(f"line {number}: the header has no column site_watts: {line[:200]!r}")
            at_column, watts_column = cells.index("unix_seconds"), cells.index("site_watts")
            continue
        if at_column < 0:
            raise PowerLogError(f"line {number}: no header with unix_seconds and site_watts before it")
        if not line.endswith("\n"):
            continue
        try:
            at, watts = float(cells[at_column]), float(cells[watts_column])
        except (ValueError, IndexError):
            at = watts = math.nan
        if not (math.isfinite(at) and math.isfinite(watts)):
            raise PowerLogError(f"line {number} is no sample: {line[:200]!r}")
        yield PowerSample(unix_seconds=at, site_watts=watts)
