"""What a leader does between clock and solver."""

from __future__ import annotations

import pytest
from support.planned_site import PlannedSite

from fleet.records import SiteInfo
from router.policy.outlook import PowerOutlook
from router.policy.planner.demand import ClassLoad, Key
from router.policy.planner.from_records import SiteRecordsView
from router.policy.planner.plan_maker import BrokenPlanError, PlanMaker
from router.policy.planner.problem import PlannerParameters
from router.policy.planner.slow import solve_slow

STUB = PlannedSite("a")
INFO = SiteInfo.from_json(STUB.info())
MODEL = INFO.configurations[0].model
LOADS: dict[Key, ClassLoad] = {
    (MODEL, "MM"): ClassLoad(requests_per_second=2.0, prompt_tokens=1000.0, output_tokens=200.0)
}


def maker(learn_seconds: float = 0.0) -> PlanMaker:
    return PlanMaker(
        interval_seconds=900.0,
        learn_seconds=learn_seconds,
        valid_for_seconds=1800.0,
        margin_ratio=0.05,
        parameters=PlannerParameters(),
    )


def sites(watts: float = 6000.0, now: float = 0.0) -> dict[str, SiteRecordsView]:
    outlook = PowerOutlook(
        site_id="a", granted_power_watts=watts, quality="good", arrived_at=now, forecast=()
    )
    return {"a": SiteRecordsView(info=INFO, report=None, outlook=outlook)}


def test_nothing_is_due_before_the_load_is_known() -> None:
    """Not known yet must not look like no load."""
    subject = maker(learn_seconds=60.0)
    assert subject.due(sites(), 0.0) is None
    subject.take_loads(LOADS, 0.0)
    assert subject.due(sites(now=30.0), 30.0) is None
    subject.take_loads(LOADS, 60.0)
    assert subject.due(sites(now=60.0), 60.0) == "slow"


def test_nothing_is_due_without_a_site_whose_power_is_known() -> None:
    """There is nobody to plan for."""
    subject = maker()
    subject.take_loads(LOADS, 0.0)
    assert subject.due({}, 0.0) is None
    assert subject.due({"a": SiteRecordsView(info=INFO, report=None, outlook=None)}, 1.0) is None
    assert subject.due({"a": SiteRecordsView(info=None, report=None, outlook=None)}, 2.0) is None


def test_a_solved_problem_becomes_a_plan_and_more_load_a_new_problem() -> None:
    """With the epoch and sequence it was given; a slow plan's targets are what fast ones count on."""
    subject = maker()
    subject.take_loads(LOADS, 0.0)
    assert subject.due(sites(), 0.0) == "slow"
    task = subject.begin("slow", sites(), 0.0).task()
    assert task.instances == {}
    planned = solve_slow(task.problem)
    plan = subject.plan(
        task,
        planned,
        {"a": INFO},
        router_id="r",
        sequence=7,
        epoch=3,
        solved_at_unix_seconds=0.0,
        solver_seconds=0.1,
    )
    assert (plan.epoch, plan.sequence, plan.valid_for_seconds) == (3, 7, 1800.0)
    assert plan.weights[MODEL]["MM"] == {"a": pytest.approx(1.0)}
    subject.solved("slow", planned)
    assert subject.begin("fast", sites(), 1.0).instances == {"a": planned.targets["a"]}
    subject.take_loads({key: _times(load, 10) for key, load in LOADS.items()}, 65.0)
    assert subject.due(sites(now=65.0), 65.0) != "slow"
    assert subject.due(sites(now=69.0), 69.0) == "slow"


def _times(load: ClassLoad, factor: float) -> ClassLoad:
    return ClassLoad(
        requests_per_second=factor * load.requests_per_second,
        prompt_tokens=load.prompt_tokens,
        output_tokens=load.output_tokens,
    )


def test_a_plan_that_breaks_an_invariant_leaves_nowhere() -> None:
    """Such as one for a site that is not known."""
    subject = maker()
    subject.take_loads(LOADS, 0.0)
    task = subject.begin("slow", sites(), 0.0).task()
    with pytest.raises(BrokenPlanError, match="breaks an invariant"):
        subject.plan(
            task,
            solve_slow(task.problem),
            {},
            router_id="r",
            sequence=1,
            epoch=1,
            solved_at_unix_seconds=0.0,
            solver_seconds=0.1,
        )


def test_a_new_leader_plans_at_once_and_a_failure_is_tried_again() -> None:
    """What the one before had begun is not its own; after a failure half a minute passes."""
    subject = maker()
    subject.take_loads(LOADS, 0.0)
    assert subject.due(sites(), 0.0) == "slow"
    subject.begin("slow", sites(), 0.0)
    subject.failed("slow", 1.0)
    assert subject.due(sites(now=2.0), 2.0) is None
    assert subject.due(sites(now=32.0), 32.0) == "slow"
    subject.begin("slow", sites(now=32.0), 32.0)
    assert subject.due(sites(now=33.0), 33.0) is None
    subject.lead()
    assert subject.due(sites(now=34.0), 34.0) == "slow"
