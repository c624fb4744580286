"""The fluid view of an instance: limits, order and Little's law."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.capacity import (
    Slo,
    Work,
    alone_seconds,
    busy_watts,
    mean_running,
    operating_point,
    prefill_ratio,
    reference_slo,
    requests_per_second,
)
from fleet.mixes import AZURE_2023_CODING, AZURE_2023_CONVERSATION
from fleet.performance import PerformanceProfile
from fleet.profile import LLAMA_70B_H100_TP2, LLAMA_70B_H100_TP4, LLAMA_70B_H100_TP8, PROFILES

TP4 = LLAMA_70B_H100_TP4
CHAT = Work(prompt_tokens=1000, output_tokens=200)
works = st.builds(Work, prompt_tokens=st.floats(1, 6000), output_tokens=st.floats(1, 1500))
profiles = st.sampled_from(list(PROFILES.values()))
clocks = st.sampled_from(TP4.clocks_mhz)
concurrencies = st.sampled_from([1, 8, 64, 256])


def test_a_request_alone_takes_its_prefill_and_its_steps() -> None:
    """One chunk, then 199 steps of one request with its context half way."""
    ttft, e2e = alone_seconds(TP4, 1980, CHAT)
    assert ttft == pytest.approx(0.0158 + 1000 / 10_500, abs=1e-4)
    assert e2e == pytest.approx(ttft + 199 * TP4.itl_seconds(1, 1980, 1100))


def test_the_reference_is_the_fastest_profile_at_full_clock() -> None:
    """Five times tensor-parallel 8."""
    slo = reference_slo(PROFILES.values(), CHAT)
    ttft, e2e = alone_seconds(LLAMA_70B_H100_TP8, 1980, CHAT)
    assert (slo.ttft_seconds, slo.e2e_seconds) == (pytest.approx(5 * ttft), pytest.approx(5 * e2e))
    with pytest.raises(ValueError, match="there is none"):
        reference_slo([], CHAT)


def test_prefill_alone_is_bounded_by_full_chunks() -> None:
    """One output token: nothing decodes, and a step of 2,048 tokens starts 2.048 prompts of 1,000."""
    work = Work(prompt_tokens=1000, output_tokens=1)
    step = TP4.prefill_step_seconds(1980) + 2048 / 10_500
    rate = requests_per_second(TP4, 1980, work, max_concurrency=256)
    assert rate == pytest.approx(2.048 / step)


def test_one_slot_serves_one_request_after_the_other() -> None:
    """Then the rate is 1 ÷ E2E alone."""
    rate = requests_per_second(TP4, 1980, CHAT, max_concurrency=1)
    assert rate == pytest.approx(1 / alone_seconds(TP4, 1980, CHAT)[1], rel=0.01)


def test_what_does_not_fit_is_not_served() -> None:
    """Longer than the model or than the KV cache of tensor-parallel 2; no slots."""
    assert requests_per_second(TP4, 1980, Work(prompt_tokens=8000, output_tokens=500), max_concurrency=8) == 0
    assert requests_per_second(TP4, 1980, CHAT, max_concurrency=0) == 0
    assert operating_point(TP4, 1980, CHAT, 1.0, max_concurrency=0).running == 0


def test_tensor_parallel_2_is_held_back_by_its_kv_cache() -> None:
    """Two of them on four GPUs sustain less than half of what one of tensor-parallel 4 does."""
    two = 2 * requests_per_second(LLAMA_70B_H100_TP2, 1980, CHAT, max_concurrency=256)
    assert two < 0.5 * requests_per_second(TP4, 1980, CHAT, max_concurrency=256)


def test_an_slo_lowers_the_rate_and_an_impossible_one_stops_it() -> None:
    """TTFT and E2E at the rate it allows are within it."""
    free = requests_per_second(TP4, 1980, CHAT, max_concurrency=256)
    slo = reference_slo(PROFILES.values(), CHAT)
    bound = requests_per_second(TP4, 1980, CHAT, max_concurrency=256, slo=slo)
    assert 0 < bound < free
    point = operating_point(TP4, 1980, CHAT, bound, max_concurrency=256)
    assert point.ttft_seconds <= slo.ttft_seconds * 1.0001
    assert point.e2e_seconds <= slo.e2e_seconds * 1.0001
    never = Slo(ttft_seconds=0.001, e2e_seconds=0.001)
    assert requests_per_second(TP4, 1980, CHAT, max_concurrency=256, slo=never) == 0


@given(profile=profiles, work=works, concurrency=concurrencies)
def test_a_higher_clock_never_sustains_less(
    profile: PerformanceProfile, work: Work, concurrency: int
) -> None:
    """Whatever the size."""
    rates = [
        requests_per_second(profile, clock, work, max_concurrency=concurrency) for clock in profile.clocks_mhz
    ]
    assert all(b >= a * (1 - 1e-9) for a, b in itertools.pairwise(rates))


@given(work=works, clock=clocks, concurrency=concurrencies)
def test_more_gpus_never_sustain_less(work: Work, clock: int, concurrency: int) -> None:
    """One instance at tensor-parallel 2, 4, 8 with the same slots."""
    order = (LLAMA_70B_H100_TP2, TP4, LLAMA_70B_H100_TP8)
    rates = [requests_per_second(profile, clock, work, max_concurrency=concurrency) for profile in order]
    assert all(b >= a * (1 - 1e-9) for a, b in itertools.pairwise(rates))


@given(profile=profiles, work=works, clock=clocks, concurrency=concurrencies, share=st.floats(0.01, 1.2))
def test_running_grows_with_the_rate_and_stays_within_the_slots(
    profile: PerformanceProfile, work: Work, clock: int, concurrency: int, share: float
) -> None:
    """And the point reached is the rate asked for, up to the most."""
    most = requests_per_second(profile, clock, work, max_concurrency=concurrency)
    if most == 0:
        return
    point = operating_point(profile, clock, work, share * most, max_concurrency=concurrency)
    less = operating_point(profile, clock, work, 0.9 * share * most, max_concurrency=concurrency)
    assert point.requests_per_second == pytest.approx(min(1.0, share) * most, rel=1e-6)
    assert 0 < less.running <= point.running * (1 + 1e-9) <= concurrency * (1 + 1e-6)
    assert less.e2e_seconds <= point.e2e_seconds * (1 + 1e-9)
    assert point.ttft_seconds <= point.e2e_seconds
    assert math.isfinite(point.e2e_seconds)


def test_at_a_low_rate_running_is_the_share_of_time_that_it_works() -> None:
    """Little's law: one request a minute, each alone."""
    running = mean_running(TP4, 1980, CHAT, 1 / 60, max_concurrency=256)
    assert running == pytest.approx(alone_seconds(TP4, 1980, CHAT)[1] / 60, rel=0.05)
    assert mean_running(TP4, 1980, CHAT, 0.0, max_concurrency=256) == 0


def test_watts_go_from_idle_over_one_request_to_the_rows() -> None:
    """Below one request in the mean it is idle for part of the time."""
    one = TP4.watts(1, 1980)
    assert busy_watts(TP4, 1980, 0.0) == 460
    assert busy_watts(TP4, 1980, 0.5) == pytest.approx((460 + one) / 2)
    assert busy_watts(TP4, 1980, 32) == pytest.approx(1794)
    assert busy_watts(TP4, 1980, 32, prefill_ratio=1.0) == pytest.approx(TP4.prefill_watts(1980))
    parts = 0.5 * 460 + 0.4 * one + 0.1 * TP4.prefill_watts(1980)
    assert busy_watts(TP4, 1980, 0.5, prefill_ratio=0.1) == pytest.approx(parts)


def test_the_share_of_time_that_goes_to_prompts() -> None:
    """Prompt tokens a second ÷ those that it reads, and never more than all."""
    most = TP4.prefill_rate(1980) / CHAT.prompt_tokens
    assert prefill_ratio(TP4, 1980, CHAT, most / 4) == pytest.approx(0.25)
    assert prefill_ratio(TP4, 1980, CHAT, 2 * most) == 1.0


def test_every_class_of_the_published_mixes_can_be_served_within_its_slo() -> None:
    """On tensor-parallel 4 and 8 at full clock."""
    for mix in (AZURE_2023_CONVERSATION, AZURE_2023_CODING):
        for one in mix.classes:
            slo = reference_slo(PROFILES.values(), one.work)
            for profile in (TP4, LLAMA_70B_H100_TP8):
                assert requests_per_second(profile, 1980, one.work, max_concurrency=256, slo=slo) > 0


def test_a_profile_whose_steps_cost_nothing_by_themselves_has_a_rate_too() -> None:
    """An assumed one: all its time is the tokens' own."""
    flat = replace(
        TP4, profile_id="flat", step_overhead_seconds=0.0, weights_seconds=0.0, kv_seconds_per_token=0.0
    )
    slo = Slo(ttft_seconds=60, e2e_seconds=600)
    work = Work(prompt_tokens=1000, output_tokens=100)
    assert requests_per_second(flat, 1980, work, max_concurrency=8, slo=slo) > 0


@pytest.mark.parametrize("fault", [{"prompt_tokens": 0}, {"output_tokens": 0.5}, {"prompt_tokens": math.nan}])
def test_work_without_a_token_is_refused(fault: dict[str, float]) -> None:
    """The message names the field."""
    with pytest.raises(ValueError, match=next(iter(fault))):
        Work(**({"prompt_tokens": 10.0, "output_tokens": 10.0} | fault))
