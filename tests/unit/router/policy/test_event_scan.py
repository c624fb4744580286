"""Streams of other APIs: their ends by name."""

from __future__ import annotations

import pytest

from router.policy.body import Api
from router.policy.event_scan import EventStreamScanner, scanner_for


@pytest.mark.parametrize(
    ("api", "data", "ending"),
    [
        (Api.MESSAGES, b'event: message_stop\ndata: {"type":"message_stop"}\n\n', "complete"),
        (Api.MESSAGES, b'event: error\ndata: {"type":"error","error":{"type":"x"}}\n\n', "error_event"),
        (Api.RESPONSES, b'event: response.completed\ndata: {"type":"response.completed"}\n\n', "complete"),
        (Api.RESPONSES, b'event: response.failed\ndata: {"type":"response.failed"}\n\n', "complete"),
        (Api.RESPONSES, b'data: {"type":"response.completed"}\n\n', "complete"),
        (Api.OTHER, b"data: {}\n\ndata: [DONE]\n\n", "complete"),
        (Api.OTHER, b'data: {"error": {"code": 500}}\n\n', "error_event"),
        (Api.MESSAGES, b'data: {"type":[1]}\n\n', None),
        (Api.MESSAGES, b'event: content_block_delta\ndata: {"text":"message_stop"}\n\n', None),
    ],
)
def test_other_apis_end_in_their_own_way(api: Api, data: bytes, ending: str | None):
    """Terminal events by name."""
    scanner = scanner_for(api, "plain", cut=False, choices=1)
    assert isinstance(scanner, EventStreamScanner)
    scanner.feed(data)
    assert scanner.ending == ending


def test_a_part_of_an_event_is_not_passed_on():
    """Wherever the connection ends."""
    scanner = EventStreamScanner(Api.MESSAGES)
    assert scanner.feed(b"event: a\ndata: {}\n\nevent: b\nda") == b"event: a\ndata: {}\n\n"
    assert scanner.feed(b"ta: {}\n\n") == b"event: b\ndata: {}\n\n"
    assert scanner.events == 2


def test_an_event_without_end_is_bounded():
    """Memory is not the site's to fill."""
    scanner = EventStreamScanner(Api.OTHER)
    for _ in range(10):
        scanner.feed(b"data: " + b"x" * (1 << 20))
    assert scanner.ending == "malformed"


def test_a_message_without_a_stop_reason_was_given_up():
    """vLLM says null when it stops, before a clean `message_stop`; neither is passed on."""
    scanner = EventStreamScanner(Api.MESSAGES)
    start = b'event: message_start\ndata: {"message":{"stop_reason":null}}\n\n'
    assert scanner.feed(start) == start
    end = b'event: message_delta\ndata: {"delta":{"stop_reason":null}}\n\nevent: message_stop\ndata: {}\n\n'
    assert scanner.feed(end) == b""
    assert scanner.ending == "aborted"


def test_a_message_begins_with_its_first_output():
    """What only announces it, and comments, promise nothing; a Response's first event tells its id."""
    scanner = EventStreamScanner(Api.MESSAGES)
    scanner.feed(b': hi\n\nevent: message_start\ndata: {"type":"message_start"}\n\nevent: ping\ndata: {}\n\n')
    assert not scanner.has_begun
    scanner.feed(b'event: error\ndata: {"type":"error","error":{"type":"x"}}\n\n')
    assert (scanner.has_begun, scanner.ending) == (False, "error_event")
    scanner = EventStreamScanner(Api.MESSAGES)
    scanner.feed(b'event: content_block_start\ndata: {"type":"content_block_start"}\n\n')
    assert scanner.has_begun
    scanner = EventStreamScanner(Api.RESPONSES)
    scanner.feed(b'event: response.created\ndata: {"type":"response.created"}\n\n')
    assert scanner.has_begun
