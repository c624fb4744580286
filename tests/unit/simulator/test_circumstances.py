"""What goes wrong without a fault: late reports, wrong forecasts and lengths, servers off, constant power."""

from __future__ import annotations

import numpy as np
import pytest
from support.scenes import NAMEPLATE_WATTS, scene

from simulator.request import Outcome
from simulator.settings import RouterSettings, Telemetry
from simulator.world import Block, World, simulate

DARK = (0.9, 0.9, 0.0, 0.0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9)
"""Every 30 s: dark from 60 s on, power again from 110 s."""


def outcomes(block: Block) -> dict[str, int]:
    return {one.name: int(np.count_nonzero(block.record.outcome == one)) for one in Outcome}


def test_a_report_is_heard_as_late_as_it_is_delayed() -> None:
    """And not before."""
    world = World(scene(telemetry=Telemetry(report_delay_seconds=5.0)))
    world.begin()
    world.events.run(5.0)
    assert not world.router.view.snapshot.sites
    world.events.run(6.0)
    assert sorted(world.router.view.snapshot.sites) == ["s0", "s1", "s2"]


def test_late_reports_cost_pushbacks_and_lose_nothing() -> None:
    """A site that lost its power is asked on an old word, says so, and the request goes elsewhere."""
    winds = ((0.9, 0.9, 0.0, 0.0), (0.9,))
    fresh = simulate(scene(winds=winds, rate=8))
    late = simulate(scene(winds=winds, rate=8, telemetry=Telemetry(report_delay_seconds=5.0)))
    assert sum(late.pushbacks.values()) > sum(fresh.pushbacks.values())
    counted = late.record.arrived_at < late.scene.seconds
    ends = set(late.record.outcome[counted].tolist())
    assert ends <= {Outcome.SERVED, Outcome.SHED}


def test_a_wrong_forecast_is_wrong_by_a_factor_and_the_power_is_not() -> None:
    """Forecasts only: what is measured and granted stays, and the cap holds."""
    worlds = [World(scene(telemetry=Telemetry(forecast_error_ratio=ratio))) for ratio in (0.0, 0.5)]
    for world in worlds:
        world.begin()
        world.events.run(65.0)
    right, wrong = (world.router.view.snapshot.power["s0"] for world in worlds)
    assert right.granted_power_watts == wrong.granted_power_watts
    assert right.forecast != wrong.forecast
    for world in worlds:
        assert sum(site.exceeded_seconds for site in world.sites.values()) == 0


def test_a_wrong_length_changes_what_is_expected_and_not_what_comes() -> None:
    """The answers are as long as they are."""
    right, wrong = (
        simulate(scene(router=RouterSettings(policy="heron", length_error_ratio=ratio)))
        for ratio in (0.0, 1.0)
    )
    served = (right.record.outcome == Outcome.SERVED) & (wrong.record.outcome == Outcome.SERVED)
    assert served.any()
    assert np.array_equal(right.record.produced_tokens[served], wrong.record.produced_tokens[served])
    assert not np.array_equal(right.record.e2e_seconds, wrong.record.e2e_seconds)


def test_a_server_without_power_is_off_and_boots_when_it_has_power_again() -> None:
    """It draws nothing, then its idle while it boots, and its agent answers `boot_seconds` later; off it
    stays for two minutes at the least (`power_feed.server_switch`)."""
    world = World(scene(winds=(DARK, (0.8,)), rate=3, seconds=420))
    world.begin()
    site = world.sites["s0"]
    world.events.run(85.0)
    assert not site.plant.is_on
    assert site.plant.draw_watts() == 0
    off_at, on_at = 85.0, None
    for second in range(86, 420):
        world.events.run(float(second))
        if on_at is None and site.plant.is_on:
            on_at = float(second)
            assert site.is_down
            assert site.plant.draw_watts() == pytest.approx(site.model.server_idle_watts)
        if on_at is not None and not site.is_down:
            break
    assert on_at is not None
    assert on_at > off_at
    assert world.events.now - on_at == pytest.approx(site.settings.boot_seconds, abs=1.5)


def test_without_a_switch_a_server_goes_on_drawing_its_idle() -> None:
    """Which counts as time below idle."""
    block = simulate(scene(winds=(DARK, (0.8,)), rate=3, seconds=200, has_switch=False))
    assert block.below_idle_seconds["s0"] > 20
    assert block.exceeded_seconds["s0"] == pytest.approx(block.below_idle_seconds["s0"])


def test_with_all_the_power_there_is_nothing_is_short() -> None:
    """As at the grid: everything is served and nobody lowers a clock."""
    given = scene(rate=4)
    for watts in given.watts.values():
        watts[:] = NAMEPLATE_WATTS
    block = simulate(given)
    assert outcomes(block)["SHED"] == outcomes(block)["BROKEN"] == 0
    assert block.commands["SetClock"] == 0
