"""Flights: every count returns to zero, and what is broken off is broken off once."""

from __future__ import annotations

import pytest
from support.seats import ready_instances

from site_agent.admission import Admission
from site_agent.limits import Limits
from site_agent.slots import Ask, Slots


def admission(count: int = 2) -> Admission:
    return Admission(
        slots=Slots(
            seats=ready_instances(count),
            limits=Limits(max_concurrency=4),
            resume_reserve_ratio=0.0,
            start_seconds=2.0,
        )
    )


def test_a_flight_without_a_slot_takes_no_headroom() -> None:
    """But it is in flight, and is broken off with the rest."""
    site = admission()
    interrupted: list[int] = []
    flight = site.open(site.instances[0], lambda: interrupted.append(1), Ask(takes_slot=False))
    assert site.slots.headroom() == 8
    assert site.total_in_flight == 1
    assert site.break_all() == 1
    assert site.break_all() == 0
    assert interrupted == [1]
    assert flight.is_broken
    site.close(flight)
    assert site.total_in_flight == 0


def test_closing_a_flight_twice_is_an_error() -> None:
    """A count that goes down twice is a bug, not a detail."""
    site = admission()
    flight = site.open(site.instances[0], lambda: None)
    site.close(flight)
    with pytest.raises(KeyError):
        site.close(flight)
    assert site.total_in_flight == 0


def test_shut_is_empty_when_the_last_flight_closes() -> None:
    """Not before; and at once where nothing flies."""
    busy, idle = admission(), admission()
    flight = busy.open(busy.instances[0], lambda: None)
    busy.shut()
    idle.shut()
    assert idle.emptied.is_set()
    assert not busy.emptied.is_set()
    assert busy.slots.headroom() == 0
    busy.close(flight)
    assert busy.emptied.is_set()
