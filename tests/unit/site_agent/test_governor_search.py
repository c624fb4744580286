"""The governor against falls of any depth at any moment, second falls within an episode above all.

Deterministic here; `HYPOTHESIS_PROFILE=search` looks for new examples.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.governor.site import SimulatedSite
from fleet.power import RideThrough
from fleet.profile import PROFILES, SitePowerModel
from site_agent import survival
from site_agent.site_model import SiteModel
from site_agent.situation import GovernorRule, StartEngine, Target

PROFILE = PROFILES["llama-3.1-70b/h100/tp4"]
MODEL = SiteModel(
    profile=PROFILE,
    power=SitePowerModel(overhead_ratio=1.1, host_idle_watts=600),
    instances=3,
    max_concurrency=16,
    clocks_mhz=PROFILE.clocks_mhz,
)
MAX_WATTS = MODEL.full_watts * 1.1
FLOOR_WATTS = 1.1 * MODEL.server_idle_watts
SETTLED_SECONDS = 20.0

Falls = list[tuple[float, float]]
"""(seconds that this level lasts, level: 0 the floor, 1 the site's maximum)."""


def run(
    falls: Falls,
    *,
    seed: int = 1,
    rule: GovernorRule = GovernorRule(),  # noqa: B008 - frozen
    ride_through: RideThrough | None = None,
    model: SiteModel = MODEL,
    **changes: object,
) -> SimulatedSite:
    """Full power until settled, then the falls, then ten seconds more at the last level."""
    points, at = [(0.0, MAX_WATTS)], SETTLED_SECONDS
    for seconds, level in falls:
        points.append((at, FLOOR_WATTS + (MAX_WATTS - FLOOR_WATTS) * level))
        at += seconds

    def cap(now: float) -> float:
        return next(watts for since, watts in reversed(points) if now >= since)

    site = SimulatedSite(
        model,
        rule,
        ride_through or RideThrough.for_site(max_site_watts=MAX_WATTS),
        cap,
        random.Random(seed),
        **changes,  # type: ignore[arg-type]
    )
    site.run(at + 10)
    return site


levels = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
at_any_moment = st.lists(st.tuples(st.floats(1.05, 12), levels), min_size=1, max_size=7)
"""Each level lasts for at least one reading: what the feed never says nobody can obey."""
late_in_an_episode = st.lists(st.tuples(st.floats(4.0, 8.0), levels), min_size=2, max_size=6)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    falls=st.one_of(at_any_moment, late_in_an_episode),
    meter_ratio=st.floats(0.9, 1.1),
    load_ratio=st.one_of(st.just(1.0), st.floats(0.1, 1.0)),
)
@example(seed=74, falls=[(5.26, 0.81), (5.59, 0.003), (5.3, 0.0)], meter_ratio=0.93, load_ratio=1.0)
@example(seed=1, falls=[(4.9, 0.4), (5.0, 0.0)], meter_ratio=1.0, load_ratio=1.0)
@example(seed=1, falls=[(5.9, 0.6), (1.2, 0.3), (5.0, 0.0)], meter_ratio=1.0, load_ratio=1.0)
def test_no_sequence_of_falls_exceeds_the_ride_through(
    seed: int, falls: Falls, meter_ratio: float, load_ratio: float
) -> None:
    """Any depth down to the floor, any spacing that the feed can tell, a profile 10 % off, any load."""
    site = run(falls, seed=seed, meter_ratio=meter_ratio, load_ratio=load_ratio)
    assert site.judge.exceeded_seconds == 0


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    falls=late_in_an_episode,
    seconds=st.floats(4.3, 12),
    share=st.floats(0.55, 1.5),
    recovery_seconds=st.floats(0.5, 10),
)
def test_every_ride_through_that_is_not_refused_is_kept(
    seed: int, falls: Falls, seconds: float, share: float, recovery_seconds: float
) -> None:
    """Long and short, with much energy and with little: what is not refused holds."""
    needed = (MODEL.full_watts - FLOOR_WATTS) * 2.7
    ride_through = RideThrough(joules=needed * share, seconds=seconds, recovery_seconds=recovery_seconds)
    rule = GovernorRule()
    if survival.refusal(MODEL, rule, ride_through) is None:
        site = run(falls, seed=seed, ride_through=ride_through)
        assert site.judge.exceeded_seconds == 0


def test_keeping_engines_can_exceed_it_by_a_second_fall() -> None:
    """What `further_fall_ratio` = 0 gives up, and so that the test above can fail."""
    falls = [(5.2, 0.45), (5.0, 0.0)]
    keeping = run(falls, rule=GovernorRule(further_fall_ratio=0.0))
    assert keeping.judge.exceeded_seconds > 0
    assert run(falls).judge.exceeded_seconds == 0


def test_a_fall_that_leaves_the_draw_within_the_cap_stops_nothing() -> None:
    """No episode, no conservatism: at a low load a deep fall changes the clock only."""
    site = run([(30.0, 0.75)], load_ratio=0.05, meter_ratio=0.8)
    assert site.broken == 0
    assert site.serving() == 3


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    falls=at_any_moment,
    wishes=st.lists(st.sampled_from([(2, 6), (2, 3), (4, 3), (4, 1), (8, 1), (16, 1), (1, 1)]), max_size=4),
)
def test_a_plan_never_exceeds_the_ride_through(
    seed: int, falls: Falls, wishes: list[tuple[int, int]]
) -> None:
    """Whatever it wants, possible or not, and however often it changes its mind."""
    others = (PROFILES["llama-3.1-70b/h100/tp2"],)
    model = replace(MODEL, other_profiles=others, other_max_concurrency=(16,))

    def targets(now: float) -> tuple[Target, ...] | None:
        if not wishes:
            return None
        degree, count = wishes[int(now / 9) % len(wishes)]
        return (Target(tensor_parallel_degree=degree, instances=count, gpu_clock_mhz=1400),)

    site = run(falls, seed=seed, model=model, targets=targets, load_ratio=0.3)
    assert site.judge.exceeded_seconds == 0


@pytest.mark.parametrize("sigma", [0.002, 0.005, 0.01])
def test_turbulence_starts_no_episode(sigma: float) -> None:
    """It is kept as headroom: an episode would cost far more than the headroom does."""
    rng = random.Random(3)
    caps = [MAX_WATTS * 0.7]
    for _ in range(600):
        caps.append(caps[-1] + 0.03 * (MAX_WATTS * 0.7 - caps[-1]) + rng.gauss(0, sigma) * MAX_WATTS)
    cap: Callable[[float], float] = lambda at: caps[int(at)]  # noqa: E731
    site = SimulatedSite(
        MODEL, GovernorRule(), RideThrough.for_site(max_site_watts=MAX_WATTS), cap, random.Random(3)
    )
    site.run(120)  # learns it
    before = site.judge.episodes
    site.run(470)
    assert site.judge.episodes == before
    assert sum(isinstance(command, StartEngine) for at, command in site.commands if at > 120) <= 3
