"""The last few seconds of a run, for a live view: rates and percentiles over a sliding window. Pure.

Per token one histogram is touched, that of the current second; it is added to the run's when the second is
over.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from replay.measures import LogHistogram
from replay.outcome import Outcome, RequestResult
from replay.results import Results

WINDOW_SECONDS = 5
"""Long enough for a steady p99, short enough to show what just happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How a run stands. Rates and percentiles are those of the last WINDOW_SECONDS; None: no value there."""

    elapsed_seconds: float
    sent: int
    in_flight: int
    unsent: int
    late_sends: int
    corrupted: int
    outcomes: dict[Outcome, int]
    good: int
    """Completed within the SLO so far; 0 without one."""
    sent_per_second: float
    ended_per_second: float
    tokens_per_second: float
    ttft_seconds_p50: float | None
    ttft_seconds_p99: float | None
    itl_seconds_p50: float | None
    itl_seconds_p99: float | None
    e2e_seconds_p50: float | None


@dataclass(slots=True)
class _Second:
    started_at: float
    sent: int = 0
    ended: int = 0
    itl: LogHistogram = field(default_factory=LogHistogram)
    ttft: LogHistogram = field(default_factory=LogHistogram)
    e2e: LogHistogram = field(default_factory=LogHistogram)


class RollingWindow:
    """Collects per second; `results` gets the gaps of each second that is over."""

    def __init__(self, results: Results, now: float) -> None:
        self._results = results
        self._started_at = now
        self._seconds: deque[_Second] = deque()
        self._current = _Second(now)

    def add_gap(self, seconds: float) -> None:
        """Take one gap between two tokens."""
        self._current.itl.add(seconds)

    def add_sent(self) -> None:
        """A request was sent."""
        self._current.sent += 1

    def add_result(self, result: RequestResult) -> None:
        """A request has ended."""
        current = self._current
        current.ended += 1
        if result.ttft_seconds is not None:
            current.ttft.add(result.ttft_seconds)
        if result.outcome == "completed":
            current.e2e.add(result.e2e_seconds)

    def roll(self, now: float) -> None:
        """Begin a new second where one is over. To be called about once a second or more often."""
        if now - self._current.started_at < 1:
            return
        self._results.itl.merge(self._current.itl)
        self._seconds.append(self._current)
        self._current = _Second(now)
        while self._seconds and now - self._seconds[0].started_at > WINDOW_SECONDS:
            self._seconds.popleft()

    def close(self) -> None:
        """The run is over: the last second's gaps go to the results."""
        self._results.itl.merge(self._current.itl)
        self._current.itl = LogHistogram()

    def progress(self, now: float, *, in_flight: int) -> Progress:
        """How the run stands at `now`."""
        results = self._results
        itl, ttft, e2e = LogHistogram(), LogHistogram(), LogHistogram()
        sent = ended = 0
        seconds = [*self._seconds, self._current]
        for second in seconds:
            itl.merge(second.itl)
            ttft.merge(second.ttft)
            e2e.merge(second.e2e)
            sent += second.sent
            ended += second.ended
        span = max(1.0, now - seconds[0].started_at)
        return Progress(
            elapsed_seconds=now - self._started_at,
            sent=results.sent,
            in_flight=in_flight,
            unsent=results.unsent,
            late_sends=results.late_sends,
            corrupted=results.corrupted,
            outcomes=dict(results.outcomes),
            good=results.good,
            sent_per_second=sent / span,
            ended_per_second=ended / span,
            tokens_per_second=itl.count / span,
            ttft_seconds_p50=ttft.quantile(0.5),
            ttft_seconds_p99=ttft.quantile(0.99),
            itl_seconds_p50=itl.quantile(0.5),
            itl_seconds_p99=itl.quantile(0.99),
            e2e_seconds_p50=e2e.quantile(0.5),
        )
