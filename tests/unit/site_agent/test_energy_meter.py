"""How long the last power reading counts in the account."""

from __future__ import annotations

import pytest
from support.stub_feed import reading

from site_agent.energy_meter import fresh


@pytest.mark.parametrize(
    ("period_seconds", "age_seconds", "is_fresh"),
    [(1.0, 9.9, True), (1.0, 10.1, False), (0.1, 9.9, True), (5.0, 49.0, True), (600.0, 101.0, False)],
)
def test_a_reading_counts_until_the_cap_has_walked_down(
    period_seconds: float, age_seconds: float, is_fresh: bool
) -> None:
    """A feed that is silent grants nothing, and nothing of it is curtailed."""
    last = reading(5000.0, period_seconds=period_seconds)
    assert (fresh(last, age_seconds) is last) == is_fresh


def test_before_the_first_reading_there_is_none() -> None:
    """Whatever asks."""
    assert fresh(None, None) is None
