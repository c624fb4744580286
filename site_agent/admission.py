"""The one admission authority of a site: `site_agent.slots` decides, this holds who is in flight.

Rules: a request comes in only where `Slots` says so; every `Flight` is opened here, has one owner, and is
closed by that owner in `finally`. Single-threaded: called from the event loop, never awaits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field

from site_agent.expected_draw import choose_again
from site_agent.instance import Instance
from site_agent.slots import Ask, Pushback, Slots, Ticket

ANY = Ask()


@dataclass(slots=True, kw_only=True, eq=False)
class Flight:
    """One request on one instance."""

    instance: Instance
    ticket: Ticket
    interrupt: Callable[[], object]
    """Ends it from outside; called at most once, when power goes or the engine is given up."""
    is_broken: bool = False
    """It was ended from outside."""
    is_answered: bool = False
    """A byte of its answer has come."""


@dataclass(slots=True, kw_only=True)
class Admission:
    """Opens and closes flights."""

    slots: Slots
    emptied: asyncio.Event = field(default_factory=asyncio.Event)
    """Shut, and nothing is in flight any more."""
    look_again: Callable[[], None] = lambda: None
    """Brings `slots` up to date on power, before a request is refused for want of it."""
    _flights: dict[str, set[Flight]] = field(init=False)

    def __post_init__(self) -> None:
        self._flights = {one.instance_id: set() for one in self.instances}

    @property
    def instances(self) -> tuple[Instance, ...]:
        return tuple(self.slots.seats)

    @property
    def is_closed(self) -> bool:
        """The agent is going: nothing more comes in."""
        return self.slots.is_closed

    @property
    def total_in_flight(self) -> int:
        return self.slots.total_in_flight

    def choose(self, ask: Ask = ANY, tried: Container[str] = ()) -> Instance | Pushback:
        """See `Slots.choose`. What has just ended gives its watts back at the latest here."""
        return choose_again(self.slots, ask, tried, look_again=self.look_again)

    def open(self, instance: Instance, interrupt: Callable[[], object], ask: Ask = ANY) -> Flight:
        """Count a request in; its owner closes it in `finally`."""
        flight = Flight(
            instance=instance, ticket=self.slots.enter(instance.instance_id, ask), interrupt=interrupt
        )
        self._flights[instance.instance_id].add(flight)
        return flight

    def close(self, flight: Flight) -> None:
        """Count it out. Once: a second time raises KeyError."""
        self._flights[flight.instance.instance_id].remove(flight)
        self.slots.leave(flight.ticket)
        if self.is_closed and not self.total_in_flight:
            self.emptied.set()

    def unanswered(self, instance_id: str) -> int:
        """Requests that compute on an instance, and of whose answer nothing has come yet."""
        return sum(
            flight.ticket.takes_slot and not flight.is_answered for flight in self._flights[instance_id]
        )

    def shut(self) -> None:
        """Let nothing more in."""
        self.slots.is_closed = True
        if not self.total_in_flight:
            self.emptied.set()

    def break_streams(self, instance_id: str) -> int:
        """End everything on an instance from outside; returns how many."""
        return _interrupt(self._flights[instance_id])

    def break_all(self) -> int:
        """The same on every instance."""
        return sum(self.break_streams(one.instance_id) for one in self.instances)


def _interrupt(flights: Iterable[Flight]) -> int:
    count = 0
    for flight in list(flights):
        if not flight.is_broken:
            flight.is_broken = True
            flight.interrupt()
            count += 1
    return count
