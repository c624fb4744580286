"""A planning problem from records: what is not known is left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.golden_records import golden_value

from fleet.profile import PROFILES
from fleet.profile_record import ProfileInfo
from fleet.records import SiteInfo, SiteReport
from router.policy.outlook import Horizon, PowerOutlook, Quantiles
from router.policy.planner import from_records
from router.policy.planner.configurations import TYPICAL_WORKS, on_grid, works_of
from router.policy.planner.from_records import (
    MAX_SITE_CONFIGURATIONS,
    SiteRecordsView,
    power_of,
    present_of,
    problem_of,
)
from router.policy.planner.problem import (
    CLASSES,
    ClassDemand,
    PlannerParameters,
    PlanningProblem,
    Target,
)
from router.policy.planner.problem import Quantiles as Load
from router.policy.planner.slow import solve_slow

MODEL = "llama-3.1-70b"


def info(site_id: str = "a", **changes: Any) -> SiteInfo:
    """A server of eight H100s that runs the default profile at two clocks."""
    configurations = [
        {
            "model": MODEL,
            "tensor_parallel_degree": degree,
            "gpu_clock_mhz": clock,
            "profile_id": f"llama-3.1-70b/h100/tp{degree}",
        }
        for degree in (4, 8)
        for clock in (1400, 1980)
    ]
    values = golden_value("SiteInfo") | {
        "site_id": site_id,
        "farm_id": f"farm-{site_id}",
        "gpu_count": 8,
        "server_idle_watts": 1700.0,
        "max_site_watts": 7500.0,
        "configurations": configurations,
    }
    return SiteInfo.model_validate(values | changes, strict=False)


def outlook(watts: float = 8000.0, *points: tuple[float, float, float, float]) -> PowerOutlook:
    """A reading of now, with a forecast of (horizon, p10, p50, p90)."""
    return PowerOutlook(
        site_id="a",
        granted_power_watts=watts,
        quality="good",
        arrived_at=100.0,
        forecast=tuple(Horizon(seconds, Quantiles(*watts)) for seconds, *watts in points),
    )


def problem(*views: SiteRecordsView, rate: float = 1.0, **options: Any) -> PlanningProblem:
    """Sites a, b, …, each class at the same rate."""
    demand = tuple(
        ClassDemand(model=MODEL, request_class=name, requests_per_second=Load(p10=rate, p50=rate, p90=rate))
        for name in CLASSES
    )
    return problem_of(
        dict(zip("abcdef", views, strict=False)),
        demand,
        {(MODEL, "MM"): (1000.0, 120.0)},
        now=100.5,
        horizon_seconds=900.0,
        margin_ratio=0.05,
        parameters=PlannerParameters(),
        **options,
    )


def test_a_site_becomes_what_can_be_planned_for() -> None:
    """Its profile's figures for the load, its power less the margin, and it solves."""
    found = problem(SiteRecordsView(info=info(), report=None, outlook=outlook()))
    (site,) = found.sites
    assert len(site.configurations) == 4
    assert site.power is not None
    assert site.power.p10 == pytest.approx(7500.0)
    assert solve_slow(found).status == "optimal"


def test_the_power_is_the_lowest_until_the_horizon_and_follows_the_cap_rule() -> None:
    """Margin off, firm power in, never above what the site can draw."""
    reading = outlook(6000.0, (60.0, 4000.0, 6000.0, 7000.0), (900.0, 5000.0, 6500.0, 9000.0))
    found = power_of(reading, info(), 100.0, 900.0, 0.05)
    assert found is not None
    assert (found.p10, found.p50, found.p90) == pytest.approx((3800.0, 5700.0, 5700.0))
    floor = power_of(outlook(0.0), info(safe_floor_watts=2000.0), 100.0, 900.0, 0.05)
    assert floor is not None
    assert floor.p10 == 2000.0


def test_a_reading_that_is_too_old_is_no_power() -> None:
    """Nor is none at all: unknown, not zero."""
    assert power_of(outlook(), info(), 161.0, 900.0, 0.05) is None
    assert power_of(None, info(), 100.0, 900.0, 0.05) is None
    found = problem(SiteRecordsView(info=info(), report=None, outlook=None))
    assert not found.sites[0].is_plannable


def test_sites_without_info_or_that_need_a_person_are_left_out() -> None:
    """A foreign site is routed to, not planned for."""
    report = SiteReport.model_validate(golden_value("SiteReport") | {"state": "faulted"}, strict=False)
    found = problem(
        SiteRecordsView(info=None, report=None, outlook=outlook()),
        SiteRecordsView(info=info("b"), report=report, outlook=outlook()),
    )
    assert found.sites == ()
    assert solve_slow(found).status == "infeasible"


def test_a_configuration_without_its_profile_is_left_out() -> None:
    """Of two the one that is described stays; a degree that is not its profile's is none."""
    strange = info().model_dump()["configurations"][:1]
    unknown = strange[0] | {"profile_id": "nobody/knows/it"}
    wrong = strange[0] | {"tensor_parallel_degree": 2}
    found = problem(
        SiteRecordsView(
            info=info(configurations=[strange[0], unknown, wrong]), report=None, outlook=outlook()
        )
    )
    assert len(found.sites[0].configurations) == 1
    without = problem(SiteRecordsView(info=info(configurations=[unknown]), report=None, outlook=outlook()))
    assert solve_slow(without).unplanned == ("a",)


def test_instances_that_run_are_counted_by_configuration() -> None:
    """Ready and starting ones; one that does not say how it runs is left out."""
    running = {"state": "ready", "tensor_parallel_degree": 4, "gpu_clock_mhz": 1980}
    report = SiteReport.model_validate(
        golden_value("SiteReport")
        | {
            "models": [
                {
                    "model": MODEL,
                    "instances": [
                        running | {"instance_id": "1"},
                        running | {"instance_id": "2", "state": "starting"},
                        running | {"instance_id": "3", "state": "stopped"},
                        {"instance_id": "4", "state": "ready"},
                    ],
                }
            ]
        },
        strict=False,
    )
    expected = Target(model=MODEL, tensor_parallel_degree=4, gpu_clock_mhz=1980, instances=2)
    assert present_of(report) == (expected,)
    assert present_of(None) == ()


def test_sizes_are_on_a_grid_and_typical_where_nobody_asked() -> None:
    """A mean that drifts by a per cent changes no figure."""
    assert on_grid(1000.0) == on_grid(1010.0)
    assert on_grid(1000.0) == pytest.approx(1000.0, rel=0.03)
    works = works_of({"SS": (100.0, 20.0)})
    assert works["LL"] == TYPICAL_WORKS["LL"]
    assert works["SS"].prompt_tokens == pytest.approx(100.0, rel=0.03)


def test_figures_move_the_right_way() -> None:
    """More GPUs and a higher clock do more; a lower clock needs fewer joules; late rates are higher."""
    found = problem(SiteRecordsView(info=info(), report=None, outlook=outlook())).sites[0].configurations
    by_name = {(entry.tensor_parallel_degree, entry.gpu_clock_mhz): entry for entry in found}
    slow, fast, large = by_name[4, 1400], by_name[4, 1980], by_name[8, 1980]
    for index in range(len(CLASSES)):
        assert slow.requests_per_second[index] <= fast.requests_per_second[index]
        assert fast.requests_per_second[index] <= large.requests_per_second[index]
        assert all(e.requests_per_second[index] <= e.late_requests_per_second[index] for e in found)
    assert slow.full_watts < fast.full_watts < large.full_watts
    assert large.latency_ratio[4] == pytest.approx(0.2, abs=0.01)


def measured(**changes: Any) -> ProfileInfo:
    """A profile that nobody ships: the default one's figures, changed."""
    changes = {"profile_id": f"{MODEL}/mine/tp4/0123456789ab"} | changes
    return ProfileInfo.of(replace(PROFILES[f"{MODEL}/h100/tp4"], **changes))


def site_with(profile: ProfileInfo, site_id: str = "a") -> SiteRecordsView:
    """A site that runs nothing else, at two of its clocks."""
    configuration = {
        "model": MODEL,
        "tensor_parallel_degree": profile.tensor_parallel_degree,
        "profile_id": profile.profile_id,
        "max_concurrency": 32,
    }
    clocks = [configuration | {"gpu_clock_mhz": clock} for clock in (1400, 1980)]
    told = info(site_id, configurations=clocks, profiles=[profile])
    return SiteRecordsView(info=told, report=None, outlook=outlook())


def test_a_site_is_planned_for_by_the_profile_that_it_tells_of() -> None:
    """At its own degree and clocks, as one that is shipped would be."""
    found = problem(site_with(measured(prefill_tokens_per_second=40_000.0)))
    (site,) = found.sites
    assert {(one.tensor_parallel_degree, one.gpu_clock_mhz) for one in site.configurations} == {
        (4, 1400),
        (4, 1980),
    }
    planned = solve_slow(found)
    assert planned.status == "optimal"
    assert planned.unplanned == ()
    assert {one.gpu_clock_mhz for one in planned.targets["a"]} <= {1400, 1980}


def test_sites_with_profiles_of_one_name_have_each_its_own_figures() -> None:
    """The same file with other assumed watts, or a name that is somebody else's."""
    cheap, dear = measured(idle_watts=300.0, stopped_watts=280.0), measured(stopped_watts=400.0)
    found = problem(site_with(cheap), site_with(dear, "b")).sites
    assert [one.configurations[0].stopped_watts for one in found] == [280.0, 400.0]
    shipped = PROFILES[f"{MODEL}/h100/tp4"]
    liar = measured(profile_id=shipped.profile_id, stopped_watts=1.0)
    honest = SiteRecordsView(info=info("b"), report=None, outlook=outlook())
    of_liar, of_honest = problem(site_with(liar), honest).sites
    assert of_liar.configurations[0].stopped_watts == 1.0
    assert of_honest.configurations[0].stopped_watts == shipped.stopped_watts


def test_configurations_are_bounded_for_a_site_and_for_the_fleet() -> None:
    """Whatever sites announce: each different one is work, and their router forwards requests meanwhile."""
    configuration = {"model": MODEL, "tensor_parallel_degree": 4, "profile_id": f"{MODEL}/h100/tp4"}
    many = info(configurations=[configuration | {"start_seconds": float(number)} for number in range(200)])
    [site] = problem(SiteRecordsView(info=many, report=None, outlook=outlook())).sites
    assert len(site.configurations) == MAX_SITE_CONFIGURATIONS


def test_a_fleet_of_many_different_configurations_is_planned_for_in_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sites in order of name; those that say what others said before cost nothing more."""
    monkeypatch.setattr(from_records, "MAX_CONFIGURATIONS", 3)
    views = [
        SiteRecordsView(info=info(name), report=None, outlook=outlook())
        if name != "b"
        else site_with(measured(), "b")
        for name in "abc"
    ]
    assert [len(site.configurations) for site in problem(*views).sites] == [3, 0, 3]
