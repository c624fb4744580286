"""What each request cost in energy, as a histogram. Pure.

Once a second the site's prefill and decode energy of that second (`EnergyAccount`) is handed out to the
requests by the tokens that each got in it, so that the joules of all requests and those that nobody was
billed for are the site's. Only shares count: a prompt's tokens are estimated by its size, a stream's are its
events. An answer in one piece shows its tokens when it ends: until then it is taken to get as many in each
second as a stream beside it. Energy that comes when nobody got a token is late: it goes to who got the last
ones, else to who waits for the first, else it waits some rounds for the next, and is nobody's after that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from gateway import usage

BOUNDS_JOULES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6)
"""From a short answer of a small model to a long one of a large one."""
EVENT = b"data: {"
WAIT_ROUNDS = 3
"""Of a request that has ended, and of energy that nobody took: an engine's counters, by which energy is
split, are a second or two late.
"""


@dataclass(slots=True)
class _Phase:
    """Prefill or decode of one request, in tokens."""

    new: float = 0.0
    """Nothing was paid for them yet."""
    last: float = 0.0
    """Those that were paid for last, when anybody paid."""


@dataclass(slots=True, kw_only=True, eq=False)
class Bill:
    """Of one request, fed with its answer."""

    prompt_tokens: float
    """Estimated; 0: it takes no part before its first token."""
    is_whole: bool = False
    """Its answer comes in one piece."""
    joules: float = 0.0
    prefill: _Phase = field(default_factory=_Phase)
    decode: _Phase = field(default_factory=_Phase)
    is_begun: bool = False
    """Its prompt has been read."""
    shared_rounds: int = 0
    """In which decode energy was handed out to it by a guess."""
    rounds: int = 0
    """Since it ended."""

    def take_piece(self, data: bytes) -> None:
        """Of a stream, as it comes."""
        if not self.is_begun:
            self.is_begun, self.prefill.new = True, self.prompt_tokens
        self.decode.new += data.count(EVENT)

    def take_body(self, body: bytes) -> None:
        """An answer in one piece. What it was billed for before by a guess stays; this is its last second."""
        self.is_begun = True
        if self.prefill.last <= 0:
            self.prefill.new = usage.prompt_tokens(body) or self.prompt_tokens
        self.decode.new = (usage.output_tokens(body) or 0.0) / (self.shared_rounds + 1)


@dataclass(slots=True)
class RequestEnergy:
    """One per site: the bills that are open, and a histogram of those that are settled."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_JOULES) + 1))
    """Of each bucket alone; the last: beyond all bounds."""
    sum_joules: float = 0.0
    unbilled_joules: float = 0.0
    """Of requests that were gone before they got a token, and what came too late."""
    _open: dict[Bill, None] = field(default_factory=dict)
    _ended: list[Bill] = field(default_factory=list)
    _prefill_joules: float = 0.0
    _decode_joules: float = 0.0
    """Not handed out yet."""
    _left_rounds: int = 0
    """Since when some was left."""

    def open(self, prompt_tokens: float, *, is_whole: bool = False) -> Bill:
        """A request is with an engine; its owner gives the bill back to `close`."""
        bill = Bill(prompt_tokens=prompt_tokens, is_whole=is_whole)
        self._open[bill] = None
        return bill

    def close(self, bill: Bill) -> None:
        """It is over. One that got nothing costs nothing."""
        del self._open[bill]
        if bill.is_begun or bill.joules > 0:
            self._ended.append(bill)

    def settle(self, prefill_joules: float, decode_joules: float) -> None:
        """Hand out what the site spent on tokens since the last time."""
        bills = [*self._open, *self._ended]
        _guess(bills, is_decode_paid=self._decode_joules + decode_joules > 0)
        self._prefill_joules = _pay(bills, self._prefill_joules + prefill_joules, "prefill")
        self._decode_joules = _pay(bills, self._decode_joules + decode_joules, "decode")
        self._give_up()
        waiting, self._ended = self._ended, []
        for bill in waiting:
            bill.rounds += 1
            if bill.rounds < WAIT_ROUNDS:
                self._ended.append(bill)
            elif bill.joules > 0:
                self.counts[sum(bound < bill.joules for bound in BOUNDS_JOULES)] += 1
                self.sum_joules += bill.joules

    def _give_up(self) -> None:
        """What was left too often, so that it does not fall on whoever comes next."""
        left = self._prefill_joules + self._decode_joules
        self._left_rounds = self._left_rounds + 1 if left > 0 else 0
        if self._left_rounds >= WAIT_ROUNDS:
            self.unbilled_joules += left
            self._prefill_joules = self._decode_joules = 0.0
            self._left_rounds = 0

    def buckets(self) -> list[tuple[str, float]]:
        """As Prometheus has them: cumulative, by upper bound."""
        return list(_cumulative(self.counts))


def _guess(bills: Iterable[Bill], *, is_decode_paid: bool) -> None:
    """What answers in one piece got that are not there yet: as much as a stream, and their prompt once."""
    bills = list(bills)
    streamed = [
        bill.decode.new for bill in bills if bill.is_begun and not bill.is_whole and bill.decode.new > 0
    ]
    mean = sum(streamed) / len(streamed) if streamed else 1.0
    for bill in bills:
        if not bill.is_whole or bill.is_begun or bill.rounds:
            continue
        bill.decode.new = mean
        bill.shared_rounds += is_decode_paid
        if bill.prefill.last <= 0:
            bill.prefill.new = bill.prompt_tokens


def _pay(bills: Sequence[Bill], joules: float, phase: Literal["prefill", "decode"]) -> float:
    """By what is new, else by what was paid for last, else to who waits; returns what nobody took."""
    if joules <= 0:
        return joules
    parts: list[tuple[Bill, _Phase]] = [(bill, getattr(bill, phase)) for bill in bills]
    total = sum(part.new for _, part in parts)
    if total > 0:
        for _, part in parts:
            part.last, part.new = part.new, 0.0
    else:
        total = sum(part.last for _, part in parts)
    shares = [(bill, part.last) for bill, part in parts]
    if total <= 0:
        shares = [(bill, bill.prompt_tokens) for bill in bills if not bill.is_begun and not bill.rounds]
        total = sum(share for _, share in shares)
    if total <= 0:
        return joules
    for bill, share in shares:
        bill.joules += joules * share / total
    return 0.0


def _cumulative(counts: Iterable[int]) -> Iterable[tuple[str, float]]:
    total = 0
    for bound, count in zip((*BOUNDS_JOULES, None), counts, strict=True):
        total += count
        yield "+Inf" if bound is None else f"{bound:g}", float(total)
