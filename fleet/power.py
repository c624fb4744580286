"""The cap, its walk-down, and the account of time above it (DESIGN §7). Pure: time is an argument.

The same account (`RideThroughAccount`) serves the governor, the simulator and whoever judges them.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class CapRule:
    """What turns a grant into a cap."""

    max_site_watts: float
    margin_ratio: float = 0.05
    safe_floor_watts: float = 0.0
    """Firm power, there whatever the wind does. Above 0 only with a named source."""

    def cap_watts(self, granted_power_watts: float) -> float:
        """min(max(grant × (1 − margin), floor), site maximum)."""
        return min(
            max(granted_power_watts * (1 - self.margin_ratio), self.safe_floor_watts), self.max_site_watts
        )


MAX_PERIOD_WITHOUT_FEED_SECONDS = 10.0
WALK_START_PERIODS = 3.0
WALK_END_PERIODS = 10.0


@dataclass(slots=True, kw_only=True)
class CapTracker:
    """The cap over time: follows good readings, and walks down when none comes (DESIGN §7).

    T = the reading's period, at most 10 s while nothing at all is heard. After 3 T without a new good
    measurement the cap falls linearly and reaches the safe floor at 10 T. A suspect or fallback reading may
    lower the cap, never raise it, and does not stop the walk.
    """

    rule: CapRule
    _granted_watts: float | None = None
    _period_seconds: float = MAX_PERIOD_WITHOUT_FEED_SECONDS
    _good_at: float = field(default=float("-inf"))
    _heard_at: float = field(default=float("-inf"))
    _last_observed: float = field(default=float("-inf"))

    def observe(
        self,
        *,
        granted_watts: float,
        period_seconds: float,
        quality: str,
        observed_at_unix_seconds: float,
        now: float,
    ) -> None:
        """Take one reading that arrived at `now` (monotonic). `quality` as on the wire.

        A repeat of a measurement already seen (same observation time) counts as hearing the feed, not as a
        new measurement, so a frozen source walks down.
        """
        self._heard_at = now
        if quality == "good":
            self._granted_watts = granted_watts
            self._period_seconds = period_seconds
            if observed_at_unix_seconds > self._last_observed:
                self._last_observed = observed_at_unix_seconds
                self._good_at = now
        elif self._granted_watts is None or granted_watts < self._granted_watts:
            self._granted_watts = granted_watts if self._granted_watts is not None else 0.0

    def cap_watts(self, now: float) -> float:
        """The cap at `now`; before any reading it is the safe floor."""
        floor = self.rule.cap_watts(0.0)
        if self._granted_watts is None:
            return floor
        cap = self.rule.cap_watts(self._granted_watts)
        period = self.period_seconds(now)
        silent = now - self._good_at
        start, end = WALK_START_PERIODS * period, WALK_END_PERIODS * period
        if silent <= start:
            return cap
        left = max(0.0, (end - silent) / (end - start))
        return floor + max(0.0, cap - floor) * left

    def period_seconds(self, now: float) -> float:
        """T: the source's period, at most 10 s when the feed itself has been silent for 3 s."""
        if now - self._heard_at > 3.0:
            return min(self._period_seconds, MAX_PERIOD_WITHOUT_FEED_SECONDS)
        return self._period_seconds

    def is_walking_down(self, now: float) -> bool:
        """Whether the cap is below what the last reading granted, for want of a newer one."""
        return now - self._good_at > WALK_START_PERIODS * self.period_seconds(now)


@dataclass(frozen=True, slots=True, kw_only=True)
class RideThrough:
    """What the battery or grid connection carries while the site gets down to a fallen cap."""

    seconds: float = 5.0
    joules: float = 0.0
    recovery_seconds: float = 5.0


@dataclass(slots=True, kw_only=True)
class RideThroughAccount:
    """Episodes above the cap, and the time beyond what the ride-through allows (DESIGN §7).

    An episode starts when draw first exceeds the cap, is not restarted by a further fall, and ends when
    draw has stayed within the cap for `recovery_seconds`. Inside it the draw may exceed the cap until
    `seconds` have passed and as long as the energy above the cap (refilled by cap − draw) stays within
    `joules`. Everything above the cap beyond either is exceeded time.
    """

    limits: RideThrough
    idle_watts: float = 0.0
    """Draw with every engine stopped: time above a cap lower than this is shown apart as well."""
    exceeded_seconds: float = 0.0
    below_idle_seconds: float = 0.0
    episodes: int = 0
    _episode_at: float | None = None
    _within_since: float | None = None
    _joules: float = 0.0
    _last_at: float | None = None

    def observe(self, *, draw_watts: float, cap_watts: float, now: float) -> None:
        """Account for the time since the last call as if draw and cap had been these all along."""
        elapsed = 0.0 if self._last_at is None else max(0.0, now - self._last_at)
        started = now - elapsed
        self._last_at = now
        excess = draw_watts - cap_watts
        self._joules = max(0.0, self._joules + excess * elapsed)
        if excess <= 0:
            if self._episode_at is not None:
                if self._within_since is None:
                    self._within_since = started
                if now - self._within_since >= self.limits.recovery_seconds:
                    self._episode_at = None
                    self._within_since = None
            return
        self._within_since = None
        if self._episode_at is None:
            self._episode_at = started
            self.episodes += 1
        over_time = min(elapsed, max(0.0, now - (self._episode_at + self.limits.seconds)))
        over_energy = min(elapsed, max(0.0, (self._joules - self.limits.joules) / excess))
        exceeded = max(over_time, over_energy)
        self.exceeded_seconds += exceeded
        if cap_watts < self.idle_watts:
            self.below_idle_seconds += exceeded

    def seconds_left(self, now: float) -> float:
        """Time left in which draw may still exceed the cap; the whole ride-through outside an episode."""
        if self._episode_at is None:
            return self.limits.seconds
        return max(0.0, self._episode_at + self.limits.seconds - now)
