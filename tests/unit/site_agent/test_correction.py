"""How far the meter is above the model."""

from __future__ import annotations

import pytest

from site_agent.correction import CORRECTION_DECAY_SECONDS, Correction


def learn(one: Correction, *, draw_watts: float, now: float, **others: float) -> None:
    """A reading, and a look at it."""
    one.observe(draw_watts, now)
    one.learn(now=now, **others)


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
