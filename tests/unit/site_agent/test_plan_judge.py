"""Which plan a site follows."""

from __future__ import annotations

from fleet.records import Plan, PlanTarget, SolverReport
from site_agent.plan_judge import PlanJudge
from site_agent.situation import Target

UNIX_NOW = 1_800_000_000.0


def judge() -> PlanJudge:
    return PlanJudge(site_id="north", model="m", max_clock_skew_seconds=30.0)


def plan(*, epoch: int = 1, sequence: int = 1, solved_at: float = UNIX_NOW, site: str = "north") -> bytes:
    return Plan(
        router_id="r",
        sequence=sequence,
        epoch=epoch,
        solved_at_unix_seconds=solved_at,
        valid_for_seconds=60.0,
        solver=SolverReport(status="optimal", seconds=0.1),
        targets={
            site: (
                PlanTarget(model="m", tensor_parallel_degree=2, gpu_clock_mhz=1400, instances=3),
                PlanTarget(model="another", tensor_parallel_degree=8, instances=1),
            )
        },
    ).to_json()


def test_only_this_sites_targets_for_its_model_count_and_only_while_they_hold() -> None:
    """From arrival on, by this clock."""
    one = judge()
    assert one.targets(0.0) is None
    assert one.take(plan(), now=10.0, unix_now=UNIX_NOW) is None
    assert one.targets(70.0) == (Target(tensor_parallel_degree=2, instances=3, gpu_clock_mhz=1400),)
    assert one.targets(70.1) is None
    assert one.epoch == 1


def test_a_plan_without_this_site_says_nothing() -> None:
    """Which is not the same as nothing awake."""
    one = judge()
    one.take(plan(site="south"), now=0.0, unix_now=UNIX_NOW)
    assert one.targets(1.0) is None
    assert one.plans_taken == 1


def test_a_lower_epoch_and_bytes_that_are_no_plan_are_refused_and_counted() -> None:
    """What was taken before holds."""
    one = judge()
    one.take(plan(epoch=5), now=0.0, unix_now=UNIX_NOW)
    assert "epoch 4 after 5" in str(one.take(plan(epoch=4, sequence=99), now=1.0, unix_now=UNIX_NOW))
    assert one.take(b"{", now=1.0, unix_now=UNIX_NOW) is not None
    assert one.take(plan(epoch=5), now=1.0, unix_now=UNIX_NOW) is None  # it came by both ways
    assert one.refused == {"stale_epoch": 1, "malformed": 1}
    assert one.targets(1.0) is not None


def test_a_plan_that_lay_there_counts_only_if_its_own_clock_says_that_it_holds() -> None:
    """Its planner may be long gone."""
    one = judge()
    one.take(plan(epoch=9, solved_at=UNIX_NOW - 61), now=0.0, unix_now=UNIX_NOW, is_left_over=True)
    assert one.targets(0.0) is None
    one.take(plan(epoch=1, solved_at=UNIX_NOW - 50), now=0.0, unix_now=UNIX_NOW, is_left_over=True)
    assert one.targets(0.0) is not None
