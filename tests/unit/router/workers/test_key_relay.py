"""Keys on their way to the workers."""

from __future__ import annotations

from router.workers.frames import MAX_FRAME_BYTES, FrameReader
from router.workers.key_relay import FRAME_BYTES, keys_from_json, keys_to_frames


def test_many_large_records_take_several_frames() -> None:
    """JSON writes control characters sixfold; a frame that is too long would end every worker."""
    records = {f"key{number}": {b"tenant": b"t", b"note": b"\x01" * 250_000} for number in range(50)}
    frames = keys_to_frames(records)
    assert max(map(len, frames)) < MAX_FRAME_BYTES / 4
    assert len(frames) > 50 * 250_000 / FRAME_BYTES / 2
    found = {}
    for frame in FrameReader().feed(b"".join(frames)):
        found |= keys_from_json(frame.body)
    assert found == records


def test_none_take_none() -> None:
    """And a few take one."""
    assert keys_to_frames({}) == []
    assert len(keys_to_frames({"a": {b"x": b"\xff"}, "b": {}})) == 1
