"""Rates and quantiles of the last minute, from counters that only grow. Pure, bounded."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from router.console.facts import Buckets, Counters

MINUTE_SECONDS = 60.0
RATE_SECONDS = 10.0
"""Requests per second are told over so long: a minute would hide a change, a second only jumps."""
SITE_SAMPLE_SECONDS = 10.0
TREND_STEP_SECONDS = 2.0
TREND_POINTS = 300
"""Ten minutes."""
UNKNOWN_WATTS = -1.0
"""In a trend, where `None` has no place."""


def quantile(buckets: Buckets, ratio: float) -> float | None:
    """Seconds below which `ratio` of what was counted lies, interpolated in its bucket as Prometheus'
    `histogram_quantile` does; the highest finite bound where it lies above all of them; None: nothing
    was counted."""
    bounds = sorted(buckets.items())
    if not bounds or bounds[-1][1] <= 0:
        return None
    rank = ratio * bounds[-1][1]
    lower, below = 0.0, 0.0
    for bound, count in bounds:
        if count >= rank and count > below:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (rank - below) / (count - below)
        if bound != float("inf"):
            lower = bound
        below = count
    return lower


@dataclass(frozen=True, slots=True, kw_only=True)
class LastMinute:
    """What was counted in it; shorter where the router is younger."""

    seconds: float = 0.0
    requests_per_second: float | None = None
    outcomes: Mapping[str, int] = field(default_factory=dict)
    retries: int = 0
    resumed: int = 0
    refusals: Mapping[str, int] = field(default_factory=dict)
    ttft_seconds_p50: float | None = None
    ttft_seconds_p99: float | None = None


class RouterRates:
    """One counter sample a second at most, for a minute."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Counters]] = deque(maxlen=round(MINUTE_SECONDS) + 2)

    def take(self, counters: Counters, now: float) -> None:
        """The counters as they are now."""
        self._samples.append((now, counters))
        while len(self._samples) > 2 and now - self._samples[1][0] >= MINUTE_SECONDS:
            self._samples.popleft()

    def last_minute(self) -> LastMinute:
        """Of the samples taken."""
        if len(self._samples) < 2:
            return LastMinute()
        (then, old), (now, new) = self._samples[0], self._samples[-1]
        ttft = {bound: count - old.ttft.get(bound, 0.0) for bound, count in new.ttft.items()}
        recent = next(sample for sample in self._samples if now - sample[0] <= RATE_SECONDS + 0.5)
        if recent[0] == now:
            recent = self._samples[-2]
        came = new.ledger.get("requests", 0) - recent[1].ledger.get("requests", 0)
        return LastMinute(
            seconds=now - then,
            requests_per_second=max(0, came) / (now - recent[0]) if now > recent[0] else None,
            outcomes=_grown(new.ledger, old.ledger),
            retries=sum(_grown(new.retries, old.retries).values()),
            resumed=max(0, new.resumed - old.resumed),
            refusals={key: count for key, count in _grown(new.refusals, old.refusals).items() if count},
            ttft_seconds_p50=quantile(ttft, 0.5),
            ttft_seconds_p99=quantile(ttft, 0.99),
        )


class SiteRates:
    """Of one site: what was sent there in the last minute, and the trend of its draw and cap."""

    def __init__(self) -> None:
        self._requests: deque[tuple[float, int]] = deque(maxlen=8)
        self._latest = 0
        self._trend_at = float("-inf")
        self.draw_watts: array[float] = array("f")
        self.cap_watts: array[float] = array("f")

    def take(self, requests: int, now: float) -> None:
        """Its count of requests."""
        self._latest = requests
        if not self._requests or now - self._requests[-1][0] >= SITE_SAMPLE_SECONDS:
            self._requests.append((now, requests))
        while len(self._requests) > 1 and now - self._requests[1][0] >= MINUTE_SECONDS:
            self._requests.popleft()

    def take_watts(self, draw_watts: float | None, cap_watts: float | None, now: float) -> None:
        """One point of the trend, when it is due. Silence is a gap: its points are unknown."""
        if now - self._trend_at < TREND_STEP_SECONDS - 0.5:
            return
        self._trend_at = now
        for series, watts in ((self.draw_watts, draw_watts), (self.cap_watts, cap_watts)):
            series.append(UNKNOWN_WATTS if watts is None else watts)
            if len(series) > TREND_POINTS:
                del series[0]

    @property
    def last_minute(self) -> int:
        """Requests sent there in about the last minute."""
        return max(0, self._latest - self._requests[0][1]) if self._requests else 0


def _grown(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    return {key: max(0, count - before.get(key, 0)) for key, count in now.items()}
