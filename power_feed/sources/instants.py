"""From a source's time stamp to Unix seconds. Pure.

Rule: a time without an offset is read in the configured zone, and in none by default: it is refused. The hour
that a zone has twice in autumn is refused too, since a guess could be an hour wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from zoneinfo import ZoneInfo

from power_feed.sources.signals import SourceFaultError, number_of, shown

TimeFormat = Literal["iso8601", "unix_seconds", "unix_milliseconds"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeReader:
    """How a source writes its time stamps."""

    format: TimeFormat = "iso8601"
    zone: ZoneInfo | None = None
    """For times without an offset; None: they are refused."""
    shift_seconds: float = 0.0
    """Added: for means stamped with the begin of their interval, its length."""

    def unix_seconds(self, raw: object) -> float:
        """Raises SourceFaultError (`clock`): it is no time, or one that could be several."""
        if self.format != "iso8601":
            try:
                value = number_of(raw)
            except SourceFaultError as error:
                raise SourceFaultError("clock", f"time stamp: {error}") from None
            seconds = value / 1000 if self.format == "unix_milliseconds" else value
            if not 0 <= seconds <= 1e11:
                raise SourceFaultError("clock", f"time stamp {shown(raw)} is no Unix time ({self.format})")
            return seconds + self.shift_seconds
        if not isinstance(raw, str):
            raise SourceFaultError("clock", f"time stamp {shown(raw)} is no text: check time_format")
        try:
            instant = datetime.fromisoformat(raw.strip())
        except ValueError:
            message = f"time stamp {shown(raw)} is not ISO 8601: set time_format"
            raise SourceFaultError("clock", message) from None
        try:
            return self._in_zone(instant, raw).timestamp() + self.shift_seconds
        except (OverflowError, ValueError):
            raise SourceFaultError("clock", f"time stamp {shown(raw)} is out of range") from None

    def _in_zone(self, instant: datetime, raw: str) -> datetime:
        if instant.tzinfo is not None:
            return instant
        if self.zone is None:
            raise SourceFaultError(
                "clock", f"time stamp {shown(raw)} has no offset: set time_zone, for example 'UTC'"
            )
        first = instant.replace(tzinfo=self.zone)
        second = first.replace(fold=1)
        if first.utcoffset() != second.utcoffset():
            raise SourceFaultError(
                "clock", f"time stamp {shown(raw)} is ambiguous in {self.zone.key}: let the source write UTC"
            )
        return first.astimezone(UTC)
