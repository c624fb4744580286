"""The site controls by name: each keeps its own promise, and no control more than that."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from benchmarks.governor.site import SimulatedSite
from fleet.instance import InstanceState
from fleet.power import RideThrough
from fleet.profile import PROFILES, SitePowerModel
from site_agent.controls import SITE_CONTROLS, make_control
from site_agent.site_model import SiteModel
from site_agent.situation import BreakStreams, GovernorRule, SetClock, StopEngine

TP = {degree: PROFILES[f"llama-3.1-70b/h100/tp{degree}"] for degree in (2, 4)}
MODEL = SiteModel(
    profile=TP[4],
    power=SitePowerModel(overhead_ratio=1.1, host_idle_watts=600),
    instances=3,
    max_concurrency=16,
    clocks_mhz=TP[4].clocks_mhz,
)
MAX_WATTS = MODEL.full_watts * 1.1
FLOOR_WATTS = 1.1 * MODEL.server_idle_watts


def run(
    name: str, cap: Callable[[float], float], seconds: float, model: SiteModel = MODEL, **changes: float
) -> SimulatedSite:
    site = SimulatedSite(
        model,
        GovernorRule(load_hold_seconds=10.0),
        RideThrough.for_site(max_site_watts=MAX_WATTS),
        cap,
        random.Random(1),
        control_name=name,
        **changes,  # type: ignore[arg-type]
    )
    site.run(seconds)
    return site


def fall(watts: float) -> Callable[[float], float]:
    """At second 30."""
    return lambda at: MAX_WATTS if at < 30 else watts


@pytest.mark.parametrize("name", sorted(SITE_CONTROLS))
def test_every_control_serves_with_all_it_has_at_full_power(name: str) -> None:
    """Under a load that takes it."""
    site = run(name, lambda _at: MAX_WATTS, 30.0)
    assert site.serving() == 3
    assert site.control.clock_mhz == 1980
    assert site.judge.episodes == 0


@pytest.mark.parametrize("name", ["governed", "gpu_idling", "dynamo_like"])
@pytest.mark.parametrize("watts", [FLOOR_WATTS, 3000.0, 4500.0, 6000.0])
def test_those_that_stop_engines_keep_one_fall(name: str, watts: float) -> None:
    """Any depth that engines can get out of."""
    site = run(name, fall(watts), 60.0)
    assert site.judge.exceeded_seconds == 0
    assert site.judge.episodes <= 1


def test_power_cap_only_lowers_clocks_and_stops_nothing() -> None:
    """Until the lowest clock: below it, it exceeds the cap, and that is counted."""
    site = run("power_cap_only", fall(4500.0), 60.0)
    assert site.judge.exceeded_seconds == 0
    assert site.serving() == 3
    assert site.control.clock_mhz < 1980
    deep = run("power_cap_only", fall(FLOOR_WATTS), 60.0)
    assert deep.serving() == 3
    assert deep.control.clock_mhz == 800
    assert deep.judge.exceeded_seconds > 20
    assert not any(isinstance(command, StopEngine | BreakStreams) for _, command in deep.commands)


def test_gpu_idling_switches_instances_and_never_clocks() -> None:
    """Full clock throughout."""
    site = run("gpu_idling", fall(4500.0), 60.0)
    assert site.serving() == 1
    assert not any(isinstance(command, SetClock) for _, command in site.commands)


def test_dynamo_like_takes_the_least_watts_for_its_load() -> None:
    """Planned anew when the load is known; at full load everything runs."""
    low = run("dynamo_like", lambda _at: MAX_WATTS, 700.0, load_ratio=0.1, finish_per_second=2.0)
    assert low.serving() < 3
    assert low.control.clock_mhz < 1980


def test_a_name_that_is_none_is_an_error_that_names_those_there_are() -> None:
    """As in a configuration."""
    with pytest.raises(ValueError, match="governed, power_cap_only, gpu_idling, dynamo_like"):
        make_control("x", MODEL, GovernorRule(), RideThrough.for_site(max_site_watts=MAX_WATTS))


def test_instances_of_a_simulated_site_end_in_legal_states() -> None:
    """The physics asserts every order; here that it saw some."""
    site = run("governed", lambda at: MAX_WATTS if at % 40 < 20 else FLOOR_WATTS, 200.0)
    assert {one.state for one in site.instances} <= set(InstanceState)
    assert len(site.commands) > 20
