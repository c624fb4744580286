"""Where a live source's newest measurement lies, and which may lie there. Pure.

Rule: nothing is mended, and nothing that is no measurement of the wind passes as one:

    older than the newest              dropped: messages overtake each other
    of the newest's own time           the same again; shown again where something unusable came between
    beyond `MAX_AHEAD_SECONDS` ahead   refused: a wrong clock would make it count as fresh for ever
    a little ahead                     taken as measured now
    the same again within half a period, without a time of its own   the same measurement heard twice
    no number, or no time              the newest is not shown until a newer one comes
    produced while curtailed, or while the signal is unknown   kept, but shown as not measured (DESIGN §8)
"""

from __future__ import annotations

from dataclasses import dataclass

from power_feed.sources.interface import Measurement, Measures
from power_feed.sources.signals import SourceFaultError

MAX_AHEAD_SECONDS = 5.0
"""Clocks of one farm differ by less; more is a wrong clock or a wrong time zone."""


@dataclass(slots=True, kw_only=True)
class Latest:
    """The newest measurement of one source."""

    period_seconds: float = 0.0
    """Between two measurements; 0: not known."""
    measures: Measures = "available"
    needs_curtailment: bool = False
    """A curtailment signal is configured: without its word, produced power is not used."""
    _newest: Measurement | None = None
    _stamp: float | None = None
    """The newest's own time as its source wrote it, a little ahead maybe; None: it has none."""
    _is_unusable: bool = False
    """What came last was no measurement."""
    _changed_at: float = 0.0
    _is_curtailed: bool | None = None
    """None: not known."""

    def put(self, watts: float, *, observed_at: float | None, now: float) -> bool:
        """Take a measurement; whether that changes what is shown. Both times in Unix seconds.

        `observed_at` None: it has no time of its own, it is of now.

        Raises:
            SourceFaultError: `clock`, it is of the future, or of before 1970.
        """
        observed = now if observed_at is None else observed_at
        if observed > now + MAX_AHEAD_SECONDS:
            raise SourceFaultError(
                "clock",
                f"a measurement of {observed - now:.0f} s in the future: correct the source's clock, or "
                "time_zone in the configuration",
            )
        if observed < 0:  # an OPC UA server without a clock says 1601
            raise SourceFaultError(
                "clock",
                "a measurement of before 1970: the source has no clock; take the time of arrival (OPC UA: "
                'timestamp = "arrival"; elsewhere: leave time_path out)',
            )
        newest = self._newest
        if newest is not None and observed_at is not None and observed_at == self._stamp:
            return self._show_again(watts == newest.watts, now)
        observed = min(observed, now)
        # a clock of ours that was set back must not lock the door
        if newest is not None and observed <= newest.observed_at_unix_seconds <= now:
            return False
        if observed_at is None and self._is_heard_twice(watts, now):
            return False
        self._newest = Measurement(observed_at_unix_seconds=observed, watts=watts)
        self._stamp = observed_at
        self._is_unusable = False
        self._changed_at = now
        return True

    def _show_again(self, is_same: bool, now: float) -> bool:
        """The newest, if it is whole again."""
        is_change = is_same and self._is_unusable
        if is_change:
            self._is_unusable = False
            self._changed_at = now
        return is_change

    def _is_heard_twice(self, watts: float, now: float) -> bool:
        """A subscription and a read of one sample are no two measurements that agree with each other."""
        newest = self._newest
        if newest is None or self._is_unusable or watts != newest.watts:
            return False
        return 0 <= now - newest.observed_at_unix_seconds < self.period_seconds / 2

    def put_unusable(self, *, now: float) -> None:
        """Something came for a measurement that is none."""
        self._is_unusable = True
        self._changed_at = now

    def signal(self, is_curtailed: bool | None, *, now: float) -> bool:
        """Take the curtailment signal's word; whether it changed anything."""
        is_changed = is_curtailed != self._is_curtailed
        self._is_curtailed = is_curtailed
        if is_changed:
            self._changed_at = now
        return is_changed

    def measurement(self) -> Measurement:
        """The newest; without a value before the first, and while production is no measure of the wind."""
        if self._newest is None:
            return Measurement(observed_at_unix_seconds=0.0, watts=None)
        if self._is_unusable or (self.needs_curtailment and self._is_curtailed is not False):
            return Measurement(observed_at_unix_seconds=self._newest.observed_at_unix_seconds, watts=None)
        return self._newest

    def changed_after(self, at_unix_seconds: float) -> float | None:
        """When something last changed, if that was after the instant; nothing is known of the future."""
        return self._changed_at if self._changed_at > at_unix_seconds else None
