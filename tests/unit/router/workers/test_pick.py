"""Which worker gets a connection."""

from __future__ import annotations

from router.workers.pick import pick_worker


def test_the_one_with_the_fewest_connections_is_picked() -> None:
    """Whoever was picked last."""
    assert pick_worker([3, 1, 2], last=1) == 1


def test_of_several_the_next_in_turn_is_picked() -> None:
    """Connections that leave no count behind go round."""
    picked, last = [], -1
    for _ in range(6):
        last = pick_worker([0, 0, 0], last)
        picked.append(last)
    assert picked == [0, 1, 2, 0, 1, 2]


def test_one_that_takes_nothing_is_passed_over() -> None:
    """Though it has the fewest."""
    assert pick_worker([None, 5, None], last=0) == 1


def test_nobody_is_picked_where_nobody_takes() -> None:
    """No worker, and none that is ready."""
    assert pick_worker([], last=-1) is None
    assert pick_worker([None, None], last=1) is None


def test_64_connections_that_stay_are_even() -> None:
    """Over any number of workers the counts differ by one at most."""
    for workers in (2, 3, 4, 8):
        counts: list[int | None] = [0] * workers
        last = -1
        for _ in range(64):
            index = pick_worker(counts, last)
            assert index is not None
            counts[index] = (counts[index] or 0) + 1
            last = index
        known = [count or 0 for count in counts]
        assert max(known) - min(known) <= 1
