"""The profiles: interpolation inside the rows, clamping outside, context and clocks by the model."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.profile import (
    LLAMA_70B_H100_TP2,
    LLAMA_70B_H100_TP4,
    LLAMA_70B_H100_TP8,
    PROFILES,
    PerformanceProfile,
    ProfileRow,
    SitePowerModel,
)

PROFILE = LLAMA_70B_H100_TP4
batches = st.floats(0, 4000)
clocks = st.sampled_from(PROFILE.clocks_mhz)
profiles = st.sampled_from(list(PROFILES.values()))
contexts = st.floats(0, 400_000)

HAND = PerformanceProfile(
    profile_id="hand",
    model="m",
    gpu_model="g",
    tensor_parallel_degree=1,
    full_clock_mhz=2000,
    clocks_mhz=(1000, 2000),
    stopped_watts=50,
    idle_watts=100,
    prefill_tokens_per_second=10_000,
    kv_tokens=100_000,
    max_model_len=8192,
    rows=(
        ProfileRow(running_requests=10, watts=300, itl_seconds=0.020, kv_tokens=1000, source="measured: x"),
        ProfileRow(running_requests=20, watts=500, itl_seconds=0.030, kv_tokens=2000, source="measured: x"),
    ),
    idle_source="x",
    prefill_source="x",
    step_overhead_seconds=0.012,
    prefill_watts_at_full_clock=600,
    kv_seconds_per_token=1e-6,
    weights_seconds=0.010,
    compute_seconds_per_request=0.0002,
)
"""Round numbers. Batch 10 without context: 19 ms = 10 weights + 2 compute + 7 other."""


def test_a_row_is_given_back_as_it_was_measured() -> None:
    """At full clock, at a row's own batch and context, nothing is changed."""
    assert PROFILE.watts(32, 1980) == pytest.approx(1794)
    for row in PROFILE.rows:
        at_row = PROFILE.itl_seconds(row.running_requests, 1980, row.kv_tokens)
        assert at_row == pytest.approx(row.itl_seconds)


def test_between_two_rows_the_value_lies_in_proportion() -> None:
    """Batch 15 lies half way between 10 and 20."""
    assert HAND.watts(15, 2000) == pytest.approx(400)
    assert HAND.itl_seconds(15, 2000) == pytest.approx(0.0235)


def test_every_token_of_context_adds_its_reading() -> None:
    """1 µs each; more slowly at half the clock by a tenth."""
    assert HAND.itl_seconds(10, 2000, 5000) == pytest.approx(0.019 + 0.005)
    assert HAND.kv_seconds(2000) == pytest.approx(1e-6)
    assert HAND.itl_seconds(10, 1000, 5000) - HAND.itl_seconds(10, 1000) == pytest.approx(0.0055)


def test_outside_the_rows_the_value_is_clamped_and_flagged() -> None:
    """Nothing is extrapolated."""
    assert HAND.watts(1, 2000) == pytest.approx(300)
    assert HAND.watts(5000, 2000) == pytest.approx(500)
    assert [HAND.is_inside(batch) for batch in (9, 10, 20, 21)] == [False, True, True, False]


def test_an_empty_instance_draws_its_idle_watts_at_any_clock() -> None:
    """Idle is the engine awake with no request; stopped is less."""
    assert {PROFILE.watts(0, clock) for clock in PROFILE.clocks_mhz} == {460.0}
    assert PROFILE.stopped_watts == 280.0


def test_each_part_of_a_step_follows_the_clock_by_its_own_sensitivity() -> None:
    """Half the clock: weights × 1.1, compute × 2, the other 7 ms × 1.5."""
    assert HAND.itl_seconds(10, 1000) == pytest.approx(0.010 * 1.1 + 0.002 * 2 + 0.007 * 1.5)
    assert HAND.prefill_step_seconds(1000) == pytest.approx(0.010 * 1.1 + 0.002 * 1.5)
    assert HAND.speed_ratio(1000) == pytest.approx(1 / 1.9)
    assert HAND.prefill_rate(1000) == pytest.approx(10_000 / 1.9)


def test_dynamic_watts_fall_with_the_clock_and_those_of_prefill_more() -> None:
    """By hand at g = ½: 0.25 + 0.75 · 2^−2.4, and 0.1 + 0.9 · 2^−2.4."""
    assert HAND.dynamic_power_ratio(1000) == pytest.approx(0.392099, abs=1e-6)
    assert HAND.watts(10, 1000) == pytest.approx(100 + 200 * 0.392099, abs=0.01)
    assert HAND.prefill_watts(2000) == pytest.approx(600)
    assert HAND.prefill_watts(1000) == pytest.approx(100 + 500 * 0.270519, abs=0.01)


def test_a_prompt_takes_its_steps_and_its_tokens_time() -> None:
    """Two chunks of 2,048 are two steps of 12 ms."""
    assert HAND.prefill_seconds(1000, 2000) == pytest.approx(0.012 + 0.1)
    assert HAND.prefill_seconds(3000, 2000) == pytest.approx(2 * 0.012 + 0.3)


def test_without_a_prefill_figure_the_highest_row_stands_in() -> None:
    """Unknown is not zero."""
    assert replace(HAND, prefill_watts_at_full_clock=None).prefill_watts(2000) == pytest.approx(500)


@given(profile=profiles, batch=batches, clock=clocks)
def test_a_busy_instance_draws_between_idle_and_its_full_clock(
    profile: PerformanceProfile, batch: float, clock: int
) -> None:
    """A lower clock never draws more, and never less than idle."""
    assert profile.idle_watts <= profile.watts(batch, clock) <= profile.watts(batch, 1980) + 1e-9
    assert profile.idle_watts < profile.prefill_watts(clock) <= profile.prefill_watts(1980) + 1e-9


@given(profile=profiles, batch=batches, kv_tokens=contexts)
def test_a_lower_clock_is_never_faster(profile: PerformanceProfile, batch: float, kv_tokens: float) -> None:
    """Step and prefill time fall as the clock rises."""
    steps = [profile.itl_seconds(batch, clock, kv_tokens) for clock in profile.clocks_mhz]
    prefills = [profile.prefill_seconds(1000, clock) for clock in profile.clocks_mhz]
    assert steps == sorted(steps, reverse=True)
    assert prefills == sorted(prefills, reverse=True)


@given(batch=st.floats(0, 64), kv_tokens=st.floats(0, 8000), clock=clocks)
def test_more_gpus_are_faster_and_draw_more(batch: float, kv_tokens: float, clock: int) -> None:
    """At the same batch and context: TP 2, 4, 8."""
    order = (LLAMA_70B_H100_TP2, LLAMA_70B_H100_TP4, LLAMA_70B_H100_TP8)
    steps = [profile.itl_seconds(batch, clock, kv_tokens) for profile in order]
    prefills = [profile.prefill_seconds(1000, clock) for profile in order]
    watts = [profile.watts(batch, clock) for profile in order]
    assert steps == sorted(steps, reverse=True)
    assert prefills == sorted(prefills, reverse=True)
    assert watts == sorted(watts)


@given(profile=profiles, low=batches, more=st.floats(0, 500), clock=clocks)
def test_more_requests_never_make_a_step_shorter(
    profile: PerformanceProfile, low: float, more: float, clock: int
) -> None:
    """Context equal."""
    assert profile.itl_seconds(low + more, clock) >= profile.itl_seconds(low, clock) - 1e-12


def test_tensor_parallel_2_has_hardly_room_for_context() -> None:
    """2 × 80 GB × 0.9 less 141 GB of weights leaves 2.9 GB: one long conversation."""
    assert [profile.kv_tokens for profile in PROFILES.values()] == [8850, 448_303, 1_327_209]
    assert all(profile.kv_tokens >= profile.max_model_len for profile in PROFILES.values())


def test_only_tensor_parallel_4_at_full_clock_was_measured() -> None:
    """Every row says so."""
    assert {row.is_measured for row in LLAMA_70B_H100_TP4.rows[1:]} == {True}
    assert not LLAMA_70B_H100_TP4.rows[0].is_measured
    for profile in (LLAMA_70B_H100_TP2, LLAMA_70B_H100_TP8):
        assert not any(row.is_measured for row in profile.rows)


def test_every_profile_is_in_order_and_says_where_its_figures_come_from() -> None:
    """Interpolation relies on the order; whoever reads a figure relies on its source."""
    for name, profile in PROFILES.items():
        running = [row.running_requests for row in profile.rows]
        assert name == profile.profile_id
        assert running == sorted(set(running))
        assert list(profile.clocks_mhz) == sorted(set(profile.clocks_mhz))
        assert profile.clocks_mhz[-1] == profile.full_clock_mhz
        assert all(row.source.split(":")[0] in ("measured", "derived", "modelled") for row in profile.rows)
        assert profile.idle_source
        assert profile.prefill_source
        assert profile.kv_source


def test_the_least_joules_for_a_token_lie_between_the_lowest_and_the_full_clock() -> None:
    """As far as is known of H100s: about 840–1,000 MHz, a fifth to a third below the full clock's."""

    def joules(clock_mhz: int) -> float:
        return PROFILE.watts(64, clock_mhz) * PROFILE.itl_seconds(64, clock_mhz, 64 * 500)

    best = min(PROFILE.clocks_mhz, key=joules)
    assert best in (1000, 1200)
    assert 0.65 <= joules(best) / joules(1980) <= 0.82


def test_a_site_draws_gpus_and_hosts_with_its_overhead() -> None:
    """(GPUs + hosts) × overhead: cooling serves the hosts as well."""
    assert SitePowerModel(overhead_ratio=1.2, host_idle_watts=500).site_watts(1500) == pytest.approx(2400)
    assert SitePowerModel().site_watts(1000) == pytest.approx(1100)


def test_profiles_of_one_name_are_told_apart_and_a_copy_is_the_same() -> None:
    """By their figures: sites have any number of one name. In another process too, where texts hash
    otherwise."""
    shipped = PROFILES["llama-3.1-70b/h100/tp4"]
    others = [replace(shipped, idle_watts=400.5 + number) for number in range(100)]
    assert len({shipped, *others}) == 101
    assert len({hash(one) for one in (shipped, *others)}) == 101
    assert hash(replace(shipped)) == hash(shipped)
    copy = pickle.loads(pickle.dumps(shipped))  # noqa: S301 -- its own
    assert (copy, hash(copy)) == (shipped, hash(shipped))
    program = "import pickle, sys; one = pickle.load(sys.stdin.buffer); one.__dict__.pop('_figures_hash'); "
    program += "hash(one); print(one.__dict__['_figures_hash'])"
    told = subprocess.run(
        [sys.executable, "-c", program],
        input=pickle.dumps(shipped),
        capture_output=True,
        check=True,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)},
    )
    assert int(told.stdout) == shipped.__dict__["_figures_hash"]
