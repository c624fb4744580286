"""First tokens and decode steps of single points."""

from __future__ import annotations

from typing import Any

import pytest
from support.measured import document_of, row_of

from fleet.profile import LLAMA_70B_H100_TP4
from fleet.profiles.measured_points import Point, points_of
from fleet.profiles.measured_prefill import UNKNOWN_PREFILL_RATE, fit_prefill, step_seconds

TRUTH = LLAMA_70B_H100_TP4


def point(batch: int, prompt: int, **changes: Any) -> Point:
    [found] = points_of(document_of([row_of(TRUTH, batch, prompt, 1980, **changes)]), "f")
    return found


def test_two_lengths_give_a_rate_and_a_steps_own_time() -> None:
    """By the smallest batch alone: larger ones wait for others."""
    found = fit_prefill([point(1, 512), point(1, 4096), point(8, 512, ttft_seconds_p50=3.0)])
    assert found.tokens_per_second == pytest.approx(TRUTH.prefill_tokens_per_second)
    assert found.step_seconds == pytest.approx(TRUTH.step_overhead_seconds)
    assert found.source.startswith("measured")


def test_one_length_takes_a_decode_step_for_a_steps_own_time() -> None:
    """And says so; a time that is shorter than that still gives a rate."""
    found = fit_prefill([point(1, 2048)])
    assert found.source.startswith("derived")
    assert found.tokens_per_second == pytest.approx(TRUTH.prefill_tokens_per_second, rel=0.02)
    quick = fit_prefill([point(1, 100, ttft_seconds_p50=0.001)])
    assert 100 / 0.001 <= quick.tokens_per_second <= 10 * 100 / 0.001 * 1.001


def test_without_first_tokens_the_rate_is_assumed() -> None:
    """Slow, and said."""
    found = fit_prefill([point(1, 512, ttft_seconds_p50=None)])
    assert (found.tokens_per_second, found.source.split(":")[0]) == (UNKNOWN_PREFILL_RATE, "assumed")


def test_a_step_is_the_median_gap_unless_prefill_is_in_most_of_them() -> None:
    """Then it is what remains of a second's steps; unknown where the window was too short."""
    rate = TRUTH.prefill_tokens_per_second
    clean = point(64, 512)
    assert step_seconds(clean, rate) == (clean.itl_seconds, "measured: heron profile run")
    true_step = TRUTH.itl_seconds(64, 1980, clean.batch * (4096 + 128))
    crowded = point(64, 4096, itl_seconds_p50=0.3, ttft_seconds_p50=0.41, requests=64)
    found, source = step_seconds(crowded, rate)
    assert source.startswith("derived")
    assert found is not None
    assert true_step <= found <= 0.3
    assert step_seconds(point(64, 4096, itl_seconds_p50=0.3, requests=63), rate) == (None, "")
