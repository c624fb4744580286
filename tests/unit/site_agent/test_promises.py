"""What a site's numbers promise together: one finding each, and what to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from site_agent.promises import Finding, Numbers, findings

GOOD = Numbers(
    reaction_seconds=1.2,
    drain_seconds=1.5,
    stop_seconds=1.5,
    stop_grace_seconds=1.0,
    ride_through_seconds=5.0,
    ride_through_joules=40_000.0,
    watchdog_seconds=3.0,
    safe_floor_watts=1600.0,
    server_idle_watts=1584.0,
    has_server_switch=False,
    full_watts=6600.0,
    max_site_watts=7200.0,
    margin_ratio=0.05,
    guard_ratio=0.04,
    is_governor_enabled=True,
    meter_lag_seconds=0.0,
    is_profile_assumed=False,
    can_set_clock=True,
)


def by_check(numbers: Numbers) -> dict[str, Finding]:
    return {one.check: one for one in findings(numbers)}


def test_good_numbers_pass_and_ask_for_nothing() -> None:
    """Every one."""
    found = findings(GOOD)
    assert {one.status for one in found} == {"pass"}
    assert {one.action for one in found} == {""}


@pytest.mark.parametrize(
    ("changes", "check", "status", "action"),
    [
        ({"drain_seconds": 3.0}, "ladder", "fail", "drain_seconds"),
        ({"drain_seconds": 2.2}, "ladder", "warn", "drain_seconds"),
        ({"meter_lag_seconds": 1.0}, "ladder", "fail", "drain_seconds"),
        ({"ride_through_joules": 10_000.0}, "ride-through energy", "warn", "ride_through_joules"),
        ({"safe_floor_watts": 0.0}, "floor", "warn", "safe_floor_watts"),
        ({"watchdog_seconds": 5.0}, "watchdog", "fail", "watchdog_seconds"),
        ({"is_governor_enabled": False}, "governor", "fail", "governor.enabled"),
        ({"stop_grace_seconds": 5.0}, "governor", "warn", "stop_grace_seconds"),
        ({"max_site_watts": 5000.0}, "limit", "warn", "max_site_watts"),
        ({"is_profile_assumed": True}, "profile", "warn", "heron profile run"),
        ({"can_set_clock": False}, "profile", "warn", "GPUs"),
    ],
)
def test_each_broken_promise_is_named_with_what_to_change(
    changes: dict[str, Any], check: str, status: str, action: str
) -> None:
    """And no other one changes its status, unless it hangs on the same number."""
    found = by_check(replace(GOOD, **changes))
    assert (found[check].status, action in found[check].action) == (status, True), found[check]
    others = {one.status for name, one in found.items() if name not in (check, "ride-through energy")}
    assert others <= {"pass"}


def test_a_server_that_the_feed_switches_off_needs_no_firm_power() -> None:
    """Where less than its idle draw is granted, nothing is, and it is off."""
    found = by_check(replace(GOOD, safe_floor_watts=0.0, has_server_switch=True))["floor"]
    assert (found.status, "switches the server off" in found.message) == ("pass", True)
