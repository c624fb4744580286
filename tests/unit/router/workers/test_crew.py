"""What the crew hands out of the memory that all workers share."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fleet.config import FleetConfig
from gateway.upstream import Origin
from router.config import RouterConfig
from router.live.events import EventRing
from router.live.sites import SiteRegistry
from router.workers import crew
from router.workers.crew import Crew

ORIGIN = Origin.parse("http://127.0.0.1:1")


def test_slots_of_models_that_are_known_no_more_are_given_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """But not while a worker has requests there; without a free one workers count alone."""
    monkeypatch.setattr(crew, "SLOTS", 2)
    made = Crew(
        FleetConfig(),
        RouterConfig(workers=2),
        view=lambda: SimpleNamespace(registry=registry),  # type: ignore[arg-type,return-value]
        keys=tuple,
        policy=bytes,
        spent=lambda _child, _body: None,
        events=EventRing(),
        clock=lambda: 0.0,
    )
    registry = SiteRegistry(made.shared)

    def slots() -> dict[tuple[str, str], int]:
        return dict(made._slots)

    for site_id in ("a", "b"):
        registry.load("m", registry.entry(site_id, ORIGIN))
    first = slots()
    assert set(first) == {("a", "m"), ("b", "m")}
    registry.forget("a")
    cells = made._memory.part(first["a", "m"], 1).in_flight
    cells[1] = 1
    registry.load("m", registry.entry("c", ORIGIN))
    assert slots() == first
    cells[1] = 0
    registry.load("m", registry.entry("d", ORIGIN))
    assert slots() == {("b", "m"): first["b", "m"], ("d", "m"): first["a", "m"]}
