"""What a fall of power does to work."""

from __future__ import annotations

import pytest

from router.policy.outlook import Quantiles
from router.policy.power_risk import PowerNeed, risk_of

NEED = PowerNeed(draw_watts=3000.0, idle_watts=1000.0, margin_ratio=0.0, safe_floor_watts=0.0)
"""Floor 1,670 W: idle and a third of what is above it."""


def test_enough_in_every_case_is_no_risk():
    """Nothing lost, nothing slower."""
    assert risk_of(NEED, Quantiles(3000.0, 4000.0, 5000.0)) == (0.0, 1.0)


def test_between_floor_and_draw_it_gets_slower():
    """At the floor by the speed of the lowest clock."""
    lost, slow = risk_of(NEED, Quantiles(1670.0, 1670.0, 1670.0))
    assert (lost, slow) == (0.0, pytest.approx(1 / 0.66))


def test_below_the_floor_a_part_breaks_off():
    """All of it without any power, weighed by how likely that is."""
    assert risk_of(NEED, Quantiles(0.0, 5000.0, 5000.0)).lost_ratio == pytest.approx(0.3)
    assert risk_of(NEED, Quantiles(835.0, 835.0, 835.0)).lost_ratio == pytest.approx(0.5)


def test_firm_power_carries_what_it_carries():
    """And the margin is not there to be used."""
    firm = NEED._replace(safe_floor_watts=3000.0)
    assert risk_of(firm, Quantiles(0.0, 0.0, 0.0)) == (0.0, 1.0)
    assert risk_of(NEED._replace(margin_ratio=0.1), Quantiles(*(3000.0,) * 3)).slow_ratio > 1.0


def test_a_site_that_draws_only_its_idle_loses_nothing_until_that():
    """No division by nothing."""
    idle = PowerNeed(draw_watts=1000.0, idle_watts=1000.0, margin_ratio=0.0, safe_floor_watts=0.0)
    assert risk_of(idle, Quantiles(*(1000.0,) * 3)) == (0.0, 1.0)
    assert risk_of(idle, Quantiles(*(500.0,) * 3)).lost_ratio == 0.5
