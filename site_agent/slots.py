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
from heapq import heapify, heappop, heapreplace
from typing import Literal

from fleet.instance import InstanceState
from site_agent.instance import Instance
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
    """What is in flight on one instance, and what it can take."""

    instance_id: str
    limits: Limits | None = None
    """None: those of every instance."""
    in_flight: int = 0
    running: int = 0
    kv_tokens: float = 0.0
    waiting_tokens: float = 0.0


@dataclass(slots=True, kw_only=True)
class Slots:
    """One per site."""

    seats: Sequence[Instance]
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
    _seated: list[tuple[Instance, _Count]] = field(init=False)
    _power_room_watts: float | None = None
    """Site watts that may still be added; None: nobody has said."""

    def __post_init__(self) -> None:
        self._counts = {one.instance_id: _Count(one.instance_id) for one in self.seats}
        self._seated = [(one, self._counts[one.instance_id]) for one in self.seats]

    # Facts from outside

    def set_limits(self, instance_id: str, limits: Limits) -> None:
        """One instance's limits, after its clock, its layout or the mean request have changed."""
        self._counts[instance_id].limits = limits

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
        return _slots(self._admitted())

    def reserve(self) -> int:
        """Slots that only resumed streams may take: rounded up, but never all."""
        return self._reserve(self.slots())

    def limits_at(self, instance_id: str) -> Limits:
        """Those of one instance."""
        return self._counts[instance_id].limits or self.limits

    def headroom(self) -> int:
        """Further requests of the recent mean size that would be admitted now: inside slots, SLO, KV, cap."""
        if self.is_closed:
            return 0
        admitted = self._admitted()
        room = 0
        for count, limits in admitted:
            room += self._room(count, limits)
        free = _free(admitted) - self._reserve(_slots(admitted))
        most = min(room, free)
        return max(0, self._power_count(admitted, most)) if most > 0 else 0

    def waiting_tokens(self) -> float | None:
        """Prompt tokens that the site would still let wait for prefill; None: no limit."""
        rooms = [
            max(0.0, limits.prefill_tokens - count.waiting_tokens)
            for count, limits in self._admitted()
            if limits.prefill_tokens is not None
        ]
        return sum(rooms) if rooms else None

    # Decisions

    def choose(self, ask: Ask, tried: Container[str] = ()) -> Instance | Pushback:
        """The instance for a request, or why there is none. `tried` ones have failed it already."""
        if ask.is_resume and not ask.takes_slot:  # about a stream that goes on here: it is let finish
            seated = [(one, count) for one, count in self._seated if one.is_serving]
        else:
            seated = [(one, count) for one, count in self._seated if one.is_admitted and not self.is_closed]
        if not seated:
            return self._pushback()
        open_to_it = [(one, count) for one, count in seated if count.instance_id not in tried]
        if ask.takes_slot:
            admitted = [(count, count.limits or self.limits) for _, count in seated]
            if _free(admitted) <= (0 if ask.is_resume else self._reserve(_slots(admitted))):
                return Pushback(reason="capacity", retry_after_seconds=BUSY_RETRY_SECONDS)
            open_to_it = [(one, count) for one, count in open_to_it if self._takes(count, ask)]
            room = self._power_room_watts
            if open_to_it and room is not None:
                open_to_it = [(one, count) for one, count in open_to_it if self._added_watts(count) <= room]
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
                self._power_room_watts -= self._added_watts(count)
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

    def _admitted(self) -> list[tuple[_Count, Limits]]:
        limits = self.limits
        return [(count, count.limits or limits) for one, count in self._seated if one.is_admitted]

    def _reserve(self, slots: int) -> int:
        return min(math.ceil(slots * self.resume_reserve_ratio), slots - 1) if slots else 0

    def _takes(self, count: _Count, ask: Ask) -> bool:
        """Whether an instance has a slot for it; for a new request also within SLO and KV cache.

        An empty instance takes any request: whether it can be served at all is the engine's to say.
        """
        limits = count.limits or self.limits
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

    def _room(self, count: _Count, limits: Limits) -> int:
        """Requests of mean size that an instance would still take, cap apart."""
        room, mean = limits.best_concurrency - count.running, self.mean
        if room <= 0:
            return 0
        if mean is None:
            return room
        size = mean.prompt_tokens + mean.output_tokens
        if limits.kv_tokens is not None and size > 0:
            room = min(room, max(count.running == 0, int((limits.kv_tokens - count.kv_tokens) // size)))
        if limits.prefill_tokens is not None and mean.prompt_tokens > 0:
            waiting = max(0.0, limits.prefill_tokens - count.waiting_tokens)
            room = min(room, max(count.waiting_tokens == 0, int(waiting // mean.prompt_tokens)))
        return max(0, room)

    def _added_watts(self, count: _Count) -> float:
        """What one request more on an instance adds to the site's draw."""
        limits, running = count.limits or self.limits, count.running
        return self._watts_between(limits.watts, running, running + 1)

    def _watts_between(self, watts: tuple[float, ...], running: int, then: int) -> float:
        if not watts:
            return 0.0
        last = len(watts) - 1
        return (watts[min(then, last)] - watts[min(running, last)]) * self.overhead_ratio

    def _power_count(self, admitted: Sequence[tuple[_Count, Limits]], most: int) -> int:
        """How many of mean size the cap allows, at most `most`, let in one after the other as `choose` does.

        What is too dear once stays so: what is left of the cap only shrinks, and a step's watts change only
        where somebody comes in. So whoever is passed over is done with.
        """
        left_watts = self._power_room_watts
        if left_watts is None or most <= 0:
            return most
        every = sum(
            [
                self._watts_between(limits.watts, count.running, limits.max_concurrency)
                for count, limits in admitted
            ]
        )
        if every <= left_watts:
            return most
        prompt = 0.0 if self.mean is None else self.mean.prompt_tokens
        line = []
        for index, (count, limits) in enumerate(admitted):
            if room := self._room(count, limits):
                line.append((count.waiting_tokens, count.in_flight, index, count.running, room))
        heapify(line)
        found = 0
        while line and found < most:
            waiting, in_flight, index, running, room = line[0]
            watts = self._watts_between(admitted[index][1].watts, running, running + 1)
            if watts > left_watts:
                heappop(line)
                continue
            left_watts -= watts
            found += 1
            if room > 1:
                heapreplace(line, (waiting + prompt, in_flight + 1, index, running + 1, room - 1))
            else:
                heappop(line)
        return found

    def _nearest(self, open_to_it: Sequence[tuple[Instance, _Count]], affinity: bytes | None) -> Instance:
        if affinity is None:
            if len(open_to_it) == 1:
                return open_to_it[0][0]
            found = min(open_to_it, key=lambda one: (one[1].waiting_tokens, one[1].in_flight, one[0].index))
            return found[0]
        least = min(open_to_it, key=lambda one: (one[1].in_flight, one[0].index))[1]
        slack = (least.limits or self.limits).max_concurrency * AFFINITY_SLACK_RATIO
        most = least.in_flight + slack
        near = [one for one, count in open_to_it if count.in_flight <= most]
        return max(near, key=lambda one: _attraction(affinity, one.instance_id))


def _slots(admitted: Sequence[tuple[_Count, Limits]]) -> int:
    slots = 0
    for _, limits in admitted:
        slots += limits.max_concurrency
    return slots


def _free(admitted: Sequence[tuple[_Count, Limits]]) -> int:
    free = 0
    for count, limits in admitted:
        if count.running < limits.max_concurrency:
            free += limits.max_concurrency - count.running
    return free


def _attraction(affinity: bytes, instance_id: str) -> bytes:
    """Rendezvous hashing: a key's home changes only when that very instance comes or goes."""
    return hashlib.blake2b(affinity + b"\0" + instance_id.encode(), digest_size=8).digest()
