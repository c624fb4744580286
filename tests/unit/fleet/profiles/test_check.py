"""The check reports every published row, and what it reports is the shipped coefficients' error."""

from __future__ import annotations

import pytest

from fleet.profiles.check import SHIPPED, FitError, fit_errors, summary


def test_every_published_row_is_reported() -> None:
    """Decode and watts of each set, Splitwise's prompts and batches, vidur's from 512 tokens on."""
    rows = sum(len(figures.rows) for figures in SHIPPED.decode_sets)
    assert rows == 39
    assert len(fit_errors()) == 2 * rows + 3 * 7 + 3 * 4 + 3 * 4


def test_fitted_rows_are_within_the_error_that_the_documentation_states() -> None:
    """docs/profiles.md: decode 6 %, watts 10 %, prefill 23 %."""
    for one in fit_errors():
        if one.is_fitted:
            limit = {"decode": 0.06, "watts": 0.10, "prefill": 0.23}[one.group.split(",")[0]]
            assert abs(one.error_ratio) <= limit, one


def test_groups_are_summed_with_fitted_and_compared_rows_apart() -> None:
    """Two rows of 10 and 30 %; one of 50 %."""

    def row(modelled: float, *, is_fitted: bool) -> FitError:
        return FitError(group="g", row="r", published=100, modelled=modelled, unit="W", is_fitted=is_fitted)

    found = summary([row(110, is_fitted=True), row(150, is_fitted=False), row(70, is_fitted=True)])
    assert [(one.is_fitted, one.rows) for one in found] == [(True, 2), (False, 1)]
    assert found[0].mean_error_ratio == pytest.approx(0.20)
    assert found[0].max_error_ratio == pytest.approx(0.30)
    assert found[1].max_error_ratio == pytest.approx(0.50)
