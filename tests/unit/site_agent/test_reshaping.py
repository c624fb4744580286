"""Taking instances down that nothing forces down."""

from __future__ import annotations

from dataclasses import replace

from fleet.instance import InstanceState
from fleet.profile import PROFILES, SitePowerModel
from site_agent.reshaping import Reshaping
from site_agent.site_model import SiteModel
from site_agent.situation import GovernorRule, InstanceView

TP = {degree: PROFILES[f"llama-3.1-70b/h100/tp{degree}"] for degree in (2, 4, 8)}
MODEL = SiteModel(
    profile=TP[4],
    power=SitePowerModel(),
    instances=2,
    max_concurrency=32,
    clocks_mhz=TP[4].clocks_mhz,
    other_profiles=(TP[2], TP[8]),
    other_max_concurrency=(16, 64),
)


def one(
    degree: int, number: int, running: int = 0, state: InstanceState = InstanceState.READY
) -> InstanceView:
    return InstanceView(
        instance_id=f"tp{degree}-{number}",
        index=degree * 10 + number,
        state=state,
        running_requests=running,
        tensor_parallel_degree=degree,
        gpu_indices=tuple(range(number * degree, (number + 1) * degree)),
    )


def stopped(degree: int, number: int) -> InstanceView:
    return one(degree, number, state=InstanceState.STOPPED)


def reshaping(**changes: object) -> Reshaping:
    return Reshaping(model=MODEL, rule=replace(GovernorRule(), **changes))  # type: ignore[arg-type]


def ids(found: list[InstanceView]) -> list[str]:
    return [view.instance_id for view in found]


FOURS = [one(4, 0, 5), one(4, 1, 3)]
TWOS = [stopped(2, number) for number in range(4)]


def test_one_group_of_gpus_at_a_time() -> None:
    """What is in the way of the first wanted instance, and nothing while a step is under way."""
    step = reshaping()
    assert ids(step.drops(TWOS, FOURS, is_calm=True, now=0.0)) == ["tp4-0"]
    assert step.drops(TWOS, FOURS, is_calm=False, now=1.0) == []
    up = [one(2, 0, 4), one(2, 1, 1), FOURS[1]]
    assert ids(step.drops([*up[:2], *TWOS[2:]], up, is_calm=True, now=30.0)) == ["tp4-1"]


def test_never_below_what_serves_the_load() -> None:
    """35 requests do not fit into the 32 slots of the other instance."""
    busy = [one(4, 0, 20), one(4, 1, 15)]
    assert reshaping().drops(TWOS, busy, is_calm=True, now=0.0) == []


def test_a_step_that_leaves_nothing_waits_until_nothing_runs() -> None:
    """One of 8 needs every GPU."""
    step, wide = reshaping(), [stopped(8, 0)]
    assert step.drops(wide, FOURS, is_calm=True, now=0.0) == []
    assert step.drops(wide, FOURS, is_calm=True, now=9999.0) == []
    assert ids(step.drops(wide, [one(4, 0), one(4, 1)], is_calm=True, now=10_000.0)) == ["tp4-0", "tp4-1"]


def test_patience_can_be_configured_to_end() -> None:
    """Then streams are broken off, and resumed elsewhere."""
    step, wide = reshaping(reshard_patience_seconds=60.0), [stopped(8, 0)]
    assert step.drops(wide, FOURS, is_calm=True, now=0.0) == []
    assert step.drops(wide, FOURS, is_calm=True, now=59.0) == []
    assert ids(step.drops(wide, FOURS, is_calm=True, now=60.0)) == ["tp4-0", "tp4-1"]


def test_spare_instances_go_one_by_one_the_emptiest_first() -> None:
    """Packing."""
    assert ids(reshaping().drops([FOURS[0]], FOURS, is_calm=True, now=0.0)) == ["tp4-1"]


def test_switches_are_bounded_per_hour() -> None:
    """However often the wish changes."""
    step = reshaping(max_switches_per_hour=2)
    made = [step.drops([FOURS[0]], FOURS, is_calm=True, now=float(now)) for now in range(0, 3000, 100)]
    assert sum(map(bool, made)) == 2
    assert step.drops([FOURS[0]], FOURS, is_calm=True, now=3601.0)


def test_nothing_is_taken_down_for_an_instance_in_a_back_off() -> None:
    """Its GPUs would stand idle."""
    waiting = [replace(TWOS[0], can_start=False)]
    assert ids(reshaping().drops([*waiting, FOURS[1]], FOURS, is_calm=True, now=0.0)) == ["tp4-0"]


def test_what_is_worth_a_pause_needs_nothing_serving_meanwhile() -> None:
    """The one that stays goes at once where there is no power for both; else the other starts first."""
    here, wanted = [one(2, 0, 3)], [stopped(4, 1)]

    def drops(**changes: bool) -> list[str]:
        return ids(reshaping().drops(wanted, here, is_calm=True, now=0.0, **changes))

    assert drops(is_worth_a_pause=True, fits_beside=False) == ["tp2-0"]
    assert drops(is_worth_a_pause=True) == []
    assert drops(fits_beside=False) == []
    assert drops() == []


def test_a_pause_is_not_made_for_an_instance_in_a_back_off() -> None:
    """Nothing would come in its place."""
    wanted = [replace(stopped(4, 1), can_start=False)]
    step = reshaping()
    found = step.drops(
        wanted, [one(2, 0, 3)], is_calm=True, now=0.0, is_worth_a_pause=True, fits_beside=False
    )
    assert found == []
