"""How many requests of a batch are under way, when all of them wait, and what an answer means. Pure.

The window is TCP's: it doubles with each round of answers up to half of where it was refused last, grows by
one a round from there, and is halved by a refusal (once for all that were sent before it). A refusal that
says when to come back is for every request of the file: none is sent before.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal

import orjson

from replay.batch.records import NOT_FINAL_STATUS

FIRST_WINDOW = 8
MAX_TRIES = 6
"""Of a request that the server fails at, or whose connection breaks: within about half a minute."""
FIRST_DELAY_SECONDS = 1.0
MAX_DELAY_SECONDS = 60.0
"""Where nobody says when to come back."""
MAX_PAUSE_SECONDS = 3600.0
"""A longer Retry-After is taken for this."""
JITTER_RATIO = 0.2
"""Later than told, never earlier."""
HOPELESS_TRIES = 3
"""So many failed connections in a row before the first that works: the address is wrong. Later a router that
is away is waited for."""
UNREACHABLE = "unreachable"
TIER_REFUSED = "tier_not_allowed"
NEVER_FITS = b"never fits"
"""A router's word for a request that is larger than the whole quota."""

Verdict = Literal["final", "pause", "again", "stop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    body: bytes
    request_id: str = ""
    retry_after: bytes | None = None
    should_retry: bytes | None = None

    @property
    def code(self) -> str:
        """The error's; its status where it has none."""
        try:
            error = orjson.loads(self.body)["error"]
            code = error.get("code") or error["type"]
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            code = None
        return code if isinstance(code, str) else f"HTTP {self.status}"

    @property
    def retry_after_seconds(self) -> float | None:
        """None: it does not say, or not in seconds."""
        try:
            seconds = float(self.retry_after or b"")
        except ValueError:
            return None
        return min(seconds, MAX_PAUSE_SECONDS) if seconds >= 0 else None


def judge(answer: Answer, *, failures: int, names_tier: bool) -> Verdict:
    """What an answer means, after so many `failures` before it.

    - `stop`: the key is refused, or the tier that was chosen for all lines: so would the others be.
    - `pause`: come back later, all of you.
    - `again`: this one failed, and may work once more.
    - `final`: everything else.
    """
    if answer.status == 401 or (answer.status == 403 and answer.code == TIER_REFUSED and not names_tier):
        return "stop"
    if answer.status == 429 and answer.should_retry == b"false" and NEVER_FITS in answer.body:
        return "final"
    if answer.status == 429 or (answer.status == 503 and answer.retry_after_seconds is not None):
        return "pause"
    if answer.status >= 500 or answer.status in NOT_FINAL_STATUS:
        return "again" if failures + 1 < MAX_TRIES else "final"
    return "final"


def delay_seconds(failures: int, rng: Random) -> float:
    """Before a request is sent once more by itself."""
    longest: float = min(FIRST_DELAY_SECONDS * 2.0 ** min(failures, 16), MAX_DELAY_SECONDS)
    return longest * (1 + JITTER_RATIO * rng.random())


class Pace:
    """Who may be sent now. Instants are monotonic."""

    def __init__(self, limit: int, rng: Random) -> None:
        self._limit = limit
        self._rng = rng
        self._window = float(min(limit, FIRST_WINDOW))
        self._threshold = float(limit)
        self._refusals = 0
        """In a row; those of one round are one."""
        self._halved_at = float("-inf")
        self._was_reached = False
        self._paused_until = float("-inf")
        self.pause_reason = ""
        """The latest one's."""
        self.waited_seconds: dict[str, float] = {}
        """By reason, while nothing was sent for it."""

    @property
    def window(self) -> int:
        """Requests under way at once."""
        return int(self._window)

    @property
    def is_hopeless(self) -> bool:
        """Nobody has ever been there."""
        return not self._was_reached and self._refusals >= HOPELESS_TRIES

    def paused_seconds(self, now: float) -> float:
        """Until anything may be sent; 0: it may."""
        return max(0.0, self._paused_until - now)

    def has_room(self, in_flight: int) -> bool:
        """Whether one more fits into the window."""
        return in_flight < self.window

    def reached(self) -> None:
        """Somebody answered, whatever it was."""
        self._was_reached = True

    def succeeded(self) -> None:
        """A request was answered for good."""
        self._refusals = 0
        growth = 1.0 if self._window < self._threshold else 1.0 / self._window
        self._window = min(float(self._limit), self._window + growth)

    def refused(self, now: float, *, sent_at: float, reason: str, retry_after_seconds: float | None) -> None:
        """A request that was sent at `sent_at` is to come back later, or nobody was there."""
        if sent_at >= self._halved_at:
            self._halved_at = now
            self._refusals += 1
            if reason != UNREACHABLE:
                self._threshold = self._window = max(1.0, self._window / 2)
        if retry_after_seconds is None:
            seconds = delay_seconds(self._refusals - 1, self._rng)
        else:
            seconds = retry_after_seconds * (1 + JITTER_RATIO * self._rng.random())
        until = now + seconds
        more = until - max(now, self._paused_until)
        if more > 0:
            self.waited_seconds[reason] = self.waited_seconds.get(reason, 0.0) + more
            self._paused_until = until
            self.pause_reason = reason

    def close(self, now: float) -> None:
        """The run is over: what was left of a pause was not waited for."""
        if (left := self.paused_seconds(now)) > 0:
            self.waited_seconds[self.pause_reason] -= left
            self._paused_until = now
