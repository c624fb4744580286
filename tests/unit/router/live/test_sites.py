"""What is kept of sites and of their models, and for how long."""

from __future__ import annotations

from fleet.records import MAX_SITE_MODELS
from gateway.upstream import Origin
from router.live.sites import MAX_SITE_LOADS, SiteRegistry

ORIGIN = Origin.parse("http://127.0.0.1:1")


def names(report: int) -> list[str]:
    """As many models as a report may tell of, none of them in another report."""
    return [f"{report}-{number}" for number in range(MAX_SITE_MODELS)]


def test_loads_of_a_site_that_renames_its_models_are_bounded() -> None:
    """Those of the last two reports are kept; another site's are its own affair."""
    registry = SiteRegistry()
    other = registry.load("0-0", registry.entry("other", ORIGIN))
    entry = registry.entry("a", ORIGIN)
    for report in range(10):
        for model in names(report):
            registry.load(model, entry)
    assert set(registry.loads) == {"0-0", *names(8), *names(9)}
    assert registry.loads["0-0"] == {"other": other}
    assert len(registry.loads) == MAX_SITE_LOADS + 1


def test_a_load_stays_while_requests_are_in_flight() -> None:
    """They would be at no site otherwise, if the model came back."""
    registry = SiteRegistry()
    entry = registry.entry("a", ORIGIN)
    busy = registry.load("busy", entry)
    busy.begin()
    for report in range(10):
        for model in names(report):
            registry.load(model, entry)
    assert registry.load("busy", entry) is busy
    busy.end()
    for report in range(10, 12):
        for model in names(report):
            registry.load(model, entry)
    assert "busy" not in registry.loads


def test_a_model_that_is_told_of_at_every_report_keeps_its_load() -> None:
    """Whatever else the site tells of, and in whatever order."""
    registry = SiteRegistry()
    entry = registry.entry("a", ORIGIN)
    load = registry.load("m", entry)
    for report in range(10):
        for model in [*names(report)[1:], "m"]:
            registry.load(model, entry)
        assert registry.loads["m"]["a"] is load


def test_a_site_that_is_forgotten_leaves_no_load() -> None:
    """Not even one with requests in flight; they end on their own references."""
    registry = SiteRegistry()
    registry.load("m", registry.entry("a", ORIGIN)).begin()
    kept = registry.load("m", registry.entry("b", ORIGIN))
    registry.load("n", registry.entry("a", ORIGIN))
    registry.forget("a")
    registry.forget("never known")
    assert registry.loads == {"m": {"b": kept}}
    assert set(registry.entries) == {"b"}
