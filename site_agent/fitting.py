"""What fits under a budget, given what instances do now: those that serve, that start, that rest. Pure.

Rule: what serves counts with its worst case at any moment: of all its slots, or of those that admission still
fills. What starts serves nobody, and what rests neither.
"""

from __future__ import annotations

from collections.abc import Sequence

from fleet.instance import InstanceState
from site_agent.site_model import LEAST_SLOTS_RATIO, Layout, SiteModel
from site_agent.situation import InstanceView


def draws(one: InstanceView) -> bool:
    """It has an engine, or is getting rid of one."""
    return one.is_awake or one.is_stopping


def emptiest_first(one: InstanceView) -> tuple[bool, int, int]:
    """Those that have not even started come first; at equal load the last of the site."""
    return (one.state is not InstanceState.STARTING, one.running_requests, -one.index)


def are_alike(now: Sequence[InstanceView], before: Sequence[InstanceView]) -> bool:
    """Whether nothing but their requests has changed."""
    return len(now) == len(before) and all(
        one.state is other.state and one.is_stopping is other.is_stopping and one.can_start is other.can_start
        for one, other in zip(now, before, strict=True)
    )


def is_moving(instances: Sequence[InstanceView], *, may_start: bool) -> bool:
    """Whether one of them is being stopped, or starts and may not."""
    return any(
        one.is_stopping or (one.state is InstanceState.STARTING and not may_start) for one in instances
    )


def layout_of(model: SiteModel, instances: Sequence[InstanceView]) -> Layout:
    """Of these instances."""
    return model.layout_of([one.tensor_parallel_degree for one in instances])


def start_spare_watts(model: SiteModel, instances: Sequence[InstanceView]) -> float:
    """How much less those of them that start draw than their worst case, at the lowest clock.

    Where one of them serves it must not be put at risk by an episode. Where none does, a start goes on
    through a dip as long as the idle draw fits; should it draw more than the cap all the same, the ladder
    ends it within the ride-through, as after any fall (`site_agent.survival`).
    """
    starting = [one for one in instances if one.state is InstanceState.STARTING and not one.is_stopping]
    is_alone = len(starting) == len(instances)
    return sum([model.start_spare_watts(one.tensor_parallel_degree, is_alone=is_alone) for one in starting])


def clock_for(model: SiteModel, layout: Layout, budget_watts: float, spare_watts: float) -> int | None:
    """The highest clock at which it fits; at the lowest it may lack the `start_spare_watts` of its starts."""
    clock = model.clock_that_fits(layout, budget_watts)
    if clock is None and spare_watts > 0:
        lowest = model.lowest_clock_mhz
        if model.worst_watts(layout, lowest) - spare_watts <= budget_watts:
            return lowest
    return clock


def fits_held(model: SiteModel, instances: Sequence[InstanceView], budget_watts: float) -> bool:
    """Whether they fit at the lowest clock with what runs on them now, if admission adds no watts beyond.

    Each must have room for an eighth of its slots: with less it is not worth its idle draw.
    """
    held = [
        (
            one.tensor_parallel_degree,
            max(one.running_requests, model.slots_of(one.tensor_parallel_degree, LEAST_SLOTS_RATIO)),
        )
        for one in instances
    ]
    return bool(held) and model.held_watts(held) <= budget_watts


def has_room_to_rest(model: SiteModel, one: InstanceView, others: Layout, budget_watts: float) -> bool:
    """Whether it may stay awake without a request beside these others: it fits, and slows none of them."""
    clock = model.clock_that_fits(others, budget_watts - model.rest_watts(one.tensor_parallel_degree))
    return clock is not None and clock == model.clock_that_fits(others, budget_watts)


def fits_nothing(model: SiteModel, budget_watts: float) -> bool:
    """Whether not one instance of any degree fits."""
    lowest = model.lowest_clock_mhz
    return all(
        model.worst_watts(model.uniform(1, degree), lowest) > budget_watts for degree in model.profiles
    )


def widest_watts(model: SiteModel, instances: Sequence[InstanceView], clock_mhz: int) -> float:
    """The most that one of these draws above a stopped one."""
    idle = model.server_idle_watts
    return max(
        (model.worst_watts(layout_of(model, [one]), clock_mhz) - idle for one in instances), default=0.0
    )
