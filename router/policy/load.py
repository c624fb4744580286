"""What this router itself knows of one model at one site beyond the last report: what it has in flight there,
what answers said since, pushbacks, and the pace of resumes. Pure: time is an argument.

The room that is left = the newest figure the site gave, less what this router has added to it since. So
replicas neither divide the headroom nor spend it twice between two reports (DESIGN §5, Choose).
"""

from __future__ import annotations

from router.policy.breaker import Breaker
from router.policy.snapshot import ModelView

UNKNOWN_HEADROOM_REQUESTS = 8.0
"""In flight at once at a site that says nothing of its room: enough to batch, little enough to be wrong."""
MIN_UNKNOWN_REQUESTS = 1.0
MAX_UNKNOWN_REQUESTS = 4096.0
UNKNOWN_SHRINK_RATIO = 0.5
"""On a pushback; each answered request grows the figure by one part of itself (additive increase)."""
MAX_BLOCK_SECONDS = 5.0
"""A foreign retry-after is obeyed up to here: a fresh report says sooner and better."""
DEFAULT_BLOCK_SECONDS = {"power": 1.0, "draining": 1.0, "capacity": 0.2}
RELEASE_BURST_SECONDS = 0.5
"""Prompts of released work may be this far ahead of the target's prefill before the next one waits."""
IN_TRANSIT_SECONDS = 0.1
"""What was sent so lately, and not answered, may not be in a figure that comes in now: the site may not have
seen it yet. Requests go out in bursts, and a figure from before the burst would be spent twice."""


class Load:
    """Mutable, one per (site, model)."""

    __slots__ = (
        "_answered",
        "_baseline",
        "_blocked_until",
        "_prefill_clear_at",
        "_sent",
        "_sent_before",
        "_slot_at",
        "_unknown_limit",
        "breaker",
        "in_flight",
        "unanswered",
    )

    def __init__(self, breaker: Breaker) -> None:
        self.breaker = breaker
        """The site's."""
        self.in_flight = 0
        self._baseline = 0
        """In flight when the newest figure was given: those are in the figure already."""
        self._answered: float | None = None
        self._blocked_until = 0.0
        self._unknown_limit = UNKNOWN_HEADROOM_REQUESTS
        self._prefill_clear_at = 0.0
        self.unanswered = 0
        """Of those in flight, the ones of which the site has not said a word yet."""
        self._slot_at = float("-inf")
        """When the present slot of IN_TRANSIT_SECONDS began, with the counts of it and of the one before."""
        self._sent = 0
        self._sent_before = 0

    def sent(self, now: float) -> None:
        """A request goes there."""
        self.in_flight += 1
        self.unanswered += 1
        age = now - self._slot_at
        if age >= IN_TRANSIT_SECONDS:
            self._sent_before = self._sent if age < 2 * IN_TRANSIT_SECONDS else 0
            self._sent = 0
            self._slot_at = now
        self._sent += 1

    def reported(self, view: ModelView) -> None:
        """A newer report came: what was added since the one before is in it."""
        self._answered = None
        self._baseline = self.in_flight - self._in_transit(view.arrived_at)
        if view.headroom_requests is not None and view.headroom_requests > 0:
            self._blocked_until = 0.0

    def answered(self, headroom_requests: float, now: float = float("inf")) -> None:
        """An answer carried the room left after it (`x-heron-headroom`)."""
        self._answered = headroom_requests
        self._baseline = self.in_flight - self._in_transit(now)

    def pushed_back(self, reason: str, retry_after_seconds: float | None, now: float) -> None:
        """The site said "not here"."""
        wait = DEFAULT_BLOCK_SECONDS.get(reason, DEFAULT_BLOCK_SECONDS["capacity"])
        if retry_after_seconds is not None:
            wait = min(max(retry_after_seconds, 0.0), MAX_BLOCK_SECONDS)
        self._blocked_until = max(self._blocked_until, now + wait)
        self._answered = 0.0
        self._baseline = self.in_flight
        self._unknown_limit = max(
            MIN_UNKNOWN_REQUESTS, min(self._unknown_limit, self.in_flight) * UNKNOWN_SHRINK_RATIO
        )

    def finished(self) -> None:
        """A request was answered there."""
        if self._unknown_limit < MAX_UNKNOWN_REQUESTS:
            self._unknown_limit += 1.0 / self._unknown_limit

    def room(self, view: ModelView, now: float, is_expired: bool) -> float:
        """Further requests that fit there, as far as is known; below 1 means none.

        An expired report's figures count as unknown, and so does an answer older than it.
        """
        if now < self._blocked_until:
            return 0.0
        known = view.headroom_requests if self._answered is None else self._answered
        if view.headroom_requests is None or is_expired or known is None:
            return self._unknown_limit - self.in_flight
        return known - (self.in_flight - self._baseline)

    def can_prefill(self, now: float) -> bool:
        """Whether a held or resumed prompt may go there now, or those before it are still being read."""
        return now >= self._prefill_clear_at - RELEASE_BURST_SECONDS

    def release(self, prompt_tokens: int, view: ModelView, now: float) -> None:
        """Work that waited, or a stream that lost its site, goes there; the next prompts are paced by the
        site's prefill rate, where known."""
        if view.prefill_tokens_per_second:
            start = max(now, self._prefill_clear_at)
            self._prefill_clear_at = start + prompt_tokens / view.prefill_tokens_per_second

    def _in_transit(self, now: float) -> int:
        """How many of those in flight the site may not have seen."""
        age = now - self._slot_at
        if age >= 2 * IN_TRANSIT_SECONDS:
            return 0
        lately = self._sent if age >= IN_TRANSIT_SECONDS else self._sent + self._sent_before
        return min(lately, self.unanswered)
