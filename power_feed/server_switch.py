"""When a server is switched off and on (DESIGN §7). Pure: time is an argument.

Rules:

* off when its grant is 0 and its report, written since, says `dark`; or when it is 0 and the ride-through
  would be over by the next look, whatever the report says: the cap outranks everything. As at the agent,
  a grant that came back for less than `RECOVERY_SECONDS` begins no new ride-through. And at once while it
  boots, for nothing runs on it yet;
* a ride-through begins when the grant is 0 first, or earlier, where the power fell in steps, by the age that
  a report gives it: one that came since, or less than `RECOVERY_SECONDS` before. (An agent that has recovered
  between that report and the fall has less than a whole ride-through then: an early end, never a late one.)
  That age shortens what is left; it switches nothing off that has a grant;
* on when it is granted at least its idle draw (the allocator grants nothing less);
* off is never put off, on is: a server rests for `min_off_seconds` and starts at most `max_starts_per_hour`
  times, so that what wears it out is bounded, and staying off is always within the cap;
* where firm power covers the idle draw nothing presses: it must then have been on for `min_on_seconds`, and
  its grant 0 for `firm_wait_seconds`;
* a command that shows no effect is given again after `retry_seconds`;
* a switch that does not know the state is believed in nothing: a server that is granted power and shows no
  sign of life is told to start (which does nothing to one that runs), and reports outweigh a switch that
  says off, or has said so and says nothing now;
* a start that brings no report within `start_seconds` has failed: the next one waits as long, then twice that
  each time, up to an hour; one that ends because the power went has not failed, and a sign of life, late too,
  ends the wait.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Literal

from fleet.records import SiteState

SwitchCommand = Literal["on", "off"]
HOUR_SECONDS = 3600.0
LAST_WORDS_SECONDS = 5.0
"""A report that comes so long after the power went was written by a server that is on."""
RECOVERY_SECONDS = 5.0
"""With a grant for so long, the agent's ride-through begins anew (`ride_through_recovery_seconds`)."""
LOOK_SECONDS = 0.25
"""Between two decisions: a small part of the ride-through."""
ALIVE_SECONDS = 10.0
"""For so long after such a report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchRule:
    """Times of one server."""

    min_on_seconds: float = 300.0
    min_off_seconds: float = 120.0
    max_starts_per_hour: int = 4
    firm_wait_seconds: float = 300.0
    retry_seconds: float = 10.0
    start_seconds: float = 600.0
    """After so long without a report a server that was switched on counts as not heard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchView:
    """What is known of the server now."""

    granted_watts: float
    is_on: bool | None
    """As its management controller says; None: it does not say."""
    report_state: SiteState | None = None
    """Of the latest report that power was shared out by; None: there is none."""
    heard_at: float | None = None
    """When that report came."""
    is_listening: bool = False
    """Whether its agent has the feed's stream open."""
    ride_through_seconds: float = 5.0
    episode_seconds: float | None = None
    """Age of the ride-through that the agent is in, by that report; None: it is in none, or does not say."""
    is_idle_firm: bool = False
    """Whether firm power covers its idle draw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """What the allocator is told of a server."""

    is_off: bool = False
    """Known to draw nothing."""
    is_starting: bool = False
    """Switched on not long ago, and not heard since."""
    is_unheard: bool = False
    """It was on when the feed came up not long ago, and was not heard since: it may be booting."""
    is_lost: bool = False
    """It may be off, and nobody knows: only a grant gets it started."""
    is_resting: bool = False
    """It is off, or lost, and may not be started yet."""


NO_SWITCH = ServerState()
"""Of a site whose server is never switched."""


@dataclass(slots=True, kw_only=True)
class ServerSwitch:
    """Decides for one server; remembers what it did."""

    rule: SwitchRule = SwitchRule()
    is_off: bool = False
    """Whether it is known to be off: it draws nothing."""
    _emptied_at: float | None = None
    """Since when its grant is 0."""
    _short_at: float | None = None
    """When the ride-through began that the agent is in: by its grant, or earlier by its word."""
    _granted_at: float | None = None
    """Since when it has a grant."""
    _ordered: SwitchCommand | None = None
    _ordered_at: float = float("-inf")
    _told_at: float = float("-inf")
    """When it was ordered first; `_ordered_at`: when it was told again last."""
    _on_at: float = float("-inf")
    _off_at: float = float("-inf")
    _starts: deque[float] = field(default_factory=deque)
    _began_at: float | None = None
    _said_off_at: float | None = None
    """Since when its switch says, without a break, that it is off."""
    _failed_starts: int = 0
    """In a row."""
    _is_start_open: bool = False
    """Whether it is still to be seen if the last start comes to anything."""
    _rest_until: float = float("-inf")

    def is_starting(self, view: SwitchView, now: float) -> bool:
        """Switched on not long ago, and not heard since."""
        is_fresh = now - self._on_at < self.rule.start_seconds
        return self._ordered == "on" and not self._was_heard_since_start(view) and is_fresh

    def state(self, view: SwitchView, now: float) -> ServerState:
        """For the allocator; its grant does not matter to it."""
        is_lost = self._is_lost(view, now)
        is_starting = self.is_starting(view, now)
        return ServerState(
            is_off=self.is_off,
            is_starting=is_starting,
            is_unheard=self._is_unheard(view, now),
            is_lost=is_lost,
            is_resting=(self.is_off or is_lost) and not is_starting and not self._is_rested(now),
        )

    def decide(self, view: SwitchView, now: float) -> SwitchCommand | None:
        """What to do now; None: nothing."""
        self._began_at = now if self._began_at is None else self._began_at
        view = self._believed(view, now)
        self._judge_start(view, now)
        self._note_grant(view.granted_watts, now)
        self._note_episode(view)
        self._look(view, now)
        wanted: SwitchCommand | None = None
        if self._emptied_at is not None and not self.is_off and self._must_go(view, now, self._emptied_at):
            wanted = "off"
        elif view.granted_watts > 0 and self._is_down(view, now) and self._may_start(now):
            wanted = "on"
        if wanted is None or (wanted == self._ordered and now - self._ordered_at < self.rule.retry_seconds):
            return None
        if wanted == "on" and not self._is_told_again(now):
            self._starts.append(now)
            self._on_at = now
            self._is_start_open = True
        if wanted == "off":
            self._is_start_open = False  # it had no time to come to anything
        if wanted != self._ordered:
            self._told_at = now
        self.is_off = self.is_off and wanted == "off"
        self._ordered, self._ordered_at = wanted, now
        return wanted

    def _note_grant(self, granted_watts: float, now: float) -> None:
        if granted_watts > 0:
            self._emptied_at = None
            self._granted_at = now if self._granted_at is None else self._granted_at
            return
        if self._short_at is None or (
            self._granted_at is not None and now - self._granted_at >= RECOVERY_SECONDS
        ):
            self._short_at = now
        self._granted_at = None
        self._emptied_at = now if self._emptied_at is None else self._emptied_at

    def _note_episode(self, view: SwitchView) -> None:
        """No age is older than the ride-through was when its report came."""
        age, heard_at = view.episode_seconds, view.heard_at
        if self._emptied_at is None or self._short_at is None or age is None or heard_at is None:
            return
        if age >= 0 and heard_at >= self._emptied_at - RECOVERY_SECONDS:
            self._short_at = min(self._short_at, heard_at - min(age, view.ride_through_seconds))

    def _believed(self, view: SwitchView, now: float) -> SwitchView:
        """With reports of a server that is said to be off, or was by its switch's last word, it is on."""
        if view.is_on or (view.is_on is None and not self.is_off):
            self._said_off_at = None
            return view
        self._said_off_at = now if self._said_off_at is None else self._said_off_at
        if view.heard_at is None or now - view.heard_at > ALIVE_SECONDS:
            return view
        is_alive = view.heard_at - self._said_off_at > LAST_WORDS_SECONDS
        return replace(view, is_on=True) if is_alive else view

    def _judge_start(self, view: SwitchView, now: float) -> None:
        """It has come to something once it is heard, late too, and to nothing after `start_seconds`."""
        if view.is_listening or self._was_heard_since_start(view):
            self._is_start_open, self._failed_starts, self._rest_until = False, 0, float("-inf")
        elif self._is_start_open and now - self._on_at >= self.rule.start_seconds:
            self._is_start_open = False
            rest = min(HOUR_SECONDS, self.rule.start_seconds * 2.0 ** min(self._failed_starts, 16))
            self._failed_starts += 1
            self._rest_until = now + rest

    def _is_unheard(self, view: SwitchView, now: float) -> bool:
        if self._ordered is not None or view.is_on is False or view.heard_at is not None:
            return False
        return self._began_at is not None and now - self._began_at < self.rule.start_seconds

    def _was_heard_since_start(self, view: SwitchView) -> bool:
        return view.heard_at is not None and view.heard_at >= self._on_at

    def _look(self, view: SwitchView, now: float) -> None:
        """It is off once its controller says so after it was told; and on from the moment it is told to
        be.
        """
        was_off = self.is_off
        if view.is_on is None:
            self.is_off = self.is_off and self._ordered != "on"
        else:
            self.is_off = not view.is_on and self._ordered != "on"
        if view.is_on and self._ordered is None:
            self._on_at = max(self._on_at, now - self.rule.min_on_seconds)
        if self.is_off and not was_off:
            self._off_at = now if self._ordered == "off" else now - self.rule.min_off_seconds

    def _is_down(self, view: SwitchView, now: float) -> bool:
        return view.is_on is False or self.is_off or self._is_lost(view, now)

    def _is_lost(self, view: SwitchView, now: float) -> bool:
        """Its switch does not know, and there is no sign of life: none at all since this feed began, or since
        it was told to be what it should be now, `retry_seconds` ago; or none more for `start_seconds`.
        """
        if view.is_on is not None or self.is_off or view.is_listening or self._began_at is None:
            return False
        since = max(self._began_at, self._told_at)
        if view.heard_at is not None and view.heard_at >= since:
            return now - view.heard_at >= self.rule.start_seconds
        return now - since >= self.rule.retry_seconds

    def _must_go(self, view: SwitchView, now: float, emptied_at: float) -> bool:
        if view.is_idle_firm:
            is_rested = now - self._on_at >= self.rule.min_on_seconds
            return is_rested and now - emptied_at >= self.rule.firm_wait_seconds
        if self.is_starting(view, now):
            return True
        is_dark = view.report_state == "dark" and view.heard_at is not None and view.heard_at > emptied_at
        short_at = emptied_at if self._short_at is None else self._short_at
        return is_dark or now + LOOK_SECONDS - short_at >= view.ride_through_seconds

    def _is_told_again(self, now: float) -> bool:
        """Within a start that was ordered already."""
        return self._ordered == "on" and now - self._on_at < self.rule.start_seconds

    def _may_start(self, now: float) -> bool:
        is_off_long_enough = now - self._off_at >= self.rule.min_off_seconds
        return self._is_told_again(now) or (is_off_long_enough and self._is_rested(now))

    def _is_rested(self, now: float) -> bool:
        """After a start that failed, and after too many."""
        while self._starts and now - self._starts[0] >= HOUR_SECONDS:
            self._starts.popleft()
        return now >= self._rest_until and len(self._starts) < self.rule.max_starts_per_hour
