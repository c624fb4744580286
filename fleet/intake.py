"""Judges a parsed record against those that came before it under the same key (DESIGN §4). Pure.

Rules, in this order:

1. a sequence, or a plan's epoch, that no clock could have started: `far_sequence`;
2. a plan is fenced by its epoch: a lower one is `stale_epoch` whatever its sequence, a higher one is used
   whatever its sequence and whoever writes it (a new leader need not wait);
3. another writer, until the first has been silent for 2 s (so that a restart is over before any cap begins
   to walk down): `second_writer`;
4. a sequence that does not advance: `duplicate` or `stale`. But after a minute's silence, as long as a site's
   record lives in Redis, it is used if the record's own clock is right: the world was emptied, and its writer
   begins anew behind the old sequence. A left-over or replayed record has an old clock.

So no decision takes a foreign clock's word alone: a wrong one only delays a writer that also went back.
"""

from __future__ import annotations

from typing import NamedTuple

from fleet.records import Plan, PowerReading, SiteReport, is_of_no_clock
from fleet.store import SITE_TTL_SECONDS
from fleet.wire import Record

WRITER_SILENCE_SECONDS = 2.0
"""A writer that is restarted writes under a new id: it is heard after this."""
CROSSING_RECORDS = 3
"""A record comes two ways: the one that is slower may bring one so far behind, and nothing is wrong."""
MAX_CLOCK_SKEW_SECONDS = 30.0
"""Where `[fleet] max_clock_skew_seconds` is not at hand."""


class Refusal(NamedTuple):
    """Why a record is not used."""

    reason: str
    """Short, from a bounded set: `far_sequence`, `second_writer`, `stale_epoch`, `stale`, `duplicate`."""
    message: str
    is_worth_saying: bool
    """A mere repeat is not worth a word, nor the one before: every record comes two ways."""


class RecordJudge:
    """Mutable, one per key and reader."""

    __slots__ = ("_epoch", "_heard_at", "_max_clock_skew_seconds", "_sequence", "_writer_id")

    def __init__(self, *, max_clock_skew_seconds: float = MAX_CLOCK_SKEW_SECONDS) -> None:
        self._max_clock_skew_seconds = max_clock_skew_seconds
        self._writer_id: str | None = None
        self._heard_at = float("-inf")
        self._sequence = -1
        self._epoch = 0

    def judge(self, record: Record, *, now: float, unix_now: float) -> Refusal | None:
        """None: use it, and it is remembered. `now` is monotonic, `unix_now` the reader's own clock."""
        sequence, writer_id = record.sequence, record.writer_id
        epoch = record.epoch if isinstance(record, Plan) else 0
        if is_of_no_clock(max(sequence, epoch), unix_now):
            return Refusal("far_sequence", f"sequence {max(sequence, epoch)} is from no clock", True)
        if epoch < self._epoch:
            return Refusal("stale_epoch", f"epoch {epoch} after {self._epoch}", True)
        if epoch == self._epoch:
            refusal = self._judge_sequence(record, now=now, unix_now=unix_now)
            if refusal is not None:
                return refusal
        self._writer_id, self._sequence, self._heard_at, self._epoch = writer_id, sequence, now, epoch
        return None

    def _judge_sequence(self, record: Record, *, now: float, unix_now: float) -> Refusal | None:
        is_other = self._writer_id is not None and record.writer_id != self._writer_id
        silent_seconds = now - self._heard_at
        if is_other and silent_seconds < WRITER_SILENCE_SECONDS:
            message = f"{record.writer_id} writes while {self._writer_id} does: stop one of them"
            return Refusal("second_writer", message, True)
        if record.sequence > self._sequence:
            return None
        if record.sequence == self._sequence and not is_other:
            return Refusal("duplicate", f"sequence {record.sequence} again", False)
        if silent_seconds >= SITE_TTL_SECONDS and self._is_clock_right(record, unix_now):
            return None
        is_crossing = not is_other and silent_seconds < WRITER_SILENCE_SECONDS
        is_worth_saying = not (is_crossing and self._sequence - record.sequence <= CROSSING_RECORDS)
        return Refusal("stale", f"sequence {record.sequence} after {self._sequence}", is_worth_saying)

    def _is_clock_right(self, record: Record, unix_now: float) -> bool:
        """Whether the record says that it is of now; SiteInfo and Plan, without a time, cannot."""
        if not isinstance(record, SiteReport | PowerReading):
            return False
        return abs(unix_now - record.observed_at_unix_seconds) <= self._max_clock_skew_seconds
