"""What was done to the fleet and when, and what that excuses. Pure.

Rule: only what the design says is excused, and only while what excuses it lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.chaos.answers import Ledger
from benchmarks.chaos.clients import Record
from fleet.power import WALK_END_PERIODS, WALK_START_PERIODS

PERIOD_SECONDS = 1.0
"""Of the feed's readings."""
RECONNECT_SECONDS = 8.0
"""Until readings come again by a path that is whole again: 5 s of silence before a dead connection is given
up, 2 s of back-off, and one reading."""
KEYS_SECONDS = 3.0
"""Until a router knows keys that were restored."""
WALK_SECONDS = (WALK_END_PERIODS + 1) * PERIOD_SECONDS
HEARD_STEP_SECONDS = 0.25
TAKEN_SECONDS = 0.3
"""Between a client's connecting and a router's having its request."""
CONNECTION_SECONDS = 1.0
"""Between what ends a connection and its client's seeing it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One thing that was unwell, from when to when (unix seconds); infinity: it still is."""

    what: str
    """Such as `down power-feed`, `link north>feed`, `worker router-a`."""
    began_at: float
    ended_at: float


Span = tuple[float, float]


def spans(incidents: Iterable[Incident], names: Iterable[str], *, tail_seconds: float = 0.0) -> list[Span]:
    """When any of these was unwell, `tail_seconds` longer, in order, joined."""
    wanted = set(names)
    found = sorted((one.began_at, one.ended_at + tail_seconds) for one in incidents if one.what in wanted)
    joined: list[Span] = []
    for begin, end in found:
        if joined and begin <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((begin, end))
    return joined


def both(first: Sequence[Span], second: Sequence[Span]) -> Iterator[Span]:
    """When both were."""
    for begin, end in first:
        for other_begin, other_end in second:
            if max(begin, other_begin) < min(end, other_end):
                yield max(begin, other_begin), min(end, other_end)


def blind_spans(
    site_id: str, incidents: Sequence[Incident], *, tail_seconds: float = RECONNECT_SECONDS
) -> list[Span]:
    """When neither path from the feed to a site's agent was surely whole: it may not have heard a reading.

    Without a tail: when surely none could come.
    """
    feed = ("down power-feed",)
    direct = spans(incidents, (*feed, f"link {site_id}>feed"), tail_seconds=tail_seconds)
    agent = f"link site-agent {site_id}>redis"
    others = ("down redis", "link power-feed>redis", agent, f"records {site_id}")
    redis = spans(incidents, (*feed, *others), tail_seconds=tail_seconds)
    return sorted(both(direct, redis))


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What a site may take for its grant while it may be blind: the last reading, walked down (DESIGN §7).

    Which was the last is not known here: any instant of the spell at which one may have come, or its begin.
    """

    maybe_blind: Sequence[Span]
    surely_blind: Sequence[Span]

    def watts(self, at: float, wind: Callable[[float], float]) -> float:
        """At an instant; what the wind gives then is always allowed."""
        most = wind(at)
        spell = next(((begin, end) for begin, end in self.maybe_blind if begin <= at <= end), None)
        if spell is None:
            return most
        heard = max(spell[0], at - WALK_SECONDS)
        while heard < at:
            if heard == spell[0] or not any(begin < heard <= end for begin, end in self.surely_blind):
                most = max(most, wind(heard) * walk_left_ratio(at - heard))
            heard += HEARD_STEP_SECONDS
        return most


def walk_left_ratio(seconds: float) -> float:
    """How much of a cap is left so long after the last reading, which may have been one period old."""
    start = WALK_START_PERIODS * PERIOD_SECONDS
    return min(1.0, max(0.0, (WALK_SECONDS - seconds) / (WALK_SECONDS - start)))


def excuse(record: Record, incidents: Sequence[Incident]) -> str:
    """Why a request may have ended with neither an answer nor a stated error; "" if nothing excuses it.

    A worker that was killed takes its requests with it. A router that stops finishes what it has; who comes
    then is not taken in.
    """
    is_untouched = record.verdict.heading in ("connection refused", "no answer")
    for one in incidents:
        if not one.began_at <= record.ended_at or not record.began_at <= one.ended_at + CONNECTION_SECONDS:
            continue
        if one.what == f"worker {record.router}":
            return one.what
        is_late = record.began_at >= one.began_at - TAKEN_SECONDS
        if one.what == f"stopping {record.router}" and is_untouched and is_late:
            return one.what
    return ""


def excuse_of_answer(record: Record, incidents: Sequence[Incident]) -> str:
    """Why an answer may be a wrong one; "" if nothing excuses it."""
    return _excuse_of_keys(record, incidents) or _excuse_of_aborts(record, incidents)


def _excuse_of_aborts(record: Record, incidents: Sequence[Incident]) -> str:
    """An engine that somebody else stops calls a response in one piece `completed` (docs/api.md)."""
    if record.ask.api != "responses" or record.ask.is_stream or not record.verdict.wrong.startswith("text"):
        return ""
    aborts = [one for one in incidents if one.what == "engine abort"]
    is_hit = any(one.began_at <= record.ended_at and record.began_at <= one.ended_at for one in aborts)
    return "engine abort" if is_hit else ""


def _excuse_of_keys(record: Record, incidents: Sequence[Incident]) -> str:
    """A router that began while Redis had lost the keys knows none until they are restored.

    So docs/admission.md says.
    """
    if "status 401" not in record.verdict.wrong:
        return ""
    for gone in incidents:
        if gone.what != "no keys" or not gone.began_at <= record.began_at <= gone.ended_at + KEYS_SECONDS:
            continue
        for one in incidents:
            if one.what == f"stopping {record.router}" and one.began_at <= gone.ended_at + KEYS_SECONDS:
                return "began without keys"
    return ""


def expected_ledger(records: Iterable[Record]) -> dict[Ledger, int]:
    """What a router should have counted."""
    counts: dict[Ledger, int] = {}
    for record in records:
        counts[record.verdict.ledger] = counts.get(record.verdict.ledger, 0) + 1
    return counts


def ledger_faults(expected: dict[Ledger, int], counted: dict[str, int], *, may_vary: int) -> list[str]:
    """Where a router's ledger and what its clients saw do not agree.

    A request of which its client cannot tell (`unknown`) may be under any heading; `may_vary` more may be
    under another than their clients saw.
    """
    found = []
    unknown = expected.get("unknown", 0) + may_vary
    for name in ("completed", "shed", "broken", "client_error", "failed"):
        least = expected.get(name, 0) - may_vary
        if not least <= counted[name] <= least + may_vary + unknown:
            found.append(
                f"{name}: the ledger has {counted[name]}, clients saw {least + may_vary}, "
                f"and of {unknown} nobody knows"
            )
    total = sum(count for name, count in expected.items() if name != "-")
    if not total - unknown <= counted["requests"] <= total:
        found.append(f"requests: the ledger has {counted['requests']}, clients sent {total}")
    return found
