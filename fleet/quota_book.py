"""What API keys have left over a whole fleet: members say what they spent, and hear where all stand. Pure.

A member is a router, or one of its workers. It reports totals, never differences: a report that is lost or
comes twice changes nothing. `fleet.redis_store` does the same in Redis, in one step for all keys.

Rule: a bucket holds a minute's allowance, refills evenly, and owes at most a minute's
(`router.policy.quota`). One that is full again, with nothing under way, is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

MINUTE_SECONDS = 60.0
FRESH_SECONDS = 5.0
"""Requests under way at a member that has been silent for longer are over, or it is."""
FORGET_SECONDS = 60.0
"""A member that is silent for so long is forgotten; what it spent stays spent."""
MAX_KEYS = 2000
"""That are in use at a time; the spending of others is its member's own affair."""


class Spending(NamedTuple):
    """Of one key by one member, since that member started."""

    key_id: str
    requests: float
    requests_counted: float
    """As the book last said that it has counted; where it does not know this member, the rest is new."""
    tokens: float
    tokens_counted: float
    in_flight: int
    requests_per_minute: int | None
    tokens_per_minute: int | None


class Standing(NamedTuple):
    """Of one key, as one member is told."""

    key_id: str
    requests_level: float | None
    """Left of the minute's requests over the whole fleet; None: no limit."""
    tokens_level: float | None
    counted: tuple[float, float] | None
    """Of that member's own requests and tokens, in these levels; None: all that it was told of before."""
    in_flight_elsewhere: int


@dataclass(slots=True)
class _Member:
    requests: float
    tokens: float
    in_flight: int
    heard_at: float


@dataclass(slots=True)
class _Level:
    limit: int
    level: float

    def spend(self, amount: float, limit: int, seconds: float) -> None:
        self.level += limit - self.limit  # what was used stays used
        self.limit = limit
        refilled = min(float(limit), self.level + max(0.0, seconds) * limit / MINUTE_SECONDS)
        self.level = max(-float(limit), min(float(limit), refilled - amount))


@dataclass(slots=True)
class _Entry:
    at: float
    requests: _Level | None = None
    tokens: _Level | None = None
    members: dict[str, _Member] = field(default_factory=dict)


class QuotaBook:
    """Mutable; `now` is seconds of any clock that does not go back."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def share(self, member: str, spendings: Iterable[Spending], now: float) -> list[Standing]:
        """Take a member's report; returns where all keys stand that are in use."""
        for one in spendings:
            entry = self._entries.get(one.key_id)
            if entry is None:
                if len(self._entries) >= MAX_KEYS:
                    continue
                entry = self._entries[one.key_id] = _Entry(at=now)
            known = entry.members.get(member)
            requests = one.requests - (one.requests_counted if known is None else known.requests)
            tokens = one.tokens - (one.tokens_counted if known is None else known.tokens)
            seconds = now - entry.at
            entry.requests = _spent(entry.requests, requests, one.requests_per_minute, seconds)
            entry.tokens = _spent(entry.tokens, tokens, one.tokens_per_minute, seconds)
            entry.at = now
            entry.members[member] = _Member(one.requests, one.tokens, one.in_flight, now)
        return [
            self._standing(key_id, member, now)
            for key_id in list(self._entries)
            if self._is_used(key_id, now)
        ]

    def _is_used(self, key_id: str, now: float) -> bool:
        entry = self._entries[key_id]
        seconds = now - entry.at
        for level in (entry.requests, entry.tokens):
            if level is not None:
                level.spend(0.0, level.limit, seconds)
        entry.at = now
        for name, one in list(entry.members.items()):
            if now - one.heard_at > FORGET_SECONDS:
                del entry.members[name]
        levels = [level for level in (entry.requests, entry.tokens) if level is not None]
        is_full = all(level.level >= level.limit for level in levels)
        if is_full and not _in_flight(entry, now):
            del self._entries[key_id]
            return False
        return True

    def _standing(self, key_id: str, member: str, now: float) -> Standing:
        entry = self._entries[key_id]
        own = entry.members.get(member)
        return Standing(
            key_id=key_id,
            requests_level=None if entry.requests is None else entry.requests.level,
            tokens_level=None if entry.tokens is None else entry.tokens.level,
            counted=None if own is None else (own.requests, own.tokens),
            in_flight_elsewhere=_in_flight(entry, now, besides=member),
        )


def _spent(level: _Level | None, amount: float, limit: int | None, seconds: float) -> _Level | None:
    if limit is None:
        return None
    found = _Level(limit, float(limit)) if level is None else level
    found.spend(amount, limit, seconds)
    return found


def _in_flight(entry: _Entry, now: float, besides: str | None = None) -> int:
    return sum(
        one.in_flight
        for name, one in entry.members.items()
        if name != besides and now - one.heard_at <= FRESH_SECONDS
    )
