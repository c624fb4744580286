"""The shipped coefficients are what the published figures give, and the fit's error is what is said of it."""

from __future__ import annotations

import pytest

from fleet.performance import DEFAULT_PREFILL_CHUNK_TOKENS
from fleet.profiles import fit
from fleet.profiles.figures import (
    DECODE_SETS,
    DEGREES,
    LLAMA_70B,
    LLAMA_70B_TP4,
    QWEN_32B_TP1,
    QWEN_32B_TP2,
    QWEN_32B_TP2_LONG,
)
from fleet.profiles.llama_70b_h100 import POWER, PREFILL_TOKENS_PER_SECOND, STEP, step_overhead_seconds


def test_the_step_model_is_the_fit() -> None:
    """To the digits shipped."""
    fitted = fit.fit_step_model()
    assert pytest.approx(fitted.layer_seconds, rel=0.005) == STEP.layer_seconds
    assert pytest.approx(fitted.request_seconds, rel=0.005) == STEP.request_seconds
    assert pytest.approx(fitted.compute_seconds, rel=0.005) == STEP.compute_seconds
    assert pytest.approx(fitted.kv_efficiency, rel=0.005) == STEP.kv_efficiency


def test_the_power_model_is_the_fit_to_the_two_large_models() -> None:
    """Llama-8B is left out: it draws a fifth more than the others' coefficients say (docs/profiles.md)."""
    fitted = fit.fit_power_model((LLAMA_70B_TP4, QWEN_32B_TP1, QWEN_32B_TP2))
    assert pytest.approx(fitted.base_watts, rel=0.005) == POWER.base_watts
    assert pytest.approx(fitted.joules_per_byte, rel=0.005) == POWER.joules_per_byte
    assert pytest.approx(fitted.joules_per_operation, rel=0.005) == POWER.joules_per_operation


@pytest.mark.parametrize("degree", DEGREES)
def test_the_prefill_rates_are_the_fit(degree: int) -> None:
    """To 1 %."""
    rate = fit.fit_prefill_rate(degree, step_overhead_seconds(degree), DEFAULT_PREFILL_CHUNK_TOKENS)
    assert pytest.approx(rate, rel=0.01) == PREFILL_TOKENS_PER_SECOND[degree]


def test_the_step_model_is_within_six_percent_of_every_row_it_was_fitted_to() -> None:
    """Three models, three degrees, batches up to 200."""
    for figures in DECODE_SETS:
        for row in fit.fitted_rows(figures):
            modelled = STEP.step_seconds(
                figures.architecture,
                figures.tensor_parallel_degree,
                batch=row.batch,
                kv_tokens=row.batch * figures.context_tokens(row),
            )
            assert modelled == pytest.approx(row.itl_seconds, rel=0.06), (figures.name, row)


def test_watts_of_the_two_large_models_are_within_a_tenth() -> None:
    """Every row of them."""
    for figures in (LLAMA_70B_TP4, QWEN_32B_TP1, QWEN_32B_TP2):
        for row in figures.rows:
            assert POWER.closed_loop_watts(figures, row) == pytest.approx(row.watts, rel=0.10)


def test_long_answers_confirm_the_context_term() -> None:
    """Seven thousand output tokens, batches 8 to 64, with the coefficients of the short ones: within 6 %."""
    for row in QWEN_32B_TP2_LONG.rows:
        kv_tokens = row.batch * QWEN_32B_TP2_LONG.context_tokens(row)
        modelled = STEP.step_seconds(QWEN_32B_TP2_LONG.architecture, 2, batch=row.batch, kv_tokens=kv_tokens)
        assert modelled == pytest.approx(row.itl_seconds, rel=0.06)


def test_most_steps_of_large_batches_carry_prefill() -> None:
    """The decode step there is the mean step less the prefill, so it lies below the published median."""
    assert fit.prefill_seconds_per_request(LLAMA_70B_TP4) == pytest.approx(0.0158, abs=0.0002)
    for row in LLAMA_70B_TP4.rows:
        if row.batch > 300:
            assert fit.decode_seconds(LLAMA_70B_TP4, row) < row.itl_seconds * 1.02


def test_figures_that_determine_nothing_are_refused() -> None:
    """A coefficient that occurs nowhere has no value."""
    with pytest.raises(ValueError, match="do not determine"):
        fit.least_squares([(1.0, 0.0), (2.0, 0.0)], [1.0, 2.0], [1.0, 1.0])


def test_least_squares_finds_exact_coefficients_and_weighs_by_scale() -> None:
    """2a + b; and of two contradictory targets the one on the smaller scale counts more."""
    assert fit.least_squares([(1, 0), (0, 1), (2, 1)], [3, 4, 10], [1, 1, 1]) == pytest.approx((3, 4))
    assert fit.least_squares([(1,), (1,)], [1, 2], [0.1, 10])[0] == pytest.approx(1.0, abs=0.001)


def test_all_reduce_costs_nothing_on_one_gpu() -> None:
    """And more per token the more GPUs take part."""
    costs = [fit.all_reduce_seconds_per_token(LLAMA_70B, degree) for degree in (1, *DEGREES)]
    assert costs[0] == 0
    assert costs == sorted(costs)
