"""When a server is switched off and on (DESIGN §7). Pure: time is an argument.

Rules:

* off when its grant is 0 and its report, written since, says `dark`; or when the grant has been 0 for longer
  than the ride-through, whatever the report says: the cap outranks everything; and at once while it boots,
  for nothing runs on it yet;
* on when it is granted at least its idle draw (the allocator grants nothing less);
* off is never put off, on is: a server rests for `min_off_seconds` and starts at most `max_starts_per_hour`
  times, so that what wears it out is bounded, and staying off is always within the cap;
* where firm power covers the idle draw nothing presses: it must then have been on for `min_on_seconds`, and
  its grant 0 for `firm_wait_seconds`;
* a command that shows no effect is given again after `retry_seconds`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from fleet.records import SiteState

SwitchCommand = Literal["on", "off"]
HOUR_SECONDS = 3600.0


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
    """Of the latest report; None: there is none."""
    heard_at: float | None = None
    """When that report came."""
    ride_through_seconds: float = 5.0
    is_idle_firm: bool = False
    """Whether firm power covers its idle draw."""


@dataclass(slots=True, kw_only=True)
class ServerSwitch:
    """Decides for one server; remembers what it did."""

    rule: SwitchRule = SwitchRule()
    is_off: bool = False
    """Whether it is known to be off: it draws nothing."""
    _emptied_at: float | None = None
    """Since when its grant is 0."""
    _ordered: SwitchCommand | None = None
    _ordered_at: float = float("-inf")
    _on_at: float = float("-inf")
    _off_at: float = float("-inf")
    _starts: deque[float] = field(default_factory=deque)

    def is_starting(self, view: SwitchView, now: float) -> bool:
        """Switched on not long ago, and not heard since."""
        was_heard = view.heard_at is not None and view.heard_at >= self._on_at
        return self._ordered == "on" and not was_heard and now - self._on_at < self.rule.start_seconds

    def decide(self, view: SwitchView, now: float) -> SwitchCommand | None:
        """What to do now; None: nothing."""
        if view.granted_watts > 0:
            self._emptied_at = None
        elif self._emptied_at is None:
            self._emptied_at = now
        self._look(view, now)
        wanted: SwitchCommand | None = None
        if self._emptied_at is not None and not self.is_off and self._must_go(view, now, self._emptied_at):
            wanted = "off"
        elif view.granted_watts > 0 and self._is_down(view) and self._may_start(now):
            wanted = "on"
        if wanted is None or (wanted == self._ordered and now - self._ordered_at < self.rule.retry_seconds):
            return None
        if wanted == "on" and self._ordered != "on":
            self._starts.append(now)
            self._on_at = now
        self.is_off = self.is_off and wanted == "off"
        self._ordered, self._ordered_at = wanted, now
        return wanted

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

    def _is_down(self, view: SwitchView) -> bool:
        return view.is_on is False or self.is_off

    def _must_go(self, view: SwitchView, now: float, emptied_at: float) -> bool:
        if view.is_idle_firm:
            is_rested = now - self._on_at >= self.rule.min_on_seconds
            return is_rested and now - emptied_at >= self.rule.firm_wait_seconds
        if self.is_starting(view, now):
            return True
        is_dark = view.report_state == "dark" and view.heard_at is not None and view.heard_at > emptied_at
        return is_dark or now - emptied_at > view.ride_through_seconds

    def _may_start(self, now: float) -> bool:
        while self._starts and now - self._starts[0] >= HOUR_SECONDS:
            self._starts.popleft()
        is_again = self._ordered == "on"
        return is_again or (
            now - self._off_at >= self.rule.min_off_seconds
            and len(self._starts) < self.rule.max_starts_per_hour
        )
