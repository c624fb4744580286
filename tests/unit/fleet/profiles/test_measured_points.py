"""Rows as the fit takes them."""

from __future__ import annotations

import pytest
from support.measured import document_of, row_of

from fleet.profile import LLAMA_70B_H100_TP4
from fleet.profiles.measured_points import points_of

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
