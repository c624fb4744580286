"""Frames between parent and workers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.workers.frames import (
    MAX_FRAME_BYTES,
    Frame,
    FrameError,
    FrameReader,
    Kind,
    decode_record,
    encode,
    encode_record,
)

FRAMES = st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=300)), max_size=8)


@given(FRAMES, st.integers(min_value=1, max_value=50))
def test_frames_come_out_as_they_went_in_however_they_are_cut(
    frames: list[tuple[Kind, bytes]], piece: int
) -> None:
    """A reader that gets so many bytes at a time yields every frame once, in order."""
    data = b"".join(encode(kind, body) for kind, body in frames)
    reader = FrameReader()
    found = [
        frame for start in range(0, len(data), piece) for frame in reader.feed(data[start : start + piece])
    ]
    assert found == [Frame(kind, body) for kind, body in frames]


def test_a_record_keeps_its_bytes_and_its_name() -> None:
    """Bytes that are no JSON and no text pass too: the worker's view judges them."""
    [frame] = FrameReader().feed(encode_record(Kind.REPORT, "north", b"\xff\x00{"))
    assert frame.kind is Kind.REPORT
    assert decode_record(frame.body) == ("north", b"\xff\x00{")


def test_a_forgotten_site_is_a_record_without_one() -> None:
    """An empty body is a body."""
    [frame] = FrameReader().feed(encode_record(Kind.FORGET, "north", b""))
    assert decode_record(frame.body) == ("north", b"")


def test_an_unknown_kind_is_refused() -> None:
    """Both ends are one program."""
    with pytest.raises(FrameError, match="kind 200"):
        list(FrameReader().feed(b"\0\0\0\0\xc8"))


def test_a_frame_that_is_too_long_is_refused_before_it_has_come() -> None:
    """Nothing is kept of it."""
    with pytest.raises(FrameError, match="bytes"):
        list(FrameReader().feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big") + b"\x03"))
