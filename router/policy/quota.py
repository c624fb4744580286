"""What one API key may use: requests a minute, tokens a minute, requests at once. Pure: time is an argument.

Each quota is a bucket that holds a minute's allowance and refills evenly. A request is counted before its
body is looked at, for that costs more than all the rest. Its tokens are known after that: it takes what it is
expected to need and gives back, or pays, the difference when it is over. A bucket is one router process's
own: several of them allow several times as much, until quotas are shared over the fleet (docs/admission.md).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

MINUTE_SECONDS = 60.0
CONCURRENCY_RETRY_SECONDS = 1.0
"""When one of many requests ends is not known; within seconds."""

QuotaKind = Literal["requests", "tokens", "concurrent"]


class Bucket:
    """Mutable; `now` is monotonic seconds. Holds at most a minute's allowance, and owes at most as much."""

    __slots__ = ("_at", "level", "per_minute")

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self.level = float(per_minute)
        self._at = now

    def refill(self, now: float) -> float:
        """What is in it now."""
        if now > self._at:
            most = float(self.per_minute)
            self.level = min(most, self.level + (now - self._at) * most / MINUTE_SECONDS)
            self._at = now
        return self.level

    def take(self, amount: float) -> None:
        """Take, or give back where negative; a debt is never more than a minute's allowance."""
        most = float(self.per_minute)
        self.level = max(-most, min(most, self.level - amount))

    def seconds_until(self, amount: float) -> float:
        """Until so much is in it; infinite where it never will be."""
        if amount > self.per_minute or self.per_minute == 0:
            return float("inf")
        return max(0.0, amount - self.level) * MINUTE_SECONDS / self.per_minute

    def resize(self, per_minute: int) -> None:
        """The key's record has changed: what was used stays used."""
        self.level = max(
            -float(per_minute), min(self.level + per_minute - self.per_minute, float(per_minute))
        )
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
    """All quotas of one key. None of its figures is shared between processes."""

    __slots__ = ("concurrent_limit", "in_flight", "is_limited", "requests", "tokens")

    def __init__(self) -> None:
        self.requests: Bucket | None = None
        self.tokens: Bucket | None = None
        self.concurrent_limit: int | None = None
        self.in_flight = 0
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
        if limit is not None and self.in_flight >= limit:
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


def _resized(bucket: Bucket | None, per_minute: int | None, now: float) -> Bucket | None:
    if per_minute is None:
        return None
    if bucket is None:
        return Bucket(per_minute, now)
    bucket.refill(now)
    if bucket.per_minute != per_minute:
        bucket.resize(per_minute)
    return bucket
