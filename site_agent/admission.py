"""The one admission authority of a site: who is in flight, who may come in, and on which instance.

Rules: a request comes in only where a slot of an admitted instance is free *now*; every `Flight` is opened
here, has one owner, and is closed by that owner in `finally`. Single-threaded: called from the event loop,
never awaits.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from typing import Literal

from fleet.instance import InstanceState
from site_agent.instance import Instance

PushbackReason = Literal["power", "capacity", "draining"]
AFFINITY_SLACK_RATIO = 0.25
"""A request follows its affinity until that instance has this share of its slots more in use than the least
loaded one; then it goes to the one that it is drawn to next, which is the same every time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushback:
    """ "Not here", and why."""

    reason: PushbackReason
    retry_after_seconds: float


@dataclass(slots=True, kw_only=True, eq=False)
class Flight:
    """One request on one instance."""

    instance: Instance
    takes_slot: bool
    interrupt: Callable[[], object]
    """Ends it from outside; called at most once, when power goes or the engine is given up."""
    is_broken: bool = False
    """It was ended from outside."""


@dataclass(slots=True, kw_only=True)
class Admission:
    """Counts what runs and decides what comes in."""

    instances: tuple[Instance, ...]
    max_concurrency: int
    resume_reserve_ratio: float
    start_seconds: float
    """How long an engine takes to start: the hint to those who are told to come back."""
    is_closed: bool = False
    """The agent is going: nothing more comes in. Set by `shut`."""
    emptied: asyncio.Event = field(default_factory=asyncio.Event)
    """Shut, and nothing is in flight any more."""
    is_short_of_power: bool = False
    """What the site lacks is power, not engines; set by the power loop."""
    _flights: dict[str, set[Flight]] = field(init=False)

    def __post_init__(self) -> None:
        self._flights = {one.instance_id: set() for one in self.instances}

    # Counts

    def running(self, instance_id: str) -> int:
        """Slots in use on an instance."""
        return sum(flight.takes_slot for flight in self._flights[instance_id])

    def in_flight(self, instance_id: str) -> int:
        """Requests open on an instance, those without a slot too."""
        return len(self._flights[instance_id])

    @property
    def total_in_flight(self) -> int:
        return sum(len(flights) for flights in self._flights.values())

    def slots(self) -> int:
        """Slots of the admitted instances."""
        return self.max_concurrency * sum(one.is_admitted for one in self.instances)

    def reserve(self) -> int:
        """Slots that only resumed streams may take: rounded up, but never all."""
        slots = self.slots()
        return min(math.ceil(slots * self.resume_reserve_ratio), slots - 1) if slots else 0

    def headroom(self) -> int:
        """Further requests that would be admitted now."""
        if self.is_closed:
            return 0
        return max(0, self._free() - self.reserve())

    def _free(self) -> int:
        return sum(
            max(0, self.max_concurrency - self.running(one.instance_id))
            for one in self.instances
            if one.is_admitted
        )

    # Decisions

    def choose(
        self,
        *,
        is_resume: bool = False,
        takes_slot: bool = True,
        affinity: bytes | None = None,
        tried: Container[str] = (),
    ) -> Instance | Pushback:
        """The instance for a request, or why there is none. `tried` ones have failed it already."""
        admitted = [one for one in self.instances if one.is_admitted]
        if self.is_closed or not admitted:
            return self._pushback()
        open_to_it = [one for one in admitted if one.instance_id not in tried]
        if takes_slot:
            if self._free() <= (0 if is_resume else self.reserve()):
                return Pushback(reason="capacity", retry_after_seconds=1.0)
            open_to_it = [one for one in open_to_it if self.running(one.instance_id) < self.max_concurrency]
        if not open_to_it:
            return Pushback(reason="capacity", retry_after_seconds=1.0)
        least = min(open_to_it, key=lambda one: (self.in_flight(one.instance_id), one.index))
        if affinity is None:
            return least
        most = self.in_flight(least.instance_id) + self.max_concurrency * AFFINITY_SLACK_RATIO
        near = [one for one in open_to_it if self.in_flight(one.instance_id) <= most]
        return max(near, key=lambda one: _attraction(affinity, one.instance_id))

    def _pushback(self) -> Pushback:
        states = [one.state for one in self.instances]
        if self.is_closed:
            return Pushback(reason="draining", retry_after_seconds=10.0)
        if self.is_short_of_power:
            reason: PushbackReason = "draining" if InstanceState.DRAINING in states else "power"
            return Pushback(reason=reason, retry_after_seconds=max(1.0, self.start_seconds + 3.0))
        return Pushback(reason="capacity", retry_after_seconds=max(1.0, self.start_seconds))

    # Flights

    def open(self, instance: Instance, interrupt: Callable[[], object], *, takes_slot: bool = True) -> Flight:
        """Count a request in; its owner closes it in `finally`."""
        flight = Flight(instance=instance, takes_slot=takes_slot, interrupt=interrupt)
        self._flights[instance.instance_id].add(flight)
        return flight

    def close(self, flight: Flight) -> None:
        """Count it out. Once."""
        self._flights[flight.instance.instance_id].remove(flight)
        if self.is_closed and not self.total_in_flight:
            self.emptied.set()

    def shut(self) -> None:
        """Let nothing more in."""
        self.is_closed = True
        if not self.total_in_flight:
            self.emptied.set()

    def break_streams(self, instance_id: str) -> int:
        """End everything on an instance from outside; returns how many."""
        return _interrupt(self._flights[instance_id])

    def break_all(self) -> int:
        """The same on every instance."""
        return sum(self.break_streams(one.instance_id) for one in self.instances)


def _attraction(affinity: bytes, instance_id: str) -> bytes:
    """Rendezvous hashing: a key's home changes only when that very instance comes or goes."""
    return hashlib.blake2b(affinity + b"\0" + instance_id.encode(), digest_size=8).digest()


def _interrupt(flights: Iterable[Flight]) -> int:
    count = 0
    for flight in list(flights):
        if not flight.is_broken:
            flight.is_broken = True
            flight.interrupt()
            count += 1
    return count
