"""What a site draws and delivers in each of its configurations."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.profile import LLAMA_70B_H100_TP4, SitePowerModel
from site_agent.site_model import Configuration, SiteModel, assumed_profile

MODEL = SiteModel(
    profile=LLAMA_70B_H100_TP4,
    power=SitePowerModel(overhead_ratio=1.1, host_idle_watts=600),
    instances=3,
    max_concurrency=16,
    clocks_mhz=LLAMA_70B_H100_TP4.clocks_mhz,
)


def test_idle_and_full_draw_are_the_profiles() -> None:
    """(3 × 280 + 600) × 1.1, and (3 × 2453.5 + 600) × 1.1: prefill draws more than a batch of 16."""
    assert MODEL.server_idle_watts == pytest.approx(1584)
    assert MODEL.full_watts == pytest.approx(8756.55)


def test_the_worst_case_is_the_worst_batch_up_to_the_limit() -> None:
    """The measured rows are not monotone: 16 requests draw more than 32. (Prefill draws less at 800 MHz.)"""
    wide = SiteModel(
        profile=MODEL.profile, power=MODEL.power, instances=3, max_concurrency=32, clocks_mhz=MODEL.clocks_mhz
    )
    assert wide.profile.prefill_watts(800) < wide.profile.watts(32, 800) < wide.profile.watts(16, 800)
    assert wide.worst_watts(MODEL.uniform(3), 800) == MODEL.worst_watts(MODEL.uniform(3), 800)


def test_a_configuration_that_fits_is_found_or_none_is() -> None:
    """By the highest clock, then by the highest throughput."""
    assert MODEL.clock_that_fits(MODEL.uniform(3), 5000) == 1300
    assert MODEL.clock_that_fits(MODEL.uniform(3), 3600) is None
    assert MODEL.best(5000) == Configuration(layout=MODEL.uniform(3), clock_mhz=1300)
    assert MODEL.best(5000, most_awake=2) == Configuration(layout=MODEL.uniform(2), clock_mhz=1650)
    assert MODEL.best(2000).awake == 0
    assert MODEL.best(math.inf) == Configuration(layout=MODEL.uniform(3), clock_mhz=1980)


@given(st.integers(0, 3), st.floats(0, 9000))
def test_the_clock_that_fits_is_the_highest_whose_worst_case_does(awake: int, budget: float) -> None:
    """Whatever the order of the watts."""
    layout = MODEL.uniform(awake)
    fitting = [clock for clock in MODEL.steps_mhz if MODEL.worst_watts(layout, clock) <= budget]
    assert MODEL.clock_that_fits(layout, budget) == max(fitting, default=None)


def test_clocks_are_set_in_small_steps_between_those_that_the_profile_names() -> None:
    """50 MHz or a little less; all that are named are among them, one alone stays alone."""
    steps = MODEL.steps_mhz
    assert steps[:3] == (800, 850, 900)
    assert steps[-2:] == (1935, 1980)
    assert set(MODEL.clocks_mhz) <= set(steps)
    assert max(high - low for low, high in itertools.pairwise(steps)) <= 50
    assert replace(MODEL, clocks_mhz=(1980,)).steps_mhz == (1980,)


def test_what_rests_or_starts_draws_less_than_its_worst_case() -> None:
    """(460 - 280) × 1.1 beyond stopped GPUs; a start alone counts with that, else with one request."""
    assert MODEL.rest_watts(4) == pytest.approx(198)
    alone = MODEL.start_spare_watts(0, is_alone=True)
    beside = MODEL.start_spare_watts(0, is_alone=False)
    worst = MODEL.worst_watts(MODEL.uniform(1), 800) - MODEL.server_idle_watts
    assert worst - alone == pytest.approx(198)
    assert 0 < beside < alone


def test_spare_gpus_draw_as_those_without_an_engine() -> None:
    """In every figure of the site's watts, and they hold no instance."""
    spare = replace(MODEL, spare_gpus=4)
    pairs = [
        (
            model.server_idle_watts,
            model.worst_watts(model.uniform(2), 800),
            model.held_watts([(0, 3)]),
            model.modelled_watts([3, 4], 1980),
            model.modelled_watts([3, 4], [800, 1980]),
        )
        for model in (MODEL, spare)
    ]
    for without, with_them in zip(*pairs, strict=True):
        assert with_them - without == pytest.approx(1.1 * MODEL.profile.stopped_watts)
    assert spare.most(4) == MODEL.most(4)


def test_the_modelled_draw_takes_a_clock_for_each_instance() -> None:
    """One at the lowest and one at full are between all at either."""
    low, mixed, full = (MODEL.modelled_watts([8, 8], clocks) for clocks in (800, [800, 1980], 1980))
    assert mixed == pytest.approx((low + full) / 2)


def test_what_fits_never_draws_more_than_it_may() -> None:
    """For every budget and every load."""
    for budget in range(1500, 7000, 50):
        best = MODEL.best(budget)
        if best.awake:
            for running in (0, 1, 8, 16):
                assert MODEL.modelled_watts([running] * best.awake, best.clock_mhz) <= budget


def test_unknown_hardware_has_assumed_watts_and_one_clock() -> None:
    """Every value says that it is assumed."""
    profile = assumed_profile(model="tiny", stopped_watts=10, idle_watts=100, busy_watts=300)
    assert profile.watts(0, 1000) == 100
    assert profile.watts(5, 1000) == 300
    assert profile.clocks_mhz == (1000,)
    assert "assumed" in profile.rows[0].source
