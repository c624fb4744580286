"""A plan that breaks an invariant is refused where it is read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.golden_records import golden_value

from fleet.profile import LLAMA_70B_H100_TP4
from fleet.profile_record import ProfileInfo
from fleet.records import Plan, SiteInfo
from router.policy.planner.check import plan_faults

INFO = SiteInfo.model_validate(golden_value("SiteInfo"), strict=False)
TARGET = {"model": "llama-3.1-70b", "tensor_parallel_degree": 4, "gpu_clock_mhz": 1980, "instances": 2}


def plan(**fields: Any) -> Plan:
    """A plan with these fields and else nothing."""
    values = golden_value("Plan") | {"weights": {}, "targets": {}, "shares": {}, "expected_shortfall": {}}
    return Plan.model_validate(values | fields, strict=False)


def test_a_plan_within_its_bounds_has_no_fault() -> None:
    """Weights, targets and shares of a known site."""
    good = plan(
        weights={"llama-3.1-70b": {"SS": {"north": 1.0}}},
        targets={"north": [TARGET]},
        shares={"north-farm": {"north": 1.0}},
        expected_shortfall={"llama-3.1-70b": {"LL": 0.5}},
    )
    assert plan_faults(good, {"north": INFO}) == []


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"weights": {"m": {"SS": {"north": 0.7, "south": 0.4}}}}, "sum is 1.1"),
        ({"weights": {"m": {"XX": {"north": 0.7}}}}, "no such class"),
        ({"weights": {"m": {"SS": {"nowhere": 0.7}}}}, "no site nowhere is known"),
        ({"shares": {"north-farm": {"north": 0.7, "south": 0.7}}}, "sum is 1.4"),
        ({"shares": {"south-farm": {"north": 0.7}}}, "site north is at north-farm"),
        ({"targets": {"nowhere": [TARGET]}}, "no site nowhere is known"),
        ({"targets": {"north": [TARGET | {"instances": 4}]}}, "16 GPUs, it has 12"),
        ({"targets": {"north": [TARGET | {"gpu_clock_mhz": 1000}]}}, "no configuration"),
        ({"targets": {"north": [TARGET | {"gpu_clock_mhz": None}]}}, "its own clock"),
        ({"expected_shortfall": {"m": {"XX": 1.0}}}, "no such class"),
    ],
)
def test_each_broken_invariant_is_told(fields: dict[str, Any], fault: str) -> None:
    """In words, so that an operator sees which."""
    infos = {"north": INFO, "south": INFO.model_copy(update={"site_id": "south"})}
    assert any(fault in each for each in plan_faults(plan(**fields), infos))


def test_instances_that_alone_draw_more_than_the_site_may_are_a_fault() -> None:
    """Even empty they would break the cap."""
    small = INFO.model_copy(update={"max_site_watts": 1700.0})
    faults = plan_faults(plan(targets={"north": [TARGET]}), {"north": small})
    assert any("even when idle" in fault for fault in faults)


def test_what_instances_draw_is_by_the_site_s_own_word() -> None:
    """Its profile of the same name says that an empty one draws three times as much."""
    hungry = replace(LLAMA_70B_H100_TP4, idle_watts=3 * LLAMA_70B_H100_TP4.idle_watts)
    wanted = plan(targets={"north": [TARGET]})
    room = INFO.model_copy(update={"max_site_watts": 2500.0})
    assert plan_faults(wanted, {"north": room}) == []
    told = room.model_copy(update={"profiles": (ProfileInfo.of(hungry),)})
    assert any("even when idle" in fault for fault in plan_faults(wanted, {"north": told}))


def test_a_hostile_plan_has_a_bounded_answer() -> None:
    """Thousands of faults are told as twenty."""
    many = plan(weights={"m": {"SS": {f"s{index}": 0.0 for index in range(3000)}}})
    assert len(plan_faults(many, {})) == 20
