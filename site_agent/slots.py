"""Who may come in to a site, on which instance, and how many more: the decisions of admission. Pure.

Rules, in order, for a request that asks to come in *now*:

1. Nowhere is an instance admitted: pushed back, with the reason why.
2. No slot is free beyond the resume reserve (a resumed stream may take the reserve): `capacity`.
3. An instance takes it only with a slot, and, unless it is a resume, inside the SLO (running requests, prompt
   tokens that wait for prefill) and the KV cache (what its requests will need in the end): else `capacity`.
4. The site takes it only if what it would draw with it stays under the cap (`PowerRoom`): else `power`.
5. Of what is left: the instance that its affinity draws it to, unless that has far more in flight; else the
   emptiest.

What is unknown (KV size, watts, SLO) limits nothing. Counts are kept, never recounted, so that a choice costs
the same however much is in flight. The simulator runs this same class.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

from fleet.instance import InstanceState
from site_agent.limits import Limits, MeanWork

PushbackReason = Literal["power", "capacity", "draining"]
AFFINITY_SLACK_RATIO = 0.25
"""A request follows its affinity until that instance has this share of its slots more in use than the least
loaded one; then it goes to the one that it is drawn to next, which is the same every time."""
CLOSED_RETRY_SECONDS = 10.0
"""An agent that goes is back after its restart, if at all."""
BUSY_RETRY_SECONDS = 1.0
"""For a slot, or for the draw to settle under the cap."""
RISE_SECONDS = 3.0
"""From the wind's return to an engine's start: the governor's hold."""


class Seat(Protocol):
    """What is needed of an instance: `site_agent.instance.Instance`, or the simulator's."""

    @property
    def instance_id(self) -> str: ...
    @property
    def index(self) -> int: ...
    @property
    def state(self) -> InstanceState: ...
    @property
    def is_admitted(self) -> bool:
        """Whether it takes requests."""
        ...


S = TypeVar("S", bound=Seat)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushback:
    """ "Not here", and why."""

    reason: PushbackReason
    retry_after_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request that wants to come in."""

    is_resume: bool = False
    takes_slot: bool = True
    """False: it computes nothing to speak of (`/tokenize`)."""
    affinity: bytes | None = None
    prompt_tokens: float = 0.0
    """0: unknown."""
    output_tokens: float | None = None
    """Expected; None: unknown, the site's recent mean is taken."""
    shows_first_token: bool = False
    """It streams, so that the end of its prefill is seen; else its prompt counts as never waiting."""


@dataclass(slots=True, kw_only=True)
class Ticket:
    """One request that came in; given back once, to `leave`."""

    instance_id: str
    takes_slot: bool
    kv_tokens: float
    waiting_tokens: float
    """Of its prompt, until its first token comes."""


@dataclass(slots=True)
class _Count:
    """What is in flight on one instance."""

    in_flight: int = 0
    running: int = 0
    kv_tokens: float = 0.0
    waiting_tokens: float = 0.0

    @property
    def queue(self) -> tuple[float, int]:
        """What a request meets there: first the prompts before its own, then who shares the batch."""
        return self.waiting_tokens, self.in_flight


@dataclass(slots=True, kw_only=True)
class Slots(Generic[S]):
    """One per site."""

    seats: Sequence[S]
    limits: Limits
    """Of every instance that has none of its own (`set_limits`)."""
    resume_reserve_ratio: float
    start_seconds: float
    """How long an engine takes to start: the hint to those who are told to come back."""
    overhead_ratio: float = 1.0
    """Site watts per GPU watt."""
    mean: MeanWork | None = None
    """None: nothing has finished yet; token limits do not count then in `headroom`."""
    is_closed: bool = False
    """The site is going: nothing more comes in."""
    is_short_of_power: bool = False
    """What it lacks is power, not engines."""
    total_in_flight: int = 0
    _counts: dict[str, _Count] = field(init=False)
    _limits: dict[str, Limits] = field(default_factory=dict)
    _power_room_watts: float | None = None
    """Site watts that may still be added; None: nobody has said."""

    def __post_init__(self) -> None:
        self._counts = {one.instance_id: _Count() for one in self.seats}

    # Facts from outside

    def set_limits(self, instance_id: str, limits: Limits) -> None:
        """One instance's limits, after its clock, its layout or the mean request have changed."""
        self._limits[instance_id] = limits

    def set_power(self, *, cap_watts: float, expected_watts: float) -> None:
        """The cap, and what the site draws or will shortly with all that is in flight now.

        `expected_watts` is the larger of the measured draw and the modelled one: the first lags behind what
        has just come in, the second does not know what nobody modelled.
        """
        self._power_room_watts = cap_watts - expected_watts

    # Counts

    def running(self, instance_id: str) -> int:
        """Slots in use on an instance."""
        return self._counts[instance_id].running

    def in_flight(self, instance_id: str) -> int:
        """Requests open on an instance, those without a slot too."""
        return self._counts[instance_id].in_flight

    def slots(self) -> int:
        """Slots of the admitted instances."""
        return sum(self.limits_at(one.instance_id).max_concurrency for one in self.seats if one.is_admitted)

    def reserve(self) -> int:
        """Slots that only resumed streams may take: rounded up, but never all."""
        slots = self.slots()
        return min(math.ceil(slots * self.resume_reserve_ratio), slots - 1) if slots else 0

    def limits_at(self, instance_id: str) -> Limits:
        """Those of one instance."""
        return self._limits.get(instance_id, self.limits)

    def headroom(self) -> int:
        """Further requests of the recent mean size that would be admitted now: inside slots, SLO, KV, cap."""
        if self.is_closed:
            return 0
        admitted = [one for one in self.seats if one.is_admitted]
        room = sum(self._room(one.instance_id) for one in admitted)
        free = self._free(admitted) - self.reserve()
        return max(0, min(room, free, self._power_count(admitted, min(room, free))))

    def waiting_tokens(self) -> float | None:
        """Prompt tokens that the site would still let wait for prefill; None: no limit."""
        rooms = [
            max(0.0, limits.prefill_tokens - self._counts[one.instance_id].waiting_tokens)
            for one in self.seats
            if one.is_admitted and (limits := self.limits_at(one.instance_id)).prefill_tokens is not None
        ]
        return sum(rooms) if rooms else None

    # Decisions

    def choose(self, ask: Ask, tried: Container[str] = ()) -> S | Pushback:
        """The instance for a request, or why there is none. `tried` ones have failed it already."""
        admitted = [one for one in self.seats if one.is_admitted]
        if self.is_closed or not admitted:
            return self._pushback()
        open_to_it = [one for one in admitted if one.instance_id not in tried]
        if ask.takes_slot:
            if self._free(admitted) <= (0 if ask.is_resume else self.reserve()):
                return Pushback(reason="capacity", retry_after_seconds=BUSY_RETRY_SECONDS)
            open_to_it = [one for one in open_to_it if self._takes(one.instance_id, ask)]
            if open_to_it and self._power_room_watts is not None:
                room = self._power_room_watts
                open_to_it = [one for one in open_to_it if self._added_watts(one.instance_id) <= room]
                if not open_to_it:
                    return Pushback(reason="power", retry_after_seconds=BUSY_RETRY_SECONDS)
        if not open_to_it:
            return Pushback(reason="capacity", retry_after_seconds=BUSY_RETRY_SECONDS)
        return self._nearest(open_to_it, ask.affinity)

    def enter(self, instance_id: str, ask: Ask) -> Ticket:
        """Count a request in. Its owner gives the ticket back, whatever happens."""
        count = self._counts[instance_id]
        ticket = Ticket(instance_id=instance_id, takes_slot=ask.takes_slot, kv_tokens=0.0, waiting_tokens=0.0)
        if ask.takes_slot:
            if self._power_room_watts is not None:
                self._power_room_watts -= self._added_watts(instance_id)
            ticket.kv_tokens = self._kv_tokens(ask)
            ticket.waiting_tokens = ask.prompt_tokens if ask.shows_first_token else 0.0
            count.running += 1
            count.kv_tokens += ticket.kv_tokens
            count.waiting_tokens += ticket.waiting_tokens
        count.in_flight += 1
        self.total_in_flight += 1
        return ticket

    def begin_decode(self, ticket: Ticket) -> None:
        """Its first token has come: its prompt waits no more."""
        self._counts[ticket.instance_id].waiting_tokens -= ticket.waiting_tokens
        ticket.waiting_tokens = 0.0

    def leave(self, ticket: Ticket) -> None:
        """Count it out, once. Its watts count until the next `set_power`."""
        self.begin_decode(ticket)
        count = self._counts[ticket.instance_id]
        count.in_flight -= 1
        count.running -= ticket.takes_slot
        count.kv_tokens = count.kv_tokens - ticket.kv_tokens if count.running else 0.0
        count.waiting_tokens = count.waiting_tokens if count.running else 0.0  # no rest from rounding
        self.total_in_flight -= 1

    # How they are made

    def _pushback(self) -> Pushback:
        if self.is_closed:
            return Pushback(reason="draining", retry_after_seconds=CLOSED_RETRY_SECONDS)
        if self.is_short_of_power:
            is_draining = any(one.state is InstanceState.DRAINING for one in self.seats)
            return Pushback(
                reason="draining" if is_draining else "power",
                retry_after_seconds=max(BUSY_RETRY_SECONDS, self.start_seconds + RISE_SECONDS),
            )
        return Pushback(reason="capacity", retry_after_seconds=max(BUSY_RETRY_SECONDS, self.start_seconds))

    def _free(self, admitted: Sequence[S]) -> int:
        return sum(
            max(0, self.limits_at(one.instance_id).max_concurrency - self._counts[one.instance_id].running)
            for one in admitted
        )

    def _takes(self, instance_id: str, ask: Ask) -> bool:
        """Whether an instance has a slot for it; for a new request also within SLO and KV cache.

        An empty instance takes any request: whether it can be served at all is the engine's to say.
        """
        count, limits = self._counts[instance_id], self.limits_at(instance_id)
        if count.running >= limits.max_concurrency:
            return False
        if ask.is_resume or count.running == 0:
            return True
        if count.running >= limits.best_concurrency:
            return False
        if limits.kv_tokens is not None and count.kv_tokens + self._kv_tokens(ask) > limits.kv_tokens:
            return False
        return (
            limits.prefill_tokens is None
            or count.waiting_tokens == 0
            or count.waiting_tokens + ask.prompt_tokens <= limits.prefill_tokens
        )

    def _kv_tokens(self, ask: Ask) -> float:
        """What it will hold of the KV cache in the end, as far as is known."""
        if ask.output_tokens is not None:
            return ask.prompt_tokens + ask.output_tokens
        return ask.prompt_tokens + (0.0 if self.mean is None else self.mean.output_tokens)

    def _room(self, instance_id: str) -> int:
        """Requests of mean size that an instance would still take, cap apart."""
        count, limits = self._counts[instance_id], self.limits_at(instance_id)
        room = max(0, limits.best_concurrency - count.running)
        if self.mean is None or not room:
            return room
        size = self.mean.prompt_tokens + self.mean.output_tokens
        if limits.kv_tokens is not None and size > 0:
            room = min(room, max(count.running == 0, int((limits.kv_tokens - count.kv_tokens) // size)))
        if limits.prefill_tokens is not None and self.mean.prompt_tokens > 0:
            waiting = max(0.0, limits.prefill_tokens - count.waiting_tokens)
            room = min(room, max(count.waiting_tokens == 0, int(waiting // self.mean.prompt_tokens)))
        return max(0, room)

    def _added_watts(self, instance_id: str) -> float:
        """What one request more on an instance adds to the site's draw."""
        watts, running = self.limits_at(instance_id).watts, self._counts[instance_id].running
        return self._watts_between(watts, running, running + 1)

    def _watts_between(self, watts: tuple[float, ...], running: int, then: int) -> float:
        if not watts:
            return 0.0
        last = len(watts) - 1
        return (watts[min(then, last)] - watts[min(running, last)]) * self.overhead_ratio

    def _power_count(self, admitted: Sequence[S], most: int) -> int:
        """How many more the cap allows, at most `most`, spread evenly: the level of water that fits."""
        room = self._power_room_watts
        if room is None or most <= 0:
            return most
        if room < 0:
            return 0
        seats = [(self._counts[one.instance_id].running, self.limits_at(one.instance_id)) for one in admitted]
        top = max(limits.max_concurrency for _, limits in seats)

        def added(level: int) -> tuple[int, float]:
            """(requests, watts) that fill every instance up to this level."""
            count, watts = 0, 0.0
            for running, limits in seats:
                then = min(level, limits.max_concurrency)
                if then > running:
                    count += then - running
                    watts += self._watts_between(limits.watts, running, then)
            return count, watts

        if added(top)[1] <= room:
            return most
        low, high = 0, top  # at `low` it fits, at `high` it does not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if added(middle)[1] <= room else (low, middle)
        count, watts = added(low)
        for running, limits in seats:  # the next level, as far as it goes
            if running <= low < limits.max_concurrency:
                step = self._watts_between(limits.watts, low, low + 1)
                if watts + step <= room:
                    count, watts = count + 1, watts + step
        if count == 0 and any(self._adds_within(one.instance_id, room) for one in admitted):
            count = 1  # waking an empty one is too much; a busy one takes another for little
        return min(most, count)

    def _adds_within(self, instance_id: str, room: float) -> bool:
        return self._room(instance_id) > 0 and self._added_watts(instance_id) <= room

    def _nearest(self, open_to_it: Sequence[S], affinity: bytes | None) -> S:
        counts = self._counts
        if affinity is None:
            return min(open_to_it, key=lambda one: (*counts[one.instance_id].queue, one.index))
        least = min(open_to_it, key=lambda one: (counts[one.instance_id].in_flight, one.index))
        slack = self.limits_at(least.instance_id).max_concurrency * AFFINITY_SLACK_RATIO
        most = counts[least.instance_id].in_flight + slack
        near = [one for one in open_to_it if counts[one.instance_id].in_flight <= most]
        return max(near, key=lambda one: _attraction(affinity, one.instance_id))


def _attraction(affinity: bytes, instance_id: str) -> bytes:
    """Rendezvous hashing: a key's home changes only when that very instance comes or goes."""
    return hashlib.blake2b(affinity + b"\0" + instance_id.encode(), digest_size=8).digest()
