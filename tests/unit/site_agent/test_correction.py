"""How far the meter is above the model."""

from __future__ import annotations

import pytest

from site_agent.correction import CORRECTION_DECAY_SECONDS, Correction
from site_agent.situation import Heard


def learn(one: Correction, *, draw_watts: float, now: float, heard: Heard = "best", **others: float) -> None:
    """A reading, and a look at it."""
    one.observe(draw_watts, now)
    one.learn(now=now, heard=heard, **others)


def settled(draw_watts: float, worst_watts: float) -> Correction:
    """Ten seconds of this, ten times a second, with orders long ago."""
    one = Correction(settle_seconds=1.5)
    for tick in range(100):
        learn(one, draw_watts=draw_watts, worst_watts=worst_watts, changed_at=0.0, now=100.0 + tick / 10)
    return one


def test_what_is_measured_above_the_worst_case_is_learnt_and_fades():
    """A tenth more; once the meter agrees it is forgotten slowly."""
    one = settled(1100.0, 1000.0)
    assert one.ratio == pytest.approx(1.1)
    for tick in range(round(10 * CORRECTION_DECAY_SECONDS)):
        learn(one, draw_watts=900.0, worst_watts=1000.0, changed_at=0.0, now=110.0 + tick / 10)
    assert 1.0 < one.ratio < 1.05


def test_an_engine_that_fails_is_no_wrong_model():
    """Less runs at once, the draw follows within half a second: nothing is learnt, or the engine that is to
    be started again would not fit for two minutes."""
    one = settled(880.0, 1100.0)
    for tick in range(100):
        draw_watts = 660.0 + max(0.0, 220.0 - 44.0 * tick)
        learn(one, draw_watts=draw_watts, worst_watts=660.0, changed_at=0.0, now=110.0 + tick / 10)
    assert one.ratio == 1.0
    for tick in range(30):
        learn(one, draw_watts=760.0, worst_watts=660.0, changed_at=0.0, now=120.0 + tick / 10)
    assert one.ratio > 1.1, "what stays above is learnt all the same"


def test_gpus_whose_engine_has_just_ended_are_no_wrong_model():
    """An H100 draws 120 W for some seconds after its last engine, then 71 W: nothing is learnt, or the next
    engine would not be started for minutes (seen on one)."""
    one = Correction(settle_seconds=1.5)
    for tick in range(300):
        draw_watts = 120.0 if tick < 100 else 71.0
        learn(one, draw_watts=draw_watts, worst_watts=73.0, changed_at=0.0, now=tick / 10, is_bare=True)
    assert (one.ratio, one.bare_watts) == (1.0, 0.0)


def test_a_bare_site_above_the_model_is_off_by_watts_not_by_a_ratio():
    """A host that draws 400 W more than was configured does so beside busy engines too, and no more."""
    one = Correction(settle_seconds=1.5)
    for tick in range(300):
        learn(one, draw_watts=1000.0, worst_watts=600.0, changed_at=0.0, now=tick / 10, is_bare=True)
    assert one.ratio == 1.0
    assert one.bare_watts == pytest.approx(400.0)
    for tick in range(20):
        learn(one, draw_watts=5400.0, worst_watts=5000.0, changed_at=0.0, now=30.0 + tick / 10)
    assert one.ratio == 1.0
    assert one.bare_watts == pytest.approx(400.0, rel=0.05)


def test_what_is_looked_at_for_a_high_reading_is_not_learnt_from_it_alone():
    """A governor decides once a second, and at once where a reading is high; those between count too."""
    one = Correction(settle_seconds=1.5)
    for tick in range(3000):
        high = tick % 10 == 9
        one.observe(1025.0 if high else 995.0, tick / 10)
        if high:
            one.learn(worst_watts=1000.0, changed_at=-10.0, now=tick / 10)
    assert one.ratio == 1.0


def test_one_reading_after_a_pause_is_not_the_whole_draw():
    """Once a second, every fourth reading 2.5 % above: within what noise does."""
    one = Correction(settle_seconds=1.5)
    for second in range(300):
        learn(
            one,
            draw_watts=1025.0 if second % 4 == 3 else 995.0,
            worst_watts=1000.0,
            changed_at=-10.0,
            now=float(second),
        )
    assert one.ratio == 1.0


def test_the_reading_at_which_a_change_has_settled_does_not_decide():
    """One of 3 % above just before it, all others below."""
    one = Correction(settle_seconds=1.5)
    for tick in range(100):
        draw_watts = 1030.0 if tick == 14 else 995.0
        learn(one, draw_watts=draw_watts, worst_watts=1000.0, changed_at=0.0, now=tick / 10)
    assert one.ratio == 1.0


def test_a_fall_that_was_ordered_is_not_learnt_from_its_tail():
    """From 8.7 to 3.55 kW within a second, looked at once a second: the worst case now is kept."""
    one = Correction(settle_seconds=1.5)
    for tick in range(120):
        now = tick / 10
        one.observe(3550.0 + (8700.0 - 3550.0) * 0.7**tick, now)
        if tick in (0, 5) or tick % 10 == 5:
            one.learn(worst_watts=3600.0, changed_at=0.0, now=now)
    assert one.ratio == 1.0


def test_while_nothing_measures_nothing_is_learnt_and_nothing_forgotten():
    """Whatever the model says of itself; the meter that is back is given time to settle, then believed."""
    one = settled(1100.0, 1000.0)
    for tick in range(6000):
        draw_watts = 700.0 if tick % 20 < 10 else 1500.0
        learn(
            one,
            draw_watts=draw_watts,
            worst_watts=1000.0,
            changed_at=0.0,
            now=110.0 + tick / 10,
            heard="nothing",
        )
    assert one.ratio == pytest.approx(1.1)
    learn(one, draw_watts=1500.0, worst_watts=1000.0, changed_at=0.0, now=710.1)
    assert one.ratio == pytest.approx(1.1, abs=0.001), "one reading after a silence decides nothing"
    for tick in range(3000):
        learn(one, draw_watts=900.0, worst_watts=1000.0, changed_at=0.0, now=710.2 + tick / 10)
    assert one.ratio < 1.01


def test_a_lesser_source_teaches_more_and_fades_to_what_the_better_one_taught():
    """GPUs beside a site's meter that has fallen silent."""
    one = settled(1100.0, 1000.0)
    for tick in range(50):
        learn(one, draw_watts=1200.0, worst_watts=1000.0, changed_at=0.0, now=110 + tick / 10, heard="lesser")
    assert one.ratio == pytest.approx(1.2, abs=0.01)
    for tick in range(6000):
        learn(one, draw_watts=900.0, worst_watts=1000.0, changed_at=0.0, now=115 + tick / 10, heard="lesser")
    assert one.ratio == pytest.approx(1.1, abs=0.001)


def test_watts_of_a_bare_site_are_kept_as_the_ratio_is():
    """A host that draws more than was configured still does when its meter is silent."""
    one = Correction(settle_seconds=1.5)
    for tick in range(300):
        learn(one, draw_watts=1000.0, worst_watts=600.0, changed_at=0.0, now=tick / 10, is_bare=True)
    for tick in range(6000):
        learn(
            one,
            draw_watts=1000.0,
            worst_watts=600.0,
            changed_at=0.0,
            now=30 + tick / 10,
            is_bare=True,
            heard="nothing",
        )
    assert one.bare_watts == pytest.approx(400.0)
    assert one.corrected_watts(600.0) == pytest.approx(1000.0)
