"""The performance profile: interpolation inside the rows, clamping outside, clocks by the model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.profile import LLAMA_70B_H100_TP4, PROFILES, SitePowerModel

PROFILE = LLAMA_70B_H100_TP4
batches = st.floats(0, 4000)
clocks = st.sampled_from(PROFILE.clocks_mhz)


def test_a_row_is_given_back_as_it_was_measured() -> None:
    """At full clock and at a row's own batch nothing is interpolated."""
    assert PROFILE.watts(32, 1980) == pytest.approx(1794)
    assert PROFILE.itl_seconds(32, 1980) == pytest.approx(0.020)


def test_between_two_rows_the_value_lies_in_proportion() -> None:
    """Batch 48 lies half way between 32 and 64."""
    assert PROFILE.watts(48, 1980) == pytest.approx((1794 + 2002) / 2)
    assert PROFILE.itl_seconds(48, 1980) == pytest.approx((0.020 + 0.022) / 2)


def test_outside_the_rows_the_value_is_clamped_and_flagged() -> None:
    """Nothing is extrapolated from a measurement."""
    assert PROFILE.watts(1, 1980) == pytest.approx(1765)
    assert PROFILE.watts(5000, 1980) == pytest.approx(2548)
    assert [PROFILE.is_inside(batch) for batch in (7, 8, 1024, 1025)] == [False, True, True, False]


def test_an_empty_instance_draws_its_idle_watts_at_any_clock() -> None:
    """Idle is the engine awake with no request; stopped is less."""
    assert {PROFILE.watts(0, clock) for clock in PROFILE.clocks_mhz} == {460.0}
    assert PROFILE.stopped_watts == 280.0


def test_half_the_clock_costs_a_quarter_of_the_speed_and_half_the_dynamic_watts() -> None:
    """The formulas at g = ½, worked out by hand: 1 / 1.35, and 0.25 + 0.75 · 2^−2.4."""
    assert PROFILE.speed_ratio(990) == pytest.approx(0.740741, abs=1e-6)
    assert PROFILE.dynamic_power_ratio(990) == pytest.approx(0.392099, abs=1e-6)
    assert PROFILE.itl_seconds(32, 990) == pytest.approx(0.020 * 1.35)
    assert PROFILE.watts(32, 990) == pytest.approx(460 + (1794 - 460) * 0.392099, abs=0.01)


def test_prefill_takes_time_in_proportion_to_the_prompt() -> None:
    """8,500 tokens a second at full clock."""
    assert PROFILE.prefill_seconds(850, 1980) == pytest.approx(0.1)
    assert PROFILE.prefill_seconds(850, 990) == pytest.approx(0.135)


@given(batch=batches, clock=clocks)
def test_a_busy_instance_draws_between_idle_and_its_full_clock(batch: float, clock: int) -> None:
    """A lower clock never draws more, and never less than idle."""
    assert PROFILE.idle_watts <= PROFILE.watts(batch, clock) <= PROFILE.watts(batch, 1980) + 1e-9


@given(batch=batches)
def test_a_lower_clock_is_never_faster(batch: float) -> None:
    """The gap between tokens falls as the clock rises."""
    gaps = [PROFILE.itl_seconds(batch, clock) for clock in PROFILE.clocks_mhz]
    assert gaps == sorted(gaps, reverse=True)


def test_every_profile_is_in_order_and_says_where_its_figures_come_from() -> None:
    """Interpolation relies on the order; whoever reads a figure relies on its source."""
    for name, profile in PROFILES.items():
        running = [row.running_requests for row in profile.rows]
        assert name == profile.profile_id
        assert running == sorted(set(running))
        assert list(profile.clocks_mhz) == sorted(set(profile.clocks_mhz))
        assert profile.clocks_mhz[-1] == profile.full_clock_mhz
        assert all(row.source for row in profile.rows)
        assert profile.idle_source
        assert profile.prefill_source


def test_a_site_draws_gpus_and_hosts_with_its_overhead() -> None:
    """(GPUs + hosts) × overhead: cooling serves the hosts as well."""
    assert SitePowerModel(overhead_ratio=1.2, host_idle_watts=500).site_watts(1500) == pytest.approx(2400)
    assert SitePowerModel().site_watts(1000) == pytest.approx(1100)
