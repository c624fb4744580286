"""What a site says of itself: unknown is left out, never zero."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from support.fake_drivers import specs

from fleet.instance import InstanceState
from fleet.profile import LLAMA_70B_H100_TP4
from gateway.upstream import Origin
from site_agent import report
from site_agent.drivers.interface import EngineCapabilities
from site_agent.engine_metrics import EngineMetrics, MetricsWindow
from site_agent.instance import Instance, RestartRule
from site_agent.power_status import PowerStatus
from site_agent.site_model import assumed_profile

ORIGIN = Origin.parse("http://127.0.0.1:1")
WAY: dict[InstanceState, list[InstanceState]] = {
    InstanceState.STOPPED: [],
    InstanceState.STARTING: [InstanceState.STARTING],
    InstanceState.READY: [InstanceState.STARTING, InstanceState.READY],
    InstanceState.DRAINING: [InstanceState.STARTING, InstanceState.READY, InstanceState.DRAINING],
}
STOPPED, STARTING, READY, DRAINING = WAY
LOAD = report.Load(running_requests=3, slots=32, headroom_requests=27)


def instances(*states: InstanceState) -> list[Instance]:
    made = [Instance(spec=spec) for spec in specs(len(states))]
    for one, state in zip(made, states, strict=True):
        for step in WAY[state]:
            one.origin = ORIGIN
            one.move(step, 0.0)
    return made


@pytest.mark.parametrize(
    ("states", "is_closing", "is_short", "expected"),
    [
        ([READY, STOPPED], False, False, "serving"),
        ([READY, DRAINING], False, True, "serving"),
        ([DRAINING, STOPPED], False, True, "draining"),
        ([READY, READY], True, False, "draining"),
        ([STOPPED, STOPPED], False, True, "dark"),
        ([STOPPED, STOPPED], True, False, "dark"),
        ([STARTING, STOPPED], False, False, "dark"),
    ],
)
def test_the_state_follows_from_the_instances(
    states: list[InstanceState], is_closing: bool, is_short: bool, expected: str
) -> None:
    """And from why there are none."""
    state = report.site_state(instances(*states), is_closing=is_closing, is_short_of_power=is_short, now=1.0)
    assert state == expected


def test_the_age_of_a_ride_through_is_told_as_a_duration() -> None:
    """So that no reader needs this clock; unknown where none runs."""
    status = PowerStatus(
        cap_watts=4000.0,
        draw_watts=5000.0,
        draw_source="gpu",
        quality="good",
        target_instances=1,
        drain_deadline_at=None,
        episode_at=100.0,
    )
    assert report.site_power(status, 101.5).episode_seconds == 1.5
    assert report.site_power(status, 101.5).headroom_watts == -1000.0
    assert report.site_power(replace(status, episode_at=None), 101.5).episode_seconds is None


def test_a_site_whose_engines_fail_although_there_is_power_is_faulted() -> None:
    """Unlike one without power, it needs a person."""
    made = instances(STOPPED, STOPPED)
    made[0].fail("bad model", RestartRule(backoff_seconds=100), random.Random(1), 0.0)
    assert report.site_state(made, is_closing=False, is_short_of_power=False, now=1.0) == "faulted"
    assert report.site_state(made, is_closing=False, is_short_of_power=True, now=1.0) == "dark"


def test_an_instance_that_failed_is_not_reported_ready() -> None:
    """While it is put away its state on the wire is draining."""
    made = instances(READY)
    made[0].is_stopping = True
    model = _model(made, {})
    assert model.ready_instances == 0
    assert model.instances[0].state == "draining"


def test_figures_come_from_the_engines_pages() -> None:
    """Waiting summed, KV use averaged, quantiles over all tokens of late."""
    windows = {f"i{index}": MetricsWindow() for index in range(2)}
    for index, window in enumerate(windows.values()):
        window.add(EngineMetrics(itl={0.01: 0.0, float("inf"): 0.0}), 0.0)
        window.add(
            EngineMetrics(
                waiting_requests=index, kv_cache_usage_ratio=0.5 * index, itl={0.01: 10.0, float("inf"): 10.0}
            ),
            1.0,
        )
    model = _model(instances(READY, READY), windows)
    assert model.waiting_requests == 1
    assert model.kv_cache_usage_ratio == 0.25
    assert model.headroom_kv_tokens == int(0.75 * 448_303 * 2)
    assert model.itl_seconds_p50 == pytest.approx(0.005)
    assert model.ttft_seconds_p50 is None
    assert model.prefill_tokens_per_second == pytest.approx(21_000)


def test_a_clock_that_nobody_ordered_is_the_one_the_site_reckons_with() -> None:
    """Until the first order; after it each instance's own."""
    first, second = made = instances(READY, READY)
    second.clock_mhz = 1200
    model = _model(made, {})
    assert first.clock_mhz is None
    assert [one.gpu_clock_mhz for one in model.instances] == [1980, 1200]


def test_what_nobody_says_is_unknown() -> None:
    """No page, no profile: no figure."""
    profile = assumed_profile(model="m", stopped_watts=0, idle_watts=1, busy_watts=2)
    model = report.model_report(
        model="m",
        instances=instances(READY),
        load=LOAD,
        windows={"i0": MetricsWindow()},
        profile=profile,
        is_profile_assumed=True,
        clock_mhz=1000,
        now=1.0,
    )
    assert model.waiting_requests is None
    assert model.kv_cache_usage_ratio is None
    assert model.headroom_kv_tokens is None
    assert model.prefill_tokens_per_second is None
    assert model.instances[0].tensor_parallel_degree is None
    assert model.instances[0].gpu_clock_mhz is None  # without a profile clocks mean nothing
    assert model.headroom_requests == 27


def test_capabilities_are_what_the_ingress_lets_through() -> None:
    """A control path is none, whatever the engine has."""
    capabilities = report.capabilities(
        EngineCapabilities(paths=("/v1/completions", "/sleep", "/tokenize"), token_ids=True),
        has_server_switch=False,
    )
    assert capabilities.paths == ("/tokenize", "/v1/completions", "/v1/models")
    assert capabilities.token_ids
    assert not capabilities.server_power
    assert not capabilities.keeps_responses
    keeping = EngineCapabilities(paths=(), keeps_responses=True)
    assert report.capabilities(keeping, has_server_switch=False).keeps_responses
    merging = EngineCapabilities(paths=(), inline_system="merged")
    assert report.capabilities(merging, has_server_switch=False).inline_system == "merged"
    switched = report.capabilities(EngineCapabilities(paths=()), has_server_switch=True)
    assert switched.server_power


def test_configurations_are_one_for_each_clock() -> None:
    """Or a single one where nobody measured anything."""
    profile = LLAMA_70B_H100_TP4
    known = report.configurations(
        model="m",
        profile=profile,
        is_profile_assumed=False,
        clocks_mhz=(800, 1980),
        start_seconds=2.0,
        max_concurrency=16,
    )
    assumed = report.configurations(
        model="m",
        profile=profile,
        is_profile_assumed=True,
        clocks_mhz=(1000,),
        start_seconds=2.0,
        max_concurrency=16,
    )
    assert [(one.gpu_clock_mhz, one.profile_id) for one in known] == [
        (800, profile.profile_id),
        (1980, profile.profile_id),
    ]
    assert [(one.gpu_clock_mhz, one.profile_id) for one in assumed] == [(None, None)]
    assert {one.max_concurrency for one in (*known, *assumed)} == {16}


def test_profiles_that_routers_cannot_know_by_their_name_are_told() -> None:
    """Not the shipped ones as they are; those that differ here are, and measured ones. What no record carries
    is left out, with why."""
    shipped = LLAMA_70B_H100_TP4
    assert report.announced_profiles([shipped]) == ((), ())
    lent = replace(shipped, stopped_watts=shipped.idle_watts)
    mine = [replace(shipped, profile_id=f"mine-{number}") for number in range(9)]
    assert [one.profile_id for one in report.announced_profiles([lent]).profiles] == [shipped.profile_id]
    told, untold = report.announced_profiles(mine)
    assert [one.profile_id for one in told] == [one.profile_id for one in mine[:8]]
    assert untold == ("mine-8: a site tells of 8 profiles at most",)
    endless = replace(mine[0], prefill_tokens_per_second=1e12)
    assert report.announced_profiles([endless, mine[1]]).profiles == (told[1],)
    [why] = report.announced_profiles([endless]).untold
    assert why.startswith("mine-0: prefill_tokens_per_second: ")


def _model(made: list[Instance], windows: dict[str, MetricsWindow]) -> report.ModelReport:
    return report.model_report(
        model="m",
        instances=made,
        load=LOAD,
        windows=windows,
        profile=LLAMA_70B_H100_TP4,
        is_profile_assumed=False,
        clock_mhz=1980,
        now=1.0,
    )
