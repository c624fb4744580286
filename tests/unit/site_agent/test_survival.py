"""What the ride-through must carry."""

from __future__ import annotations

import pytest

from fleet.power import RideThrough
from fleet.profile import PROFILES, SitePowerModel
from site_agent.site_model import SiteModel
from site_agent.situation import GovernorRule
from site_agent.survival import Presumed, Survival, refusal, warnings

PROFILE = PROFILES["llama-3.1-70b/h100/tp4"]
MODEL = SiteModel(
    profile=PROFILE,
    power=SitePowerModel(overhead_ratio=1.1, host_idle_watts=600),
    instances=3,
    max_concurrency=16,
    clocks_mhz=PROFILE.clocks_mhz,
)
RULE = GovernorRule(reaction_seconds=1.0, drain_seconds=1.0, stop_seconds=1.0)


def test_the_floor_is_firm_power_or_else_the_idle_draw() -> None:
    """A cap below the idle draw cannot be kept anyway."""
    assert Survival.of(MODEL, RULE).floor_watts == MODEL.server_idle_watts
    firm = GovernorRule(safe_floor_watts=4000.0)
    assert Survival.of(MODEL, firm).floor_watts == 4000.0


def test_energy_in_store_limits_the_draw() -> None:
    """(draw − floor) × (reaction + stop) ≤ joules left."""
    limits = Survival.of(MODEL, RULE)
    assert limits.stored_limit_watts(2000.0) == MODEL.server_idle_watts + 1000.0
    assert limits.stored_limit_watts(0.0) == MODEL.server_idle_watts


def test_an_episode_ends_at_the_floor_or_at_the_share_that_is_configured() -> None:
    """1: any further fall is survived."""
    assert Survival.of(MODEL, RULE).episode_limit_watts(5000.0) == MODEL.server_idle_watts
    keeping = Survival.of(MODEL, GovernorRule(further_fall_ratio=0.4))
    assert keeping.episode_limit_watts(5000.0) == 3000.0


def test_what_can_never_hold_is_refused() -> None:
    """Too little time for the ladder, or energy for not one instance."""
    slow = GovernorRule(reaction_seconds=2.0, drain_seconds=2.0, stop_seconds=2.0)
    assert "do not fit ride_through_seconds = 5" in str(refusal(MODEL, slow, RideThrough(joules=1e6)))
    assert "carries not one instance" in str(refusal(MODEL, RULE, RideThrough(joules=100.0)))
    assert refusal(MODEL, RULE, RideThrough(joules=1e6)) is None


def test_what_is_promised_only_in_part_is_said() -> None:
    """Less than full power, or less than any fall."""
    assert warnings(MODEL, RULE, RideThrough(joules=1e6)) == []
    [power] = warnings(MODEL, RULE, RideThrough(joules=3000.0))
    assert "will draw no more than that" in power
    [falls] = warnings(MODEL, GovernorRule(further_fall_ratio=0.5), RideThrough(joules=1e6))
    assert "to less than 50% of the cap" in falls


def test_a_fall_counts_for_every_draw_within_the_reaction_time() -> None:
    """It is heard up to that long after it happened."""
    presumed = Presumed.of(RideThrough(joules=1e6), RULE)
    presumed.observe(draw_watts=5000.0, cap_watts=6000.0, now=10.0)
    presumed.observe(draw_watts=3000.0, cap_watts=4000.0, now=10.9)
    assert presumed.account.is_in_episode
    presumed = Presumed.of(RideThrough(joules=1e6), RULE)
    presumed.observe(draw_watts=5000.0, cap_watts=6000.0, now=10.0)
    presumed.observe(draw_watts=3000.0, cap_watts=4000.0, now=11.1)
    assert not presumed.account.is_in_episode
    assert presumed.account.seconds_left(11.1) == pytest.approx(5.0)
