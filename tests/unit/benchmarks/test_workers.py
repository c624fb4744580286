"""Where the processes of the workers' benchmark run, and how its rounds are judged."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.router import cores
from benchmarks.router.workers import Round, misses, shares, summary


@pytest.mark.parametrize(
    ("order", "workers", "load", "upstream", "router"),
    [
        ([0, 1], 1, 0, 0, (1,)),
        ([0, 1], 4, 0, 0, (1,)),
        ([0, 1, 2], 4, 0, 0, (1, 2)),
        ([4, 5, 6, 7], 1, 4, 5, (6,)),
        ([0, 2, 4, 6, 8, 10, 12, 14, 1, 3], 4, 0, 2, (4, 6, 8, 10, 12)),
    ],
)
def test_everybody_has_cores_of_their_own_where_there_are_enough(
    order: list[int], workers: int, load: int, upstream: int, router: tuple[int, ...]
):
    """A core for each worker and their parent; with few cores load and upstream share."""
    placed = cores.place(order, workers)
    assert (placed.load, placed.upstream, placed.router) == (load, upstream, router)
    assert cores.parse_list(placed.router_list) == set(router)


def test_one_core_is_too_few():
    """Load and router would take time from each other."""
    with pytest.raises(ValueError, match="two cores"):
        cores.place([0], 1)


def test_the_kernel_s_lists_are_read():
    """Ranges and single cores."""
    assert cores.parse_list("0,8-9,3\n") == {0, 3, 8, 9}
    assert cores.parse_list("") == set()
    assert sorted(cores.usable()) == sorted(set(cores.usable()))


def test_shares_are_relative_to_the_even_part():
    """1 is even; nothing counted gives none."""
    assert shares([50, 100, 150]) == (0.5, 1.0, 1.5)
    assert shares([0, 0]) == shares([]) == ()


def a_round(workers: int, **changes: Any) -> Round:
    values: dict[str, Any] = {
        "workers": workers,
        "is_kept": True,
        "has_cores": True,
        "requests_per_second": 1000.0 * workers,
        "cpu_us_per_request": 50.0,
        "parent_cpu_us_per_request": 0.0,
        "shares": (1.0,) * workers if workers > 1 else (),
        "memory_mib": 60.0,
        "waited_ratio": 0.0,
        "errors": 0,
        "first_error": "",
    }
    return Round(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        ({"cpu_us_per_request": 54.9}, []),
        ({"cpu_us_per_request": 56.0}, ["2 workers, kept: 1.12 × the CPU per request of one"]),
        ({"shares": (0.75, 1.25)}, ["2 workers, kept: a worker is -25% from its even part"]),
        ({"requests_per_second": 1700.0}, ["2 workers, kept: 1.70 × the requests/s of one, 0.85 × N"]),
        ({"requests_per_second": 1000.0, "has_cores": False}, []),
    ],
)
def test_goals_are_judged_beside_one_worker(changes: dict[str, Any], said: list[str]):
    """requests/s only where each worker has a core."""
    assert misses(summary([a_round(1), a_round(2, **changes)])) == said


def test_new_connections_are_judged_by_their_shares_alone():
    """Who accepts costs; what goes to whom must be even all the same."""
    rounds = [a_round(1, is_kept=False)]
    rounds.append(a_round(2, is_kept=False, cpu_us_per_request=90.0, requests_per_second=900.0))
    assert misses(summary(rounds)) == []
    rounds.append(a_round(2, is_kept=False, shares=(1.5, 0.5)))
    assert len(misses(summary(rounds))) == 1


def test_a_row_is_the_median_of_its_rounds_and_their_worst_share():
    """Errors add up."""
    rounds = [a_round(2, shares=(0.9, 1.1)), a_round(2, shares=(0.8, 1.2), errors=2, memory_mib=90.0)]
    (row,) = summary([*rounds, a_round(2, memory_mib=61.0)])
    assert row.worst_share is not None
    assert abs(row.worst_share - 1) == pytest.approx(0.2)
    assert (row.memory_mib, row.errors) == (61.0, 2)
