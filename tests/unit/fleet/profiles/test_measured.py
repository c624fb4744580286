"""A profile from rows: known coefficients are found again, and what physics says holds whatever the rows."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.measured import document_of, row_of

from fleet.performance import UNKNOWN_KV_TOKENS, PerformanceProfile
from fleet.profile import LLAMA_70B_H100_TP4, PROFILES
from fleet.profiles.check import fitted_groups
from fleet.profiles.document import ProfileDocumentError, Row
from fleet.profiles.measured import fit_errors, fit_profile, told_clocks

TRUTH = LLAMA_70B_H100_TP4
BATCHES, PROMPTS, CLOCKS = (1, 8, 32, 64), (512, 4096), (1980, 1400, 800)


def sweep(profile: PerformanceProfile = TRUTH, **changes: Any) -> list[Row]:
    return [
        row_of(profile, batch, prompt, clock, **changes)
        for clock, prompt, batch in itertools.product(CLOCKS, PROMPTS, BATCHES)
    ]


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_the_coefficients_behind_the_rows_are_found_again(name: str) -> None:
    """Rows without noise of each shipped profile: speed at every clock to a thousandth."""
    truth = PROFILES[name]
    found = fit_profile(document_of(sweep(truth), idle_watts=truth.idle_watts))
    assert found.kv_seconds_per_token == pytest.approx(truth.kv_seconds_per_token)
    assert found.weights_seconds == pytest.approx(truth.weights_seconds)
    assert found.compute_seconds_per_request == pytest.approx(truth.compute_seconds_per_request)
    assert found.prefill_tokens_per_second == pytest.approx(truth.prefill_tokens_per_second)
    assert found.clock_model.prefill_sensitivity == pytest.approx(0.9)
    for batch, clock, kv in itertools.product((1, 8, 20, 64), (800, 1000, 1400, 1980), (0, 50_000)):
        assert found.itl_seconds(batch, clock, kv) == pytest.approx(
            truth.itl_seconds(batch, clock, kv), rel=0.02 if batch == 20 else 0.001
        )
        assert found.prefill_seconds(3000, clock) == pytest.approx(truth.prefill_seconds(3000, clock))
    for batch, clock in itertools.product(BATCHES, CLOCKS):
        assert found.watts(batch, clock) == pytest.approx(truth.watts(batch, clock))
    assert truth.watts(8, 1000) <= found.watts(8, 1000) <= 1.12 * truth.watts(8, 1000), "never too little"


def test_how_many_prompt_tokens_a_step_takes_counts() -> None:
    """An engine of 8,192: told so, the fit finds it again; else a long prompt has too many steps."""
    truth = replace(TRUTH, prefill_chunk_tokens=8192)
    rows = sweep(truth)
    found = fit_profile(document_of(rows, max_batched_tokens=8192))
    assert found.prefill_chunk_tokens == 8192
    assert found.prefill_tokens_per_second == pytest.approx(truth.prefill_tokens_per_second)
    assert found.prefill_seconds(8000, 1980) == pytest.approx(truth.prefill_seconds(8000, 1980))
    untold = fit_profile(document_of(rows))
    assert untold.prefill_chunk_tokens == 2048
    assert untold.prefill_seconds(8000, 1980) > 1.005 * truth.prefill_seconds(8000, 1980)


def test_it_says_what_it_is_of_and_what_was_measured() -> None:
    """The engine's and the GPUs' own words; each row's sources."""
    found = fit_profile(document_of(sweep()))
    assert (found.model, found.gpu_model) == ("llama-3.1-70b", "NVIDIA H100 80GB HBM3")
    assert (found.tensor_parallel_degree, found.kv_tokens, found.max_model_len) == (4, 448_303, 8192)
    assert found.clocks_mhz == (800, 1400, 1980)
    assert told_clocks(found) == "clocks 800, 1400, 1980 MHz"
    assert found.profile_id.startswith("llama-3.1-70b/nvidia-h100-80gb-hbm3/tp4/")
    assert all(row.is_measured and row.watts_source.startswith("measured") for row in found.rows)


def test_the_error_on_every_row_is_told() -> None:
    """Decode steps and watts of all rows, first tokens of those alone on the engine; none on clean rows."""
    document = document_of(sweep())
    errors = fit_errors(fit_profile(document), document)
    assert len(errors) == 24 + 6 + 24
    assert all(abs(one.error_ratio) < 1e-6 for one in errors)
    assert [one.group for one in fitted_groups(errors)] == ["decode step", "time to first token", "watts"]


def test_where_most_steps_carry_prefill_the_decode_step_is_derived() -> None:
    """The median gap is then no decode step: what the tokens per second say is nearer."""
    rows = [row_of(TRUTH, 1, 4096, 1980), row_of(TRUTH, 1, 512, 1980)]
    crowded = row_of(TRUTH, 64, 4096, 1980, itl_seconds_p50=0.4, ttft_seconds_p50=0.41, requests=200)
    found = fit_profile(document_of([*rows, crowded]))
    assert found.rows[-1].source.startswith("derived")
    assert found.rows[-1].itl_seconds < 0.1
    short = row_of(TRUTH, 64, 4096, 1980, itl_seconds_p50=0.4, requests=3)
    assert [row.running_requests for row in fit_profile(document_of([*rows, short])).rows] == [1], "too short"


def test_engines_without_gpus_are_measured_too_and_what_is_unknown_is_said() -> None:
    """One clock of no name, no watts, no KV cache."""
    rows = [row_of(TRUTH, batch, 512, 1980, clock_mhz=None, watts=None) for batch in (1, 4)]
    nothing = dict.fromkeys(("full_clock_mhz", "kv_tokens", "idle_watts", "gpu_model", "max_model_len"))
    found = fit_profile(document_of(rows, **nothing))
    assert told_clocks(found) == "one clock, it is not known which"
    assert found.gpu_model == "unknown"
    assert found.kv_tokens == UNKNOWN_KV_TOKENS
    assert "capacity unknown" in found.kv_source
    assert "one prompt length" in found.kv_source
    assert all(row.is_measured and row.watts_source.startswith("assumed") for row in found.rows)


@pytest.mark.parametrize(
    ("rows", "engine", "message"),
    [
        ([], {}, "has no rows"),
        ([row_of(TRUTH, 8, 512, 1400)], {}, r"no row at full clock \(1980 MHz\)"),
        (
            [row_of(TRUTH, 8, 512, 1980), row_of(TRUTH, 4, 512, 800)],
            {},
            "no row at 800 MHz has a batch that was measured at full clock",
        ),
        (
            [row_of(TRUTH, 8, 512, 1980), row_of(TRUTH, 8, 512, 1980, clock_mhz=None)],
            {"full_clock_mhz": None},
            "does not say which that was",
        ),
        ([row_of(TRUTH, 8, 512, 1980, itl_seconds_p50=None)], {}, "no row at full clock"),
    ],
)
def test_rows_that_do_not_say_enough_are_refused(
    rows: list[Row], engine: dict[str, Any], message: str
) -> None:
    """With what to measure."""
    with pytest.raises(ProfileDocumentError, match=message) as caught:
        fit_profile(document_of(rows, **engine), name="f.json")
    assert str(caught.value).startswith("f.json: ")


seconds = st.floats(1e-4, 10)
any_row = st.builds(
    row_of,
    st.just(TRUTH),
    st.sampled_from([1, 2, 16, 300]),
    st.sampled_from([1, 512, 9000]),
    st.sampled_from([1980, 1975, 1400, 210]),
    itl_seconds_p50=seconds,
    ttft_seconds_p50=st.none() | seconds,
    output_tokens_per_second=st.floats(1e-3, 1e6),
    watts=st.none() | st.floats(0, 5000),
    requests=st.integers(0, 500),
)


@settings(max_examples=200)
@given(
    st.lists(any_row, min_size=1, max_size=12),
    st.none() | st.floats(0, 3000),
    st.none() | st.integers(1, 10**9),
)
def test_whatever_was_measured_speeds_are_above_zero_and_go_the_right_way(
    rows: list[Row], idle_watts: float | None, kv_tokens: int | None
) -> None:
    """More requests, more context or a lower clock never shorten a step; a lower clock draws no more."""
    document = document_of(rows, idle_watts=idle_watts, kv_tokens=kv_tokens)
    try:
        found = fit_profile(document)
    except ProfileDocumentError:
        return
    fit_errors(found, document)
    clocks, batches, contexts = (*found.clocks_mhz,), (1, 2, 5, 16, 100, 1000), (0, 1000, 100_000)
    slack = 1 - 1e-9
    for batch, kv in itertools.product(batches, contexts):
        steps = [found.itl_seconds(batch, clock, kv) for clock in clocks]
        assert steps[-1] > 0
        assert all(high * slack <= low for low, high in itertools.pairwise(steps))
        watts = [found.watts(batch, clock) for clock in clocks]
        assert all(low * slack <= high for low, high in itertools.pairwise(watts))
        assert watts[0] >= found.idle_watts >= found.stopped_watts >= 0
    for clock in clocks:
        by_batch = [found.itl_seconds(batch, clock, 1000) for batch in batches]
        assert all(low * slack <= high for low, high in itertools.pairwise(by_batch))
        by_context = [found.itl_seconds(16, clock, kv) for kv in contexts]
        assert all(low * slack <= high for low, high in itertools.pairwise(by_context))
        assert found.prefill_rate(clock) > 0
        assert found.prefill_seconds(4096, clock) > 0
        assert found.prefill_watts(clock) >= found.idle_watts * slack
    rates = [found.prefill_rate(clock) for clock in clocks]
    assert all(low * slack <= high for low, high in itertools.pairwise(rates))
    assert found.max_model_len <= found.kv_tokens
