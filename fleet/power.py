"""The cap, its walk-down, and the account of time above it (DESIGN §7). Pure: time is an argument.

The same account (`RideThroughAccount`) serves the governor, the simulator and whoever judges them.
"""

from __future__ import annotations

from dataclasses import dataclass


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
MIN_PERIOD_SECONDS = 1.0
"""Readings come once a second: a shorter T would start a walk between two of them (fast replays)."""
WALK_START_PERIODS = 3.0
WALK_END_PERIODS = 10.0


@dataclass(slots=True, kw_only=True)
class CapTracker:
    """The cap over time: follows good readings, and walks down when none comes (DESIGN §7).

    A walk starts at 3 T and reaches the safe floor, linearly, at 10 T. Two clocks run, and the lower of their
    two walks is the cap, so that neither ever makes it jump:

    * since the last new good measurement, T = the source's period;
    * since anything at all was heard from the feed, T = that period, but at most 10 s. (A source of 15-minute
      values is given 45 minutes while its feed lives, and 30 seconds once the feed is silent.)

    A new measurement is a good reading with another observation time than the last; "another", not "later",
    because the feed's clock may step back. A suspect or fallback reading may lower the cap, never raises it
    and stops neither walk. A good one that repeats a measurement shows that the feed lives, and may raise the
    cap only while that measurement is not walked down. Order and duplicates are judged before
    (`fleet.intake`).
    """

    rule: CapRule
    _granted_watts: float | None = None
    """Of the last good reading; None before the first."""
    _lowered_watts: float = float("inf")
    """Lowest of the readings since then that may only lower."""
    _period_seconds: float = MAX_PERIOD_WITHOUT_FEED_SECONDS
    _measured_at: float = float("-inf")
    _heard_at: float = float("-inf")
    _observed_at_unix_seconds: float | None = None

    def observe(
        self,
        *,
        granted_watts: float,
        period_seconds: float,
        quality: str,
        observed_at_unix_seconds: float,
        now: float,
    ) -> None:
        """Take one reading that arrived at `now` (monotonic). `quality` as on the wire."""
        is_good = quality == "good"
        if is_good or self._unheard_left_ratio(now) == 1.0:
            self._heard_at = now
        if not is_good:
            self._lowered_watts = min(self._lowered_watts, granted_watts)
        elif observed_at_unix_seconds != self._observed_at_unix_seconds:
            self._granted_watts = granted_watts
            self._lowered_watts = float("inf")
            self._period_seconds = max(period_seconds, MIN_PERIOD_SECONDS)
            self._measured_at = now
            self._observed_at_unix_seconds = observed_at_unix_seconds
        elif self._unmeasured_left_ratio(now) < 1.0:
            self._lowered_watts = min(self._lowered_watts, granted_watts)
        else:
            # The allocator may share out the same measurement anew, up or down.
            self._granted_watts = granted_watts

    def cap_watts(self, now: float) -> float:
        """The cap at `now`; before any good reading it is the safe floor."""
        floor = self.rule.cap_watts(0.0)
        if self._granted_watts is None:
            return floor
        granted = self.rule.cap_watts(self._granted_watts)
        walked = floor + max(0.0, granted - floor) * self._left_ratio(now)
        return min(walked, self.rule.cap_watts(self._lowered_watts))

    def is_walking_down(self, now: float) -> bool:
        """Whether the cap is below what the last readings granted, for want of a newer one."""
        return self._granted_watts is not None and self._left_ratio(now) < 1.0

    def _left_ratio(self, now: float) -> float:
        """How much of the way down to the floor is left: 1 before a walk, 0 after it."""
        return min(self._unmeasured_left_ratio(now), self._unheard_left_ratio(now))

    def _unmeasured_left_ratio(self, now: float) -> float:
        return _left_of_walk(now - self._measured_at, self._period_seconds)

    def _unheard_left_ratio(self, now: float) -> float:
        period_seconds = min(self._period_seconds, MAX_PERIOD_WITHOUT_FEED_SECONDS)
        return _left_of_walk(now - self._heard_at, period_seconds)


def _left_of_walk(silent_seconds: float, period_seconds: float) -> float:
    start, end = WALK_START_PERIODS * period_seconds, WALK_END_PERIODS * period_seconds
    return min(1.0, max(0.0, (end - silent_seconds) / (end - start)))


@dataclass(frozen=True, slots=True, kw_only=True)
class RideThrough:
    """What the battery or grid connection carries while the site gets down to a fallen cap."""

    joules: float
    """Energy above the cap in one go; `for_site` has the default."""
    seconds: float = 5.0
    recovery_seconds: float = 5.0
    """Within the cap for so long, an episode is over."""

    @classmethod
    def for_site(
        cls,
        *,
        max_site_watts: float,
        seconds: float = 5.0,
        joules: float | None = None,
        recovery_seconds: float = 5.0,
    ) -> RideThrough:
        """With the default energy where `joules` is None: the whole site for the whole time."""
        return cls(
            joules=max_site_watts * seconds if joules is None else joules,
            seconds=seconds,
            recovery_seconds=recovery_seconds,
        )


@dataclass(slots=True, kw_only=True)
class RideThroughAccount:
    """Episodes above the cap, and the time beyond what the ride-through allows (DESIGN §7).

    An episode starts when draw first exceeds the cap, is not restarted by a further fall, and ends when
    draw has stayed within the cap for `recovery_seconds`. Inside it the draw may exceed the cap until
    `seconds` have passed and as long as the energy above the cap (refilled by cap − draw) stays within
    `joules`. Everything above the cap beyond either is exceeded time. A battery cannot be emptier than
    empty: as much as it holds fills it again, however long the draw was above the cap.
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
        started = now if self._last_at is None else self._last_at
        now = max(now, started)  # a clock that steps back adds nothing, then or later
        elapsed = now - started
        self._last_at = now
        excess = draw_watts - cap_watts
        joules_left = self.joules_left
        self._joules = min(max(0.0, self._joules + excess * elapsed), self.limits.joules)
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
        over_energy = max(0.0, elapsed - joules_left / excess)
        exceeded = max(over_time, over_energy)
        self.exceeded_seconds += exceeded
        if cap_watts < self.idle_watts:
            self.below_idle_seconds += exceeded

    def seconds_left(self, now: float, excess_watts: float = 0.0) -> float:
        """Time left in which draw may exceed the cap by `excess_watts`, by the clock and by the energy.

        Outside an episode the whole ride-through, as far as its energy is refilled.
        """
        left = self.limits.seconds
        if self._episode_at is not None:
            left = max(0.0, self._episode_at + self.limits.seconds - now)
        return min(left, self.joules_left / excess_watts) if excess_watts > 0 else left

    @property
    def joules_left(self) -> float:
        """Energy above the cap that may still be drawn; it refills only while draw is below the cap."""
        return max(0.0, self.limits.joules - self._joules)

    @property
    def episode_at(self) -> float | None:
        """When the running episode began; None: none runs."""
        return self._episode_at

    @property
    def is_in_episode(self) -> bool:
        """Whether an episode runs: one that follows now would not get the whole time."""
        return self._episode_at is not None
