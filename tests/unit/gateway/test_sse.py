"""Cutting bytes into events."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.counted_bytes import CountedBuffer, Work, counted

from gateway.sse import EventSplitter, EventTooLargeError, data_of

STREAM = b'data: {"a": 1}\n\n: keep-alive\n\ndata: x\r\n\r\nevent: e\ndata: y\ndata: z\n\ndata: [DONE]\n\n'
EVENTS = [
    b'data: {"a": 1}\n\n',
    b": keep-alive\n\n",
    b"data: x\r\n\r\n",
    b"event: e\ndata: y\ndata: z\n\n",
    b"data: [DONE]\n\n",
]


def test_one_whole_event_is_returned_as_it_is() -> None:
    """The common case copies nothing."""
    event = b"data: 1\n\n"
    assert EventSplitter().feed(event)[0] is event


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_cuts_anywhere_give_the_same_events(cuts: list[int]) -> None:
    """Where the network cuts does not matter, in the middle of a blank line neither."""
    splitter = EventSplitter()
    places = [0, *sorted(cuts), len(STREAM)]
    events = [event for start, end in pairwise(places) for event in splitter.feed(STREAM[start:end])]
    assert events == EVENTS
    assert splitter.rest == b""


def test_an_unfinished_event_stays_in_rest() -> None:
    """What has no end yet is kept and can be looked at."""
    splitter = EventSplitter()
    assert splitter.feed(b"data: 1\n\ndata: 2") == [b"data: 1\n\n"]
    assert splitter.rest == b"data: 2"


def test_an_endless_event_is_refused() -> None:
    """The buffer is bounded."""
    splitter = EventSplitter(max_event_bytes=10)
    with pytest.raises(EventTooLargeError, match="more than 10 bytes"):
        splitter.feed(b"data: 12345678")


def test_a_long_event_in_small_pieces_is_looked_at_once() -> None:
    """A site must not stop the router with an event that comes byte by byte: all before stays where it is."""
    splitter = EventSplitter()
    splitter.rest = rest = CountedBuffer(b"data: " + b"x" * 100_000)
    rest.work = Work()
    for _ in range(1000):
        assert splitter.feed(b"y") == []
    assert splitter.rest is rest
    assert 1000 <= rest.work.size_bytes <= 1000 * 2 * 4
    assert splitter.feed(b"\n\ndata: 2") == [b"data: " + b"x" * 100_000 + b"y" * 1000 + b"\n\n"]
    assert splitter.rest == b"data: 2"


@pytest.mark.parametrize("first", [b":x\n\n", b":x\r\n\r\n", b":\r\n:x\n\n", b":\n:x\r\n\r\n", b":\r:x\n\n"])
@pytest.mark.parametrize("other", [b":x\n\n", b":x\r\n\r\n"])
def test_many_small_events_are_looked_at_once(first: bytes, other: bytes) -> None:
    """However their lines end: a blank line of the other kind is not looked for again behind each."""
    data = counted(first + other * 5000)
    assert EventSplitter().feed(data) == [first] + [other] * 5000
    assert data.work.calls >= 5000
    assert data.work.size_bytes <= 8 * len(data)


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (EVENTS[0], b'{"a": 1}'),
        (EVENTS[1], None),
        (EVENTS[2], b"x"),
        (EVENTS[3], b"y\nz"),
        (b"data:tight\n\n", b"tight"),
        (b"id: 3\n\n", None),
    ],
)
def test_the_payload_of_an_event(event: bytes, data: bytes | None) -> None:
    """Comments and events without data have none."""
    assert data_of(event) == data
