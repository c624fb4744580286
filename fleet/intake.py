"""Judges a parsed record against those that came before it under the same key (DESIGN §4). Pure.

Rules, in this order: a sequence that no clock could have started; a second writer, until the first has been
silent for 2 s (so that a restart is over before any cap begins to walk down); a plan's lower epoch; a
sequence that does not advance. The writer's clock is never believed: a record with a wrong clock is refused
only by its sequence.
"""

from __future__ import annotations

from typing import NamedTuple

from fleet.records import Plan
from fleet.wire import Record

WRITER_SILENCE_SECONDS = 2.0
"""A writer that is restarted writes under a new id: it is heard after this."""
MAX_AHEAD_MILLISECONDS = 10 * 365 * 86_400 * 1000
"""Sequences begin at a writer's Unix milliseconds. One of ten years ahead would shut every later one out."""


class Refusal(NamedTuple):
    """Why a record is not used."""

    reason: str
    """Short, from a bounded set: `far_sequence`, `second_writer`, `stale_epoch`, `stale`, `duplicate`."""
    message: str
    is_worth_saying: bool
    """A mere repeat is not worth a word: every record comes two ways."""


class RecordJudge:
    """Mutable, one per key and reader."""

    __slots__ = ("_epoch", "_heard_at", "_sequence", "_writer_id")

    def __init__(self) -> None:
        self._writer_id: str | None = None
        self._heard_at = float("-inf")
        self._sequence = -1
        self._epoch = -1

    def judge(self, record: Record, *, now: float, unix_now: float) -> Refusal | None:
        """None: use it, and it is remembered. `now` is monotonic, `unix_now` the reader's own clock."""
        sequence, writer_id = record.sequence, record.writer_id
        if sequence > unix_now * 1000 + MAX_AHEAD_MILLISECONDS:
            return Refusal("far_sequence", f"sequence {sequence} is from no clock", True)
        is_other = self._writer_id is not None and writer_id != self._writer_id
        epoch = record.epoch if isinstance(record, Plan) else 0
        if isinstance(record, Plan):  # fenced by its epoch: a new leader need not wait
            if epoch < self._epoch:
                return Refusal("stale_epoch", f"epoch {epoch} after {self._epoch}", True)
        elif is_other and now - self._heard_at < WRITER_SILENCE_SECONDS:
            message = f"{writer_id} writes while {self._writer_id} does: stop one of them"
            return Refusal("second_writer", message, True)
        if sequence == self._sequence and not is_other:
            return Refusal("duplicate", f"sequence {sequence} again", False)
        if sequence <= self._sequence:
            return Refusal("stale", f"sequence {sequence} after {self._sequence}", True)
        self._writer_id, self._sequence, self._heard_at, self._epoch = writer_id, sequence, now, epoch
        return None
