"""What is held back of a stream until it has begun."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from support.counted_bytes import UnaddedBytes

from router.live import relay


class Scanner:
    """Passes everything on; `b"x"` is output."""

    events = 0
    has_begun = False
    ending = None

    def feed(self, data: bytes) -> bytes:
        self.events += 1
        self.has_begun = data == b"x"
        return UnaddedBytes(data)


@pytest.mark.parametrize("last", [b"x", b"b" * relay.MAX_HELD_BYTES], ids=["output", "too much to hold"])
def test_what_was_held_back_is_sent_at_once_and_copied_once(monkeypatch: pytest.MonkeyPatch, last: bytes):
    """A site may send any number of small events without output: each must cost the same."""
    monkeypatch.setattr(relay, "site_answer_headers", lambda _headers: [])
    monkeypatch.setattr(relay, "own_headers", lambda _exchange: [])
    written: list[bytes] = []
    request = SimpleNamespace(write=written.append, start=lambda _status, _headers: None, outlet=None)
    exchange: Any = SimpleNamespace(
        request=request, is_committed=False, on_opening=None, pause=None, resume=None
    )

    def begin_stream(_now: float) -> None:
        exchange.is_committed = True

    exchange.begin_stream = begin_stream
    response: Any = SimpleNamespace(status=200, headers=[])
    scanner: Any = Scanner()
    on_data = relay.first_relay(exchange, response, scanner, lambda: 1.0)
    for _ in range(100):
        on_data(b"a")
    assert written == []
    on_data(last)
    on_data(b"c")
    assert written == [b"a" * 100 + last, b"c"]
