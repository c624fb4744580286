"""Order, step and gaps of a file's rows."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_feed.wind_grid import MAX_STEPS, Grid, lay_grid
from power_feed.wind_series import RefusalLog, WindFileError


def lay(*times: float) -> tuple[Grid, RefusalLog]:
    log = RefusalLog()
    return lay_grid(times, range(2, len(times) + 2), log, name="wind.csv"), log


def test_the_commonest_distance_is_the_step() -> None:
    """Gaps do not change the step; equal counts take the smaller one."""
    assert lay(0, 60, 120, 300, 360)[0].period_seconds == 60
    assert lay(0, 60, 180)[0].period_seconds == 60


def test_rows_off_the_grid_are_refused() -> None:
    """A row between two steps belongs to neither."""
    grid, log = lay(0, 60, 120, 150, 180, 240)
    assert list(grid.indexes) == [0, 1, 2, 3, 4]
    assert log.close().examples[0].reason == "is 30 s off the 60-s steps of this file"


def test_a_clock_that_rounds_stays_on_its_step() -> None:
    """Half a second in a minute is tolerated."""
    grid, log = lay(0, 60, 120, 180.5, 240)
    assert list(grid.indexes) == [0, 1, 2, 3, 4]
    assert log.total == 0


def test_a_block_of_misplaced_rows_is_refused_and_the_rest_stays() -> None:
    """The longest run in order is kept, wherever the misplaced block stands."""
    grid, log = lay(0, 60, 9000, 9060, 9120, 120, 180, 240, 300, 360)
    assert [grid.first_seconds + index * 60 for index in grid.indexes] == [0, 60, 120, 180, 240, 300, 360]
    assert log.total == 3


def test_a_hole_of_more_than_a_year_keeps_the_longer_part() -> None:
    """A stray stamp at the very end would otherwise stretch the grid over centuries."""
    grid, log = lay(0, 60, 120, 3.2e10)
    assert grid.steps == 3
    assert log.close().examples[0].reason == "more than a year from the rest of the file"


def test_a_span_that_no_record_has_is_an_error() -> None:
    """The grid is bounded whatever the stamps say."""
    with pytest.raises(WindFileError, match=f"at most {MAX_STEPS}"):
        lay(0, 1, 2, 3, 30_000_000)


def test_one_row_is_too_few() -> None:
    """Without a second row the step cannot be known."""
    with pytest.raises(WindFileError, match="1 usable rows of 3, at least two"):
        lay(60, 60, 60)


@given(st.lists(st.integers(min_value=0, max_value=100), min_size=2, max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_order_gives_a_growing_grid_and_accounts_for_every_row(steps: list[int]) -> None:
    """Kept rows are in order on the grid; kept and refused add up."""
    try:
        grid, log = lay(*(60.0 * step for step in steps))
    except WindFileError:
        assert all(after <= before for before, after in pairwise(steps))
        return
    assert list(grid.indexes) == sorted(set(grid.indexes))
    assert grid.indexes[0] == 0
    assert grid.indexes[-1] == grid.steps - 1
    assert len(grid.rows) + log.total == len(steps)
