"""A site's power, now and to come."""

from __future__ import annotations

from router.policy.outlook import Horizon, PowerOutlook, Quantiles

OUTLOOK = PowerOutlook(
    site_id="a",
    granted_power_watts=1000.0,
    quality="good",
    arrived_at=100.0,
    forecast=(Horizon(60.0, Quantiles(400.0, 1000.0, 1600.0)), Horizon(120.0, Quantiles(0.0, 800.0, 1600.0))),
)


def test_quantiles_are_interpolated_from_what_is_granted_now():
    """And stay after the last horizon."""
    assert OUTLOOK.at(130.0, 100.0) == (700.0, 1000.0, 1300.0)
    assert OUTLOOK.at(190.0, 100.0) == (200.0, 900.0, 1600.0)
    assert OUTLOOK.at(5000.0, 100.0) == (0.0, 800.0, 1600.0)


def test_an_instant_before_the_reading_is_now():
    """Clocks may jump back."""
    assert OUTLOOK.at(50.0, 50.0) == (1000.0, 1000.0, 1000.0)


def test_a_feed_that_is_gone_says_nothing():
    """Unknown is not what it said last."""
    assert OUTLOOK.at(200.0, 160.1) is None
    assert PowerOutlook(site_id="a", granted_power_watts=1.0, quality="good", arrived_at=1.0).at(2, 1) is None
