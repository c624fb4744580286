"""What fits under a budget, by what instances do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleet.instance import InstanceState
from fleet.profile import PROFILES, SitePowerModel
from site_agent import fitting
from site_agent.site_model import SiteModel
from site_agent.situation import InstanceView

PROFILE = PROFILES["llama-3.1-70b/h100/tp4"]
MODEL = SiteModel(
    profile=PROFILE,
    power=SitePowerModel(overhead_ratio=1.1, host_idle_watts=600),
    instances=2,
    max_concurrency=64,
    clocks_mhz=PROFILE.clocks_mhz,
)
ONE, BOTH = MODEL.uniform(1), MODEL.uniform(2)
LEAST = MODEL.worst_watts(ONE, 800)


def instance(index: int, state: InstanceState, *, is_stopping: bool = False) -> InstanceView:
    return InstanceView(
        instance_id=f"i{index}", index=index, state=state, running_requests=0, is_stopping=is_stopping
    )


def test_a_start_alone_lacks_more_than_one_beside_an_instance_that_serves() -> None:
    """What serves must not be put at risk; what is being stopped starts no more."""
    starting, ready = instance(0, InstanceState.STARTING), instance(1, InstanceState.READY)
    alone = fitting.start_spare_watts(MODEL, [starting])
    assert alone == MODEL.start_spare_watts(4, is_alone=True)
    assert fitting.start_spare_watts(MODEL, [starting, ready]) < alone
    assert fitting.start_spare_watts(MODEL, [ready]) == 0
    going = instance(0, InstanceState.STARTING, is_stopping=True)
    assert fitting.start_spare_watts(MODEL, [going]) == 0


def test_what_a_start_lacks_counts_at_the_lowest_clock_only() -> None:
    """Where it fits anyhow it gets the clock that fits, no more."""
    assert fitting.clock_for(MODEL, ONE, LEAST - 50, 0.0) is None
    assert fitting.clock_for(MODEL, ONE, LEAST - 50, 100.0) == 800
    assert fitting.clock_for(MODEL, ONE, LEAST - 150, 100.0) is None
    assert fitting.clock_for(MODEL, ONE, LEAST, 10_000.0) == 800


@pytest.mark.parametrize(("spare", "rests"), [(199.0, True), (190.0, False)])
def test_a_rest_takes_only_what_nobody_uses(spare: float, *, rests: bool) -> None:
    """198 W; less left at the same clock is too little."""
    one = instance(1, InstanceState.DRAINING)
    budget = MODEL.server_idle_watts + spare
    assert fitting.has_room_to_rest(MODEL, one, (), budget) is rests
    assert not fitting.has_room_to_rest(MODEL, one, ONE, MODEL.worst_watts(ONE, 1400) + 100)
    assert fitting.has_room_to_rest(MODEL, one, ONE, MODEL.worst_watts(ONE, 1980) + 199)


def test_nothing_fits_below_the_least_of_all_degrees() -> None:
    """One instance at the lowest clock."""
    assert fitting.fits_nothing(MODEL, LEAST - 1)
    assert not fitting.fits_nothing(MODEL, LEAST)


def test_the_widest_is_measured_above_a_stopped_one() -> None:
    """None of them: no watts."""
    ready = instance(0, InstanceState.READY)
    assert fitting.widest_watts(MODEL, [ready], 800) == pytest.approx(LEAST - MODEL.server_idle_watts)
    assert fitting.widest_watts(MODEL, [], 800) == 0
    assert fitting.layout_of(MODEL, [ready]) == ONE
    assert fitting.draws(instance(0, InstanceState.STOPPED, is_stopping=True))
    assert not fitting.draws(instance(0, InstanceState.STOPPED))


def test_what_runs_may_stay_where_all_slots_do_not_fit() -> None:
    """With room for an eighth of its slots at the least, and for all that it has."""

    def held(running: int, budget: float) -> bool:
        one = replace(instance(0, InstanceState.READY), running_requests=running)
        return fitting.fits_held(MODEL, [one], budget)

    eight, all_slots = MODEL.held_watts([(4, 8)]), MODEL.held_watts([(4, 64)])
    assert MODEL.server_idle_watts < eight < all_slots == pytest.approx(LEAST)
    assert held(0, eight)
    assert held(8, eight)
    assert not held(0, eight - 1)
    assert not held(64, LEAST - 1)
    assert not fitting.fits_held(MODEL, [], LEAST)
    assert MODEL.may_come_back(4, MODEL.held_watts([(0, 32)]))
    assert not MODEL.may_come_back(4, eight)


def test_nothing_has_happened_while_only_requests_come_and_go() -> None:
    """A state, a stop or the end of a back-off is news."""
    one = instance(0, InstanceState.READY)
    assert fitting.are_alike([one], [replace(one, running_requests=5)])
    assert not fitting.are_alike([one], [])
    for changes in ({"state": InstanceState.DRAINING}, {"is_stopping": True}, {"can_start": False}):
        assert not fitting.are_alike([one], [replace(one, **changes)])
