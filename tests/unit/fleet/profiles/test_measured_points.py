"""Rows as the fit takes them."""

from __future__ import annotations

import pytest
from support.measured import document_of, row_of

from fleet.profile import LLAMA_70B_H100_TP4
from fleet.profiles.measured_points import points_of, told_slow_clock

TRUTH = LLAMA_70B_H100_TP4


def test_tokens_are_the_servers_count_where_it_gave_one() -> None:
    """Prompts in words are more tokens than words; the context is that in the middle of an answer."""
    rows = [row_of(TRUTH, 8, 512, 1980, counted_prompt_tokens=600.0), row_of(TRUTH, 8, 512, 1400)]
    counted, asked = points_of(document_of(rows), "f")
    assert (counted.prompt_tokens, counted.context_tokens, counted.kv_tokens) == (600, 728, 8 * 728)
    assert (asked.prompt_tokens, asked.number) == (512, 2)


@pytest.mark.parametrize(
    ("told", "clocks", "full"),
    [
        (1980, (1980, 1400), [True, False]),
        (1980, (1965, 1400), [True, False]),
        (1980, (None, 1400), [True, False]),
        (None, (1700, 1400), [True, False]),
        (None, (None, None), [True, True]),
    ],
)
def test_full_clock_is_the_gpus_own_and_else_the_highest_that_was_set(
    told: int | None, clocks: tuple[int | None, ...], full: list[bool]
) -> None:
    """GPUs round a clock to their steps; unlocked they run at the full one."""
    rows = [row_of(TRUTH, 8, 512, 1980, clock_mhz=clock) for clock in clocks]
    points = points_of(document_of(rows, full_clock_mhz=told), "f")
    assert [one.is_full_clock for one in points] == full
    assert all(one.is_clock_known for one in points) == (clocks != (None, None))


@pytest.mark.parametrize(
    ("clock", "mean", "full", "is_slow"),
    [
        (None, 800.0, 1980, True),
        (None, 1900.0, 1980, False),
        (1980, 1400.0, 1980, True),
        (800, 795.0, 1980, False),
        (None, 800.0, None, False),
        (None, None, 1980, False),
    ],
)
def test_gpus_that_ran_slower_than_their_row_says_are_told(
    clock: int | None, mean: float | None, full: int | None, is_slow: bool
) -> None:
    """A clock that nobody set here may have been locked by somebody else."""
    told = told_slow_clock(row_of(TRUTH, 8, 512, 1980, clock_mhz=clock, mean_clock_mhz=mean), full)
    assert (told is not None) == is_slow
