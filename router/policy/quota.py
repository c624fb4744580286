"""What one API key may use: requests a minute, tokens a minute, requests at once. Pure: time is an argument.

Each quota is a bucket that holds a minute's allowance and refills evenly. A request is counted before its
body is looked at, for that costs more than all the rest. Its tokens are known after that: it takes what it is
expected to need and gives back, or pays, the difference when it is over.

A bucket is one process's. What the fleet's other routers and workers take out of it is told twice a second
(`stand`, from `fleet.quota_book`); between two such words, and while nobody tells, each goes on by itself.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from fleet.quota_book import Spending, Standing

MINUTE_SECONDS = 60.0
CONCURRENCY_RETRY_SECONDS = 1.0
"""When one of many requests ends is not known; within seconds."""

QuotaKind = Literal["requests", "tokens", "concurrent"]


class Bucket:
    """Mutable; `now` is monotonic seconds. Holds at most a minute's allowance, and owes at most as much."""

    __slots__ = ("_at", "_own", "counted", "level", "per_minute", "spent")

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self.level = float(per_minute)
        self._own = float(per_minute)
        """What would be left if nobody else spent: no word from elsewhere leaves more."""
        self.spent = 0.0
        """Taken here since the process began."""
        self.counted = 0.0
        """Of that, what the fleet's book has counted."""
        self._at = now

    def refill(self, now: float) -> float:
        """What is in it now."""
        if now > self._at:
            most = float(self.per_minute)
            come = (now - self._at) * most / MINUTE_SECONDS
            self.level = min(most, self.level + come)
            self._own = min(most, self._own + come)
            self._at = now
        return self.level

    def take(self, amount: float) -> None:
        """Take, or give back where negative; a debt is never more than a minute's allowance."""
        most = float(self.per_minute)
        self.level = max(-most, min(most, self.level - amount))
        self._own = max(-most, min(most, self._own - amount))
        self.spent += amount

    def stand(self, level: float, counted: float | None, now: float) -> None:
        """What is left over the whole fleet, where `counted` of what was spent here is in that already."""
        self.refill(now)
        if counted is not None:
            self.counted = counted
        self.level = max(-float(self.per_minute), min(self._own, level - (self.spent - self.counted)))

    def seconds_until(self, amount: float) -> float:
        """Until so much is in it; infinite where it never will be."""
        if amount > self.per_minute or self.per_minute == 0:
            return float("inf")
        return max(0.0, amount - self.level) * MINUTE_SECONDS / self.per_minute

    def resize(self, per_minute: int) -> None:
        """The key's record has changed: what was used stays used."""
        most, more = float(per_minute), per_minute - self.per_minute
        self.level = max(-most, min(self.level + more, most))
        self._own = max(-most, min(self._own + more, most))
        self.per_minute = per_minute


class OverQuota(NamedTuple):
    """Why a request may not run now."""

    kind: QuotaKind
    limit: int
    """A minute, or at once."""
    needed: int
    retry_seconds: float
    """Infinite: never, as the quota stands."""


class Quota:
    """All quotas of one key, in one process."""

    __slots__ = (
        "_told_in_flight",
        "concurrent_limit",
        "in_flight",
        "in_flight_elsewhere",
        "is_limited",
        "requests",
        "tokens",
    )

    def __init__(self) -> None:
        self.requests: Bucket | None = None
        self.tokens: Bucket | None = None
        self.concurrent_limit: int | None = None
        self.in_flight = 0
        self.in_flight_elsewhere = 0
        """In the fleet's other processes, as they last said."""
        self._told_in_flight = 0
        self.is_limited = False
        """Whether there is anything to count."""

    def configure(
        self,
        *,
        requests_per_minute: int | None,
        tokens_per_minute: int | None,
        concurrent_requests: int | None,
        now: float,
    ) -> None:
        """Set the limits; None: no limit. What is used already stays used."""
        self.requests = _resized(self.requests, requests_per_minute, now)
        self.tokens = _resized(self.tokens, tokens_per_minute, now)
        self.concurrent_limit = concurrent_requests
        limits = (requests_per_minute, tokens_per_minute, concurrent_requests)
        self.is_limited = any(limit is not None for limit in limits)

    def enter(self, now: float, *, takes_request: bool = True) -> OverQuota | None:
        """Count one request, or nothing; None: it may come in. `takes_request`: of those of a minute too.

        After None `leave` must be called once, when the request is over.
        """
        limit = self.concurrent_limit
        if limit is not None and self.in_flight + self.in_flight_elsewhere >= limit:
            wait = CONCURRENCY_RETRY_SECONDS if limit else float("inf")
            return OverQuota("concurrent", limit, 1, wait)
        requests = self.requests
        if requests is not None and takes_request:
            if requests.refill(now) < 1.0:
                return OverQuota("requests", requests.per_minute, 1, requests.seconds_until(1.0))
            requests.take(1.0)
        self.in_flight += 1
        return None

    def leave(self) -> None:
        """A request that came in is over."""
        self.in_flight -= 1

    def take(self, tokens: int, now: float) -> OverQuota | None:
        """Take the tokens of a request that came in, all of them or nothing; None: it may run.

        After None `settle` must be called once, when the request is over.
        """
        bucket = self.tokens
        if bucket is not None:
            if bucket.refill(now) < tokens:
                return OverQuota("tokens", bucket.per_minute, tokens, bucket.seconds_until(tokens))
            bucket.take(tokens)
        return None

    def settle(self, taken_tokens: int, used_tokens: int) -> None:
        """A request is over: the difference between what it took and what it used is paid or given back."""
        if self.tokens is not None and used_tokens != taken_tokens:
            self.tokens.take(used_tokens - taken_tokens)

    def report(self, key_id: str) -> Spending | None:
        """What the fleet must know of this key; None: it knows all, and nothing is under way."""
        requests, tokens = self.requests, self.tokens
        is_known = (requests is None or requests.spent == requests.counted) and (
            tokens is None or tokens.spent == tokens.counted
        )
        if is_known and not self.in_flight and not self._told_in_flight:
            return None
        self._told_in_flight = self.in_flight
        return Spending(
            key_id=key_id,
            requests=0.0 if requests is None else requests.spent,
            requests_counted=0.0 if requests is None else requests.counted,
            tokens=0.0 if tokens is None else tokens.spent,
            tokens_counted=0.0 if tokens is None else tokens.counted,
            in_flight=self.in_flight,
            requests_per_minute=None if requests is None else requests.per_minute,
            tokens_per_minute=None if tokens is None else tokens.per_minute,
        )

    def stand(self, standing: Standing, now: float) -> None:
        """Where the key stands in the fleet."""
        requests, tokens = (None, None) if standing.counted is None else standing.counted
        if self.requests is not None and standing.requests_level is not None:
            self.requests.stand(standing.requests_level, requests, now)
        if self.tokens is not None and standing.tokens_level is not None:
            self.tokens.stand(standing.tokens_level, tokens, now)
        self.in_flight_elsewhere = max(0, standing.in_flight_elsewhere)

    def stand_full(self, reported: Spending | None) -> None:
        """The fleet's book has forgotten it, for it is full: what was reported is counted."""
        self.in_flight_elsewhere = 0
        if reported is not None and self.requests is not None:
            self.requests.counted = reported.requests
        if reported is not None and self.tokens is not None:
            self.tokens.counted = reported.tokens


def _resized(bucket: Bucket | None, per_minute: int | None, now: float) -> Bucket | None:
    if per_minute is None:
        return None
    if bucket is None:
        return Bucket(per_minute, now)
    bucket.refill(now)
    if bucket.per_minute != per_minute:
        bucket.resize(per_minute)
    return bucket
