"""What the demo saw a few times a second, as figures for its summary: pushbacks, and how soon goodput is back
after darkness. Pure. Times are seconds of traffic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WARM_UP_SECONDS = 3.0
"""The first requests find empty engines and no report of anything."""
SHORTEST_SECOND, SECOND = 0.75, 1.1
"""Between two polls, four a second."""
FALL_SECONDS = 5.0
"""The worst second after a fall is looked for so long: the feed and the agent take their time."""
GOODPUT_WINDOW_SECONDS = 3.0
FULL_RATIO = 0.9
"""Of the goodput before the fall, over a window: more is within the noise of arrivals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSample:
    """The router's counts at one moment."""

    at_seconds: float
    requests: int
    pushbacks: int
    has_room: bool
    """A site serves and says that it has room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoodSample:
    """The load generator's count at one moment."""

    at_seconds: float
    good: int
    """Completed within the SLO."""


def pushback_values(samples: Sequence[FleetSample], fall_at: float | None) -> dict[str, Any]:
    """`steady_ratio`: per request, after the start and before any fall; `worst_second_after_fall_ratio`: per
    request of that second. None where there was nothing to measure.
    """
    last = samples[-1] if samples else None
    steady = [
        one
        for one in samples
        if one.at_seconds >= WARM_UP_SECONDS and (fall_at is None or one.at_seconds <= fall_at)
    ]
    worst: float | None = None
    if fall_at is not None:
        after = [one for one in samples if fall_at - SECOND <= one.at_seconds <= fall_at + FALL_SECONDS]
        for index, first in enumerate(after):
            for then in after[index + 1 :]:
                if SHORTEST_SECOND <= then.at_seconds - first.at_seconds <= SECOND:
                    ratio = _ratio(first, then)
                    worst = ratio if worst is None or (ratio or 0.0) > worst else worst
    return {
        "total": None if last is None else last.pushbacks,
        "steady_ratio": _ratio(steady[0], steady[-1]) if len(steady) > 1 else None,
        "worst_second_after_fall_ratio": worst,
    }


def _ratio(first: FleetSample, last: FleetSample) -> float | None:
    requests = last.requests - first.requests
    return (last.pushbacks - first.pushbacks) / requests if requests else None


def recovery_values(
    fleet: Sequence[FleetSample], good: Sequence[GoodSample], fall_at: float | None
) -> dict[str, Any] | None:
    """How soon goodput was back after every site was without room; None where that did not happen.

    `seconds` = from a site having room again to the end of the first GOODPUT_WINDOW_SECONDS with FULL_RATIO
    of the goodput before the fall; None: not within the run.
    """
    if fall_at is None:
        return None
    dark_at = next((one.at_seconds for one in fleet if one.at_seconds > fall_at and not one.has_room), None)
    if dark_at is None:
        return None
    room_at = next((one.at_seconds for one in fleet if one.at_seconds > dark_at and one.has_room), None)
    before = _rate(good, WARM_UP_SECONDS, fall_at)
    if room_at is None or before is None:
        return {"dark_seconds": None, "goodput_before_requests_per_second": before, "seconds": None}
    seconds = next(
        (
            one.at_seconds - room_at
            for one in good
            if one.at_seconds - GOODPUT_WINDOW_SECONDS >= room_at
            and (rate := _rate(good, one.at_seconds - GOODPUT_WINDOW_SECONDS, one.at_seconds)) is not None
            and rate >= FULL_RATIO * before
        ),
        None,
    )
    return {
        "dark_seconds": room_at - dark_at,
        "goodput_before_requests_per_second": before,
        "seconds": seconds,
    }


def _rate(samples: Sequence[GoodSample], start: float, end: float) -> float | None:
    inside = [one for one in samples if start <= one.at_seconds <= end]
    if len(inside) < 2 or inside[-1].at_seconds <= inside[0].at_seconds:
        return None
    return (inside[-1].good - inside[0].good) / (inside[-1].at_seconds - inside[0].at_seconds)
