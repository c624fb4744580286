"""What this router itself knows of one model at one site beyond the last report: what it has in flight there,
what answers said since, pushbacks, and the pace of resumes and held work. Pure: time is an argument.

The room that is left = the newest figure the site gave, less what this router has added to it since. So
replicas neither divide the headroom nor spend it twice between two reports (DESIGN §5, Choose). Workers of
one router share their counts (`Shared`), so that together they take what one alone would take.
"""

from __future__ import annotations

from router.policy.breaker import Breaker
from router.policy.shared_load import Shared
from router.policy.snapshot import ModelView

UNKNOWN_HEADROOM_REQUESTS = 8.0
"""In flight at once at a site that says nothing of its room: enough to batch, little enough to be wrong."""
MIN_UNKNOWN_REQUESTS = 1.0
MAX_UNKNOWN_REQUESTS = 4096.0
UNKNOWN_SHRINK_RATIO = 0.5
"""On a pushback; each answered request grows the figure by one part of itself (additive increase), while at
least half of it is in use: room that nobody ever tried is not known to be there."""
MAX_BLOCK_SECONDS = 5.0
"""A foreign retry-after is obeyed up to here: a fresh report says sooner and better."""
DEFAULT_BLOCK_SECONDS = {"power": 1.0, "draining": 1.0, "capacity": 0.2}
FIGURE_BITS = 32
FIGURE_MASK = (1 << FIGURE_BITS) - 1
RESUME_BURST_SECONDS = 0.5
"""Resumed prompts may be this far ahead of the target's prefill before the next one waits."""
MOST_RESUME_SECONDS = 10.0
"""No further, whatever rate the site reports: a site that was slow once is asked again."""


class KvCache:
    """What a site's engines have cached between two stops. Its identity is all that is known of it."""

    __slots__ = ("alone", "site_id")

    def __init__(self, site_id: str = "") -> None:
        self.alone = (self,)
        self.site_id = site_id
        """Where it is; "" where nobody asks."""


class Load:
    """Mutable, one per (site, model)."""

    __slots__ = (
        "_baseline",
        "_blocked_until",
        "_figure",
        "_prefill_clear_at",
        "_sent_before",
        "_sent_earlier",
        "_shared",
        "_unknown_limit",
        "_worked_off_at",
        "breaker",
        "in_flight",
        "kv_cache",
        "mean_in_flight",
        "round_trip_seconds",
        "sent",
    )

    def __init__(self, breaker: Breaker, site_id: str = "") -> None:
        self.breaker = breaker
        """The site's."""
        self.round_trip_seconds: float | None = None
        """Between this router and the site, on the network alone; None: not measured."""
        self.in_flight = 0
        """Of this worker. Changed by `begin` and `end` only."""
        self.sent = 0
        """All requests of this worker so far."""
        self.kv_cache = KvCache(site_id)
        """Another one once the site has been without an engine."""
        self.mean_in_flight = 0.0
        """Over the decisions that had to know (`router.policy.affinity`)."""
        self._sent_before = 0
        self._sent_earlier = 0
        self._shared: Shared | None = None
        """None where nobody else shares the site's room by this router."""
        self._baseline = 0
        """In flight when the newest figure was given: those are in the figure already."""
        self._figure: float | None = None
        """The newest figure of room, where no other process shares it."""
        self._blocked_until = 0.0
        self._unknown_limit = UNKNOWN_HEADROOM_REQUESTS
        self._prefill_clear_at = 0.0
        self._worked_off_at = float("-inf")

    def share(self, shared: Shared) -> None:
        """From now on other workers' requests count as well; what was shared before moves there."""
        if self._shared is not None:
            self._shared.in_flight[self._shared.own] -= self.in_flight
        shared.in_flight[shared.own] += self.in_flight
        self._shared = shared

    def begin(self) -> None:
        """A request goes there."""
        self.in_flight += 1
        self.sent += 1
        shared = self._shared
        if shared is not None:
            shared.in_flight[shared.own] += 1

    def end(self) -> None:
        """It is over there."""
        self.in_flight -= 1
        shared = self._shared
        if shared is not None:
            shared.in_flight[shared.own] -= 1

    def total_in_flight(self) -> int:
        """Of this router, whatever number of workers it has."""
        return self.in_flight if self._shared is None else sum(self._shared.in_flight)

    def reported(self, view: ModelView) -> None:
        """A newer report came: what the site had of ours is in it. What was on its way there is not."""
        if view.ready_instances == 0:
            self.kv_cache = KvCache(self.kv_cache.site_id)
        shared = self._shared
        if view.headroom_requests is not None and (shared is None or shared.takes_reports):
            there = self.total_in_flight()
            if view.running_requests is not None:
                there = min(there, view.running_requests + (view.waiting_requests or 0))
            self._set_figure(view.headroom_requests, there)
        if view.headroom_requests is not None and view.headroom_requests > 0:
            self._blocked_until = 0.0

    def answered(self, headroom_requests: float) -> None:
        """An answer carried the room left after it (`x-heron-headroom`). It may only lower the figure: it
        knows nothing of what is on its way, and what ends is counted here anyway.
        """
        room = self._room_left()
        if room is None or headroom_requests < room:
            self._set_figure(headroom_requests, self.total_in_flight())

    def pushed_back(self, reason: str, retry_after_seconds: float | None, now: float) -> None:
        """The site said "not here"."""
        wait = DEFAULT_BLOCK_SECONDS.get(reason, DEFAULT_BLOCK_SECONDS["capacity"])
        if retry_after_seconds is not None:
            wait = min(max(retry_after_seconds, 0.0), MAX_BLOCK_SECONDS)
        self._blocked_until = max(self._blocked_until, now + wait)
        self._set_figure(0.0, self.total_in_flight())
        self._unknown_limit = max(
            MIN_UNKNOWN_REQUESTS, min(self._unknown_limit, self.total_in_flight()) * UNKNOWN_SHRINK_RATIO
        )

    def finished(self) -> None:
        """A request was answered there."""
        limit = self._unknown_limit
        if limit < MAX_UNKNOWN_REQUESTS and 2 * self.total_in_flight() >= limit:
            self._unknown_limit = limit + 1.0 / limit

    @property
    def recent(self) -> int:
        """Requests sent since the turn of the window before the last."""
        return self.sent - self._sent_earlier

    def turn_window(self) -> None:
        """A window of recent requests is over."""
        self._sent_earlier, self._sent_before = self._sent_before, self.sent

    def is_blocked(self, now: float) -> bool:
        """The site has just said "not here"."""
        return now < self._blocked_until

    def room(self, view: ModelView, now: float, is_expired: bool) -> float:
        """Further requests that fit there, as far as is known; below 1 means none.

        An expired report's figures count as unknown.
        """
        if now < self._blocked_until:
            return 0.0
        if view.headroom_requests is None or is_expired:
            return self._unknown_limit - self.total_in_flight()
        if self._shared is None and self._figure is not None:  # as in `_room_left`; this is the hot path
            return self._figure - (self.in_flight - self._baseline)
        room = self._room_left()
        return view.headroom_requests - self.in_flight if room is None else room

    def added_since(self, view: ModelView) -> float:
        """Requests that this router has in flight there beyond those in the newest figure; may be negative.

        Those that ended since are taken off. Without a figure: all that it has there.
        """
        shared = self._shared
        if shared is not None:
            return sum(shared.in_flight) - (shared.figure[0] & FIGURE_MASK)
        return self.in_flight if view.headroom_requests is None else self.in_flight - self._baseline

    def _room_left(self) -> float | None:
        """The newest figure, less what was added since; None before the first."""
        shared = self._shared
        if shared is not None:
            figure = shared.figure[0]
            return (figure >> FIGURE_BITS) - (sum(shared.in_flight) - (figure & FIGURE_MASK))
        return None if self._figure is None else self._figure - (self.in_flight - self._baseline)

    def _set_figure(self, room: float, baseline: int) -> None:
        """The newest figure of anybody; `baseline` of what is in flight is in it already."""
        if self._shared is None:
            self._figure = room
            self._baseline = baseline
        else:
            whole = int(min(room, FIGURE_MASK >> 1))
            self._shared.figure[0] = (whole << FIGURE_BITS) | baseline

    def can_prefill(self, now: float) -> bool:
        """Whether a resume's prompt may go there now, or those before it are still being read."""
        return now >= self._clear_at() - RESUME_BURST_SECONDS

    def send_resume(self, prompt_tokens: int, view: ModelView, now: float) -> None:
        """A resumed prompt goes there; the next ones are paced by the site's prefill rate, where known."""
        if view.prefill_tokens_per_second:
            start = max(now, self._clear_at())
            clear_at = min(start + prompt_tokens / view.prefill_tokens_per_second, now + MOST_RESUME_SECONDS)
            if self._shared is None:
                self._prefill_clear_at = clear_at
            else:
                self._shared.prefill_clear_at[0] = clear_at

    def work_left_seconds(self, now: float) -> float:
        """Until the site has worked off what `give_work` was told, by all workers; 0 or less: it has."""
        return (self._worked_off_at if self._shared is None else self._shared.worked_off_at[0]) - now

    def give_work(self, seconds: float, now: float, most_seconds: float) -> None:
        """A request goes there that takes the site so long; no more than `most_seconds` is kept in mind."""
        worked_off_at = now + min(max(0.0, self.work_left_seconds(now)) + seconds, most_seconds)
        if self._shared is None:
            self._worked_off_at = worked_off_at
        else:
            self._shared.worked_off_at[0] = worked_off_at

    def _clear_at(self) -> float:
        """When the prompts of earlier resumes will have been read there."""
        if self._shared is None:
            return self._prefill_clear_at
        return self._shared.prefill_clear_at[0]
