"""What the ride-through must carry so that no sequence of falls exceeds it. Pure (DESIGN §7).

Let S, J be the ride-through's seconds and joules, F the lowest cap that the site can keep (its firm power, or
its idle draw), r `reaction_seconds` (from the wind's fall to the first command), d `drain_seconds`, s
`stop_seconds` (from the last command until the watts are gone). Any fall, at any moment, to any cap ≥ F, is
kept if all of these hold:

1. r + d + s ≤ S: one fall is answered in time. Checked where the configuration is read.
2. In an episode that began at t₀ everything that a fall to F would find above it is ordered to stop by
   t₀ + S − s. The episode is not restarted, so from t₀ + S on there would be no time at all to answer.
3. At every moment (worst draw − F) × (r + s) ≤ joules left: the energy to answer a fall to F without any
   drain is in store. It is refilled only by cap − draw, so that after an episode the site may have to wait
   for it at a lower draw.

A fall is heard up to r after it happened, so an episode may have begun before it was heard: 2 and 3 go by
`Presumed`, an account of the most that was drawn within the last r, not of what is drawn now.

`further_fall_ratio` f < 1 weakens 2 to falls down to (1 − f) × the cap that holds, for a site that rather
keeps its engines: then a second, deeper fall within one episode can exceed the ride-through.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleet.power import RideThrough, RideThroughAccount
from site_agent.recent import RecentMost
from site_agent.site_model import SiteModel
from site_agent.situation import GovernorRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Survival:
    """The limits of one site."""

    answer_seconds: float
    """r + s."""
    floor_watts: float
    """F."""
    further_fall_ratio: float

    @classmethod
    def of(cls, model: SiteModel, rule: GovernorRule) -> Survival:
        """For this site: below its idle draw no cap can be kept."""
        return cls(
            answer_seconds=rule.reaction_seconds + rule.stop_seconds,
            floor_watts=max(rule.safe_floor_watts, model.server_idle_watts),
            further_fall_ratio=rule.further_fall_ratio,
        )

    def stored_limit_watts(self, joules_left: float) -> float:
        """What may be drawn at the most with so much energy left (3)."""
        if self.answer_seconds <= 0:
            return float("inf")
        return self.floor_watts + joules_left / self.answer_seconds

    def episode_limit_watts(self, cap_watts: float) -> float:
        """What may still be drawn at the end of an episode's ride-through (2)."""
        return max(self.floor_watts, cap_watts * (1 - self.further_fall_ratio))


@dataclass(slots=True, kw_only=True)
class Presumed:
    """The account as the wind may have seen it: every draw of the last `reaction_seconds` under this cap."""

    account: RideThroughAccount
    _draw: RecentMost

    @classmethod
    def of(cls, ride_through: RideThrough, rule: GovernorRule) -> Presumed:
        """With nothing spent."""
        return cls(
            account=RideThroughAccount(limits=ride_through),
            _draw=RecentMost(hold_seconds=rule.reaction_seconds),
        )

    def observe(self, *, draw_watts: float, cap_watts: float, now: float) -> None:
        """See RideThroughAccount."""
        most = self._draw.observe(draw_watts, now)
        self.account.observe(draw_watts=most, cap_watts=cap_watts, now=now)


def refusal(model: SiteModel, rule: GovernorRule, ride_through: RideThrough) -> str | None:
    """Why this configuration must not run: it breaks 1, or it could never start anything by 3."""
    limits = Survival.of(model, rule)
    ladder = rule.reaction_seconds + rule.drain_seconds + rule.stop_seconds
    if ladder > ride_through.seconds:
        return (
            f"governor.reaction_seconds + drain_seconds + stop_seconds = {ladder:g} s do not fit "
            f"ride_through_seconds = {ride_through.seconds:g}: shorten drain_seconds, or carry the site for "
            "longer"
        )
    lowest = model.lowest_clock_mhz
    least = min(model.worst_watts(model.uniform(1, degree), lowest) for degree in model.profiles)
    if limits.stored_limit_watts(ride_through.joules) < least:
        return (
            f"ride_through_joules = {ride_through.joules:.0f} carries not one instance through a fall to "
            f"{limits.floor_watts:.0f} W: nothing would ever be started; "
            f"{_needed_joules(model, limits):.0f} J allow full power"
        )
    return None


def warnings(model: SiteModel, rule: GovernorRule, ride_through: RideThrough) -> list[str]:
    """What this configuration cannot promise, a sentence each; empty: any fall is kept, at full power."""
    limits = Survival.of(model, rule)
    said: list[str] = []
    most = limits.stored_limit_watts(ride_through.joules)
    if most < model.full_watts:
        said.append(
            f"ride_through_joules = {ride_through.joules:.0f} carries a fall to {limits.floor_watts:.0f} W "
            f"from {most:.0f} W at the most: the site will draw no more than that, of "
            f"{model.full_watts:.0f} W; {_needed_joules(model, limits):.0f} J allow full power"
        )
    if rule.further_fall_ratio < 1:
        said.append(
            f"further_fall_ratio = {rule.further_fall_ratio:g}: a second fall within one episode, to less "
            f"than {1 - rule.further_fall_ratio:.0%} of the cap, can exceed the ride-through"
        )
    return said


def _needed_joules(model: SiteModel, limits: Survival) -> float:
    return (model.full_watts - limits.floor_watts) * limits.answer_seconds
