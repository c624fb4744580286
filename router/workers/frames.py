"""What parent and workers say to each other over their socket: length, kind, body. Pure.

Records travel as the bytes that Redis gave, under the name that they were found under; everything else is
JSON. Both ends are the same version of this program, so an unknown kind is a defect and raises.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

MAX_FRAME_BYTES = 64 << 20
"""Of a metrics page of ten thousand sites; a longer one is a defect."""
_HEAD = struct.Struct(">IB")


class Kind(IntEnum):
    """One byte. Parent to worker below 32, worker to parent from there on."""

    SETUP = 1
    """JSON: what the worker is and how it is configured; the first frame of all."""
    SLOT = 2
    """JSON: which part of the shared memory a (site, model) has; always before that site's report."""
    REPORT = 3
    INFO = 4
    POWER = 5
    PLAN = 13
    CORDON = 14
    FORGET = 6
    """A record under its site's name; FORGET has an empty one, CORDON where there is none any more."""
    KEYS = 10
    """JSON: records of API keys, by their SHA-256."""
    KEYS_READ = 11
    """All keys that there are have been sent."""
    QUOTAS = 15
    """JSON: where API keys stand whose quotas are in use."""
    POLICY = 12
    """JSON: which policy routes from now on, and its parameters."""
    KNOWN = 7
    """All that is known has been sent: serve."""
    ASK = 8
    """JSON: a number to answer with, and what is wanted."""
    STOP = 9
    """Finish what is under way, then end."""

    READY = 32
    EVENT = 33
    """JSON: for the operator's timeline."""
    STATE = 34
    """JSON: what the worker does now."""
    METRICS = 35
    """JSON: all its metrics."""
    BREAK = 36
    """JSON: streams that broke off: at which site, why, how many."""
    SPENT = 37
    """JSON: what was spent of API keys' quotas since the worker began."""


class Frame(NamedTuple):
    """One message."""

    kind: Kind
    body: bytes


class FrameError(Exception):
    """The other end does not speak this language."""


def encode(kind: Kind, body: bytes = b"") -> bytes:
    """The bytes of one frame."""
    return _HEAD.pack(len(body), kind) + body


def encode_record(kind: Kind, site_id: str, raw: bytes) -> bytes:
    """A record's frame."""
    name = site_id.encode()
    return _HEAD.pack(1 + len(name) + len(raw), kind) + bytes((len(name),)) + name + raw


def decode_record(body: bytes) -> tuple[str, bytes]:
    """(site, raw) of a record's frame."""
    end = 1 + body[0]
    return body[1:end].decode(), body[end:]


class FrameReader:
    """Bytes in, frames out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole now.

        Raises:
            FrameError: too long, or of no known kind.
        """
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= _HEAD.size:
                length, number = _HEAD.unpack_from(buffer, start)
                if length > MAX_FRAME_BYTES:
                    raise FrameError(f"a frame of {length} bytes")
                end = start + _HEAD.size + length
                if len(buffer) < end:
                    return
                try:
                    kind = Kind(number)
                except ValueError:
                    raise FrameError(f"a frame of kind {number}") from None
                body = bytes(buffer[start + _HEAD.size : end])
                start = end
                yield Frame(kind, body)
        finally:
            del buffer[:start]
