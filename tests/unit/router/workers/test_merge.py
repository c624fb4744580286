"""Workers' metrics as one page."""

from __future__ import annotations

import json

from router.workers.merge import Family, Page, end, from_json, merge, sums, to_json


def counter(name: str, value: float, **labels: str) -> Page:
    """A page with one counter."""
    key = (f"{name}_total", tuple(labels.items()))
    return {name: Family(name=name, kind="counter", text="t", samples={key: value})}


def gauge(name: str, value: float) -> Page:
    """A page with one gauge."""
    return {name: Family(name=name, kind="gauge", text="t", samples={(name, ()): value})}


def values(page: Page) -> dict[str, float]:
    """Sample name → value, where labels do not matter."""
    return {name: value for family in page.values() for (name, _), value in family.samples.items()}


def test_counters_are_summed_by_label() -> None:
    """Labels that one worker alone has are there too."""
    workers = [counter("c", 2, site="a"), counter("c", 3, site="a"), counter("c", 5, site="b")]
    merged = merge({}, workers, {})
    assert merged["c"].samples == {
        ("c_total", (("site", "a"),)): 5,
        ("c_total", (("site", "b"),)): 5,
    }


def test_gauges_are_summed_but_a_breaker_is_as_bad_as_the_worst() -> None:
    """One worker's open breaker is not hidden by the others'."""
    name = "heron_router_site_breaker_state"
    assert values(merge({}, [gauge("g", 1), gauge("g", 2)], {})) == {"g": 3}
    assert values(merge({}, [gauge(name, 0), gauge(name, 2), gauge(name, 1)], {})) == {name: 2}


def test_what_the_parent_alone_counts_is_not_counted_again() -> None:
    """A record that the parent refused was refused once."""
    name = "heron_router_records_refused"
    merged = merge(counter(name, 1), [counter(name, 1), counter(name, 1)], {})
    assert values(merged) == {f"{name}_total": 1}


def test_a_counter_does_not_go_back_when_its_worker_ends() -> None:
    """What it had stays, its gauges go."""
    first, second = counter("c", 2) | gauge("g", 7), counter("c", 3) | gauge("g", 1)
    before = merge({}, [first, second], {})
    ended: Page = {}
    end(ended, first)
    after = merge({}, [second], ended)
    assert values(before) == {"c_total": 5, "g": 8}
    assert values(after) == {"c_total": 5, "g": 1}
    end(ended, second)
    assert values(merge({}, [], ended)) == {"c_total": 5}


def test_merging_changes_no_page_that_is_merged() -> None:
    """Pages are kept and merged again at the next scrape."""
    worker, ended = counter("c", 2), counter("c", 1)
    merge({}, [worker], ended)
    assert values(worker) == {"c_total": 2}
    assert values(ended) == {"c_total": 1}


def test_a_page_survives_the_way_to_the_parent() -> None:
    """As JSON and back."""
    page = counter("c", 2, site="a", reason="b") | gauge("g", 0.5)
    assert from_json(json.loads(json.dumps(to_json(page)))) == page


def test_a_family_is_summed_over_pages_by_some_labels() -> None:
    """Other labels do not matter; pages without it count as nothing."""
    pages = [counter("c", 2, site="a", why="x"), counter("c", 3, site="a", why="y"), counter("d", 7)]
    assert sums(pages, "c", "site") == {("a",): 5}
    assert sums(pages, "c", "why") == {("x",): 2, ("y",): 3}
    assert sums(pages, "e", "site") == {}
