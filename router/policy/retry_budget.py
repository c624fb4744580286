"""How many retries a router may make: a share of live traffic, so that retries cannot storm.

As in Finagle and Linkerd: over the last ten seconds, `ratio` of the requests plus a minimum per second, which
keeps a quiet router able to retry at all. Pushbacks and resumes do not count against it (DESIGN §5).
"""

from __future__ import annotations

WINDOW_SECONDS = 10


class RetryBudget:
    """Counts per second over a window; `now` is monotonic seconds."""

    __slots__ = ("_minimum", "_ratio", "_requests", "_retries", "_second", "_sum_requests", "_sum_retries")

    def __init__(self, *, ratio: float, minimum_per_second: float) -> None:
        self._ratio = ratio
        self._minimum = minimum_per_second * WINDOW_SECONDS
        self._requests = [0] * WINDOW_SECONDS
        self._retries = [0] * WINDOW_SECONDS
        self._sum_requests = 0
        self._sum_retries = 0
        self._second = 0

    def count_request(self, now: float) -> None:
        """A request has come in."""
        second = int(now)
        if second != self._second:
            self._advance(second)
        self._requests[second % WINDOW_SECONDS] += 1
        self._sum_requests += 1

    def take(self, now: float) -> bool:
        """Take one retry, if there is one left."""
        second = int(now)
        if second != self._second:
            self._advance(second)
        if self._sum_retries + 1 > self._minimum + self._ratio * self._sum_requests:
            return False
        self._retries[second % WINDOW_SECONDS] += 1
        self._sum_retries += 1
        return True

    def _advance(self, second: int) -> None:
        """Forward only. An instant that is past but in the window counts there; one before it means that the
        clock was set back: the window goes on from there, with what is in it."""
        if self._second - WINDOW_SECONDS < second < self._second:
            return
        for passed in range(self._second + 1, min(second, self._second + WINDOW_SECONDS) + 1):
            slot = passed % WINDOW_SECONDS
            self._sum_requests -= self._requests[slot]
            self._sum_retries -= self._retries[slot]
            self._requests[slot] = self._retries[slot] = 0
        self._second = second
