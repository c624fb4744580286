"""What of a plan sites are told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.planning import ALL, MODEL, configuration, site

from router.policy.planner.orders import orders_of, own_layout
from router.policy.planner.problem import Target


def target(degree: int, instances: int) -> Target:
    """So many of one degree."""
    return Target(model=MODEL, tensor_parallel_degree=degree, gpu_clock_mhz=1980, instances=instances)


def test_a_site_that_runs_what_is_wanted_is_told_nothing() -> None:
    """Fewer of the same, more of the same, other clocks: it knows its power and load better."""
    running = site("a", present=(target(4, 2),))
    for wanted in ((target(4, 1),), (target(4, 2),), ()):
        assert orders_of({"a": wanted}, [running]) == {}
    assert orders_of({"a": (target(4, 2),)}, [site("a", present=(target(4, 1),))]) == {}


def test_a_site_that_is_to_split_its_gpus_anew_is_told_so_until_it_has() -> None:
    """While one instance of two is there the order stands; then the site is its own again."""
    wanted = {"a": (target(2, 2), target(4, 1))}
    for present in ((target(4, 2),), (target(4, 1), target(2, 1))):
        assert orders_of(wanted, [site("a", present=present)]) == wanted
    assert orders_of(wanted, [site("a", present=(target(4, 1), target(2, 2)))]) == {}


def test_clocks_are_the_sites_affair() -> None:
    """An order names the highest, which is a ceiling; what the plan counted on is what it feared of power."""
    slow = Target(model=MODEL, tensor_parallel_degree=8, gpu_clock_mhz=1000, instances=1)
    running = site("a", present=(target(4, 2),), configurations=ALL)
    assert orders_of({"a": (slow,)}, [running]) == {"a": (target(8, 1),)}


def test_a_dark_site_is_told_only_of_a_layout_that_it_would_not_start() -> None:
    """The first of its configurations is its own."""
    dark = site("a", configurations=(configuration(4), configuration(8)))
    assert own_layout(dark) == (MODEL, 4)
    assert orders_of({"a": (target(4, 1),)}, [dark]) == {}
    assert orders_of({"a": (target(8, 1),)}, [dark]) == {"a": (target(8, 1),)}


def test_a_site_that_lost_the_configuration_is_told_nothing() -> None:
    """Its SiteInfo changed since; a plan with a configuration that nobody knows is refused as a whole."""
    running = site("a", present=(target(4, 2),), configurations=(configuration(4),))
    assert orders_of({"a": (target(8, 1),)}, [running]) == {}


def test_a_site_that_no_plan_knows_is_told_nothing() -> None:
    """A new leader has no slow plan yet."""
    assert orders_of({}, [site("a")]) == {}


@given(
    present=st.lists(st.tuples(st.sampled_from([2, 4, 8]), st.integers(0, 4)), max_size=3),
    wanted=st.lists(st.tuples(st.sampled_from([2, 4, 8]), st.integers(0, 4)), max_size=3),
)
def test_no_order_only_stops(present: list[tuple[int, int]], wanted: list[tuple[int, int]]) -> None:
    """Whatever an order takes away, it puts something in its place that is not there."""
    running = tuple(target(*one) for one in present)
    told = orders_of(
        {"a": tuple(target(*one) for one in wanted)}, [site("a", present=running, configurations=ALL)]
    )
    for targets in told.values():
        counts = dict.fromkeys((2, 4, 8), 0)
        for one in targets:
            counts[one.tensor_parallel_degree] += one.instances
        for one in running:
            counts[one.tensor_parallel_degree] -= one.instances
        assert max(counts.values()) > 0
