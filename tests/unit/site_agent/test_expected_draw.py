"""What admission counts as drawn: the meter, less what has gone, never below the model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.seats import ready_instances

from site_agent.expected_draw import ExpectedDraw, choose_again
from site_agent.instance import Instance
from site_agent.limits import Limits
from site_agent.slots import Ask, Pushback, Slots


def slots() -> Slots:
    """Of two requests of 100 W each."""
    return Slots(
        seats=ready_instances(1),
        limits=Limits(max_concurrency=2, watts=(0.0, 100.0, 200.0)),
        resume_reserve_ratio=0.0,
        start_seconds=2.0,
    )


def test_what_has_ended_is_not_counted_while_the_meter_still_shows_it() -> None:
    """For a second, and for as long as the meter is late beyond that; then the meter is believed."""
    expected = ExpectedDraw(meter_lag_seconds=0.5)
    assert expected.watts(modelled_watts=900.0, draw_watts=950.0, now=0.0) == 950.0
    assert expected.watts(modelled_watts=600.0, draw_watts=950.0, now=0.1) == 650.0
    assert expected.watts(modelled_watts=600.0, draw_watts=950.0, now=1.5) == 650.0
    assert expected.watts(modelled_watts=600.0, draw_watts=950.0, now=1.6) == 950.0


def test_what_has_come_counts_before_the_meter_shows_it() -> None:
    """The model says so."""
    assert ExpectedDraw().watts(modelled_watts=900.0, draw_watts=300.0, now=0.0) == 900.0


def test_what_came_and_went_between_two_looks_counts_if_it_was_noted() -> None:
    """The meter may show it."""
    expected = ExpectedDraw()
    expected.watts(modelled_watts=600.0, draw_watts=600.0, now=0.0)
    expected.note(900.0, 0.5)
    assert expected.watts(modelled_watts=600.0, draw_watts=900.0, now=0.6) == 600.0


STEPS = st.lists(st.tuples(st.floats(0, 2), st.floats(0, 1e4), st.floats(0, 1e4)), min_size=1, max_size=40)


@given(STEPS)
def test_it_is_between_the_model_and_the_larger_of_model_and_meter(
    steps: list[tuple[float, float, float]],
) -> None:
    """Whatever is measured; and all that ran of late beside what is expected is no less than was measured."""
    expected, now, modelled_before = ExpectedDraw(), 0.0, 0.0
    for step, modelled, draw in steps:
        now += step
        modelled_before = max(modelled_before, modelled)
        watts = expected.watts(modelled_watts=modelled, draw_watts=draw, now=now)
        assert modelled <= watts <= max(modelled, draw)
        assert watts + (modelled_before - modelled) >= draw - 1e-6


def test_power_is_looked_at_again_before_a_request_is_refused_for_it() -> None:
    """Once, and only then."""
    site, looks = slots(), []

    def look_again(room_watts: float) -> None:
        looks.append(room_watts)
        site.set_power(cap_watts=room_watts, expected_watts=0.0)

    site.set_power(cap_watts=50.0, expected_watts=0.0)
    refused = choose_again(site, Ask(), look_again=lambda: look_again(60.0))
    assert isinstance(refused, Pushback)
    assert refused.reason == "power"
    assert isinstance(choose_again(site, Ask(), look_again=lambda: look_again(100.0)), Instance)
    assert isinstance(choose_again(site, Ask(), look_again=lambda: look_again(0.0)), Instance)
    assert looks == [60.0, 100.0]
