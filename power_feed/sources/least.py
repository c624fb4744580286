"""The least of several sources: a record of wind with a curtailment or trip scripted over it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from power_feed.sources.interface import Measurement, Measures, Source

SILENT_PERIODS = 3.0
"""Of its own, after which a source says nothing any more, as a feed's single one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Least:
    """What all of the sources allow. As slow as the slowest, and without a value where one has none."""

    sources: Sequence[Source]
    """At least one."""

    @property
    def description(self) -> str:
        return ("least of " + ", ".join(source.description for source in self.sources))[:512]

    @property
    def measures(self) -> Measures:
        produced = any(source.measures == "produced" for source in self.sources)
        return "produced" if produced else "available"

    @property
    def period_seconds(self) -> float:
        return max(source.period_seconds for source in self.sources)

    @property
    def speed(self) -> float:
        """That of the slowest clock: a ramp is judged by the strictest measure."""
        return min(source.speed for source in self.sources)

    def measurement(self, at_unix_seconds: float) -> Measurement:
        """The smallest power, observed when the newest of them was; none where one has no number or has
        fallen silent, which the others would hide. It is a repeat where only the others have a newer one.
        """
        found = [source.measurement(at_unix_seconds) for source in self.sources]
        observed_at = max(measurement.observed_at_unix_seconds for measurement in found)
        least: Measurement | None = None
        for source, measurement in zip(self.sources, found, strict=True):
            age_seconds = at_unix_seconds - measurement.observed_at_unix_seconds
            watts = measurement.watts
            if watts is None or math.isnan(watts) or age_seconds > SILENT_PERIODS * source.period_seconds:
                return Measurement(observed_at_unix_seconds=observed_at, watts=None)
            if least is None or least.watts is None or watts < least.watts:
                least = measurement
        assert least is not None, "there is at least one"
        is_repeat = least.is_repeat or least.observed_at_unix_seconds < observed_at
        return replace(least, observed_at_unix_seconds=observed_at, is_repeat=is_repeat)

    def next_change_after(self, at_unix_seconds: float) -> float | None:
        """The first change of any of them."""
        changes = [source.next_change_after(at_unix_seconds) for source in self.sources]
        return min((change for change in changes if change is not None), default=None)
