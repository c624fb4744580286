"""API keys on their way from the parent to its workers: each process has a ring, and only the parent reads
Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from fleet.signing import BELIEVES_ALL, RecordTrust
from fleet.wire import RecordError
from router.policy.key_ring import HashFields, KeyRing
from router.workers.frames import Kind, encode

FRAME_BYTES = 1 << 20
"""Of records in one frame, before JSON writes some bytes sixfold: far below what a frame may hold."""


class RelayedKeyRing(KeyRing):
    """The parent's ring. What changes it is told to all workers, and all of it to a new one."""

    def __init__(self, tell: Callable[[bytes], None], trust: RecordTrust = BELIEVES_ALL) -> None:
        """`tell` takes a frame for every worker; workers believe all that comes so."""
        super().__init__(trust)
        self._tell = tell
        self._told: dict[str, HashFields] = {}
        """As bounded as the ring: records that it has neither taken nor refused are not kept."""

    def take(
        self, records: Mapping[str, HashFields], now: float, unix_now: float | None = None
    ) -> list[tuple[str, RecordError]]:
        faults = super().take(records, now, unix_now)
        news = {
            key: fields
            for key, fields in records.items()
            if fields and self._told.get(key) != fields and self._is_for_workers(key, fields)
        }
        if news:
            self._told.update(news)
            for frame in keys_to_frames(news):
                self._tell(frame)
        return faults

    def _is_for_workers(self, key: str, fields: HashFields) -> bool:
        if self.trust.asks("operator"):
            return self.uses(key, fields)
        return self.knows(key) or key in self._told

    def note_read(self, now: float) -> None:
        super().note_read(now)
        self._tell(encode(Kind.KEYS_READ))

    def all_frames(self) -> list[bytes]:
        """What a new worker must know."""
        frames = keys_to_frames({one.key_id: one.raw for one in self.credentials()})
        # after them what came last of each: a record that was badly written but revokes its key
        frames += keys_to_frames(self._told)
        return frames if self.read_at is None else [*frames, encode(Kind.KEYS_READ)]


def keys_to_frames(records: Mapping[str, HashFields]) -> list[bytes]:
    """Hashes as JSON, some to a frame; Redis gives bytes of any kind, latin-1 keeps them all."""
    frames: list[bytes] = []
    value: dict[str, dict[str, str]] = {}
    size = 0
    for key, fields in records.items():
        value[key] = {name.decode("latin-1"): text.decode("latin-1") for name, text in fields.items()}
        size += sum(len(name) + len(text) for name, text in fields.items())
        if size > FRAME_BYTES:
            frames.append(encode(Kind.KEYS, orjson.dumps(value)))
            value, size = {}, 0
    return [*frames, encode(Kind.KEYS, orjson.dumps(value))] if value else frames


def keys_from_json(body: bytes) -> dict[str, HashFields]:
    """The same, back."""
    value: dict[str, dict[str, Any]] = orjson.loads(body)
    return {
        key: {name.encode("latin-1"): text.encode("latin-1") for name, text in fields.items()}
        for key, fields in value.items()
    }
