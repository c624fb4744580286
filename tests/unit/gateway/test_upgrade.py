"""An offer to change the protocol is passed over, and nothing of the request is lost."""

from __future__ import annotations

from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upgrade import feed, head_without_offer

JAVA = (
    b"POST /v1/x?a=1 HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: 5\r\nHost: h\r\n"
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nUpgrade: h2c\r\nX-Own: \xff\r\n\r\nhello"
)
CHUNKED = JAVA.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked").replace(
    b"hello", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
)
SOCKET = b"GET /v1/x HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"
PLAIN = b"POST /v1/y HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"


class Recorder:
    """What the protocol does around the parser, and the requests that came of it."""

    def __init__(self) -> None:
        self.parser: Any = httptools.HttpRequestParser(self)
        self.requests: list[tuple[bytes, bytes, dict[bytes, bytes], bytes]] = []
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self._body = b""
        self._is_offer = False

    def on_message_begin(self) -> None:
        self.url, self.headers, self._body, self._is_offer = b"", [], b"", False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._is_offer = self.parser.should_upgrade()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if not self._is_offer:
            self.requests.append((self.parser.get_method(), self.url, dict(self.headers), self._body))


@pytest.mark.parametrize("message", [JAVA, CHUNKED])
@given(st.lists(st.integers(0, 700), max_size=4))
def test_the_body_is_read_wherever_it_is_cut(message: bytes, cuts: list[int]) -> None:
    """Java's client: body, query and other headers stay; so does what comes behind it on the connection."""
    data = message + SOCKET + PLAIN
    places = sorted({min(cut, len(data)) for cut in cuts})
    reader = Recorder()
    offers = [
        feed(reader, data[start:end])
        for start, end in zip([0, *places], [*places, len(data)], strict=True)
        if start < end
    ]
    assert any(offers)
    first, second, third = reader.requests
    assert (first[0], first[1], first[3]) == (b"POST", b"/v1/x?a=1", b"hello")
    assert (first[2][b"host"], first[2][b"x-own"]) == (b"h", b"\xff")
    assert first[2].keys().isdisjoint({b"upgrade", b"http2-settings", b"connection"})
    assert (second[0], second[2]) == (b"GET", {b"host": b"h", b"connection": b"keep-alive"})
    assert (third[1], third[3]) == (b"/v1/y", b"hi")


def test_without_an_offer_nothing_is_read_twice() -> None:
    """And it is said so."""
    reader = Recorder()
    assert feed(reader, PLAIN) is False
    assert [body for *_, body in reader.requests] == [b"hi"]


def test_many_offers_at_once_are_many_requests() -> None:
    """More than calls can be nested."""
    reader = Recorder()
    assert feed(reader, SOCKET * 1500)
    assert len(reader.requests) == 1500


def test_connect_is_no_request_of_ours() -> None:
    """Whatever it wants to reach."""
    with pytest.raises(httptools.HttpParserError):
        feed(Recorder(), b"CONNECT h:80 HTTP/1.1\r\nhost: h\r\n\r\n")


def test_the_version_is_kept() -> None:
    """An HTTP/1.0 client stays one."""
    head = head_without_offer(b"GET", b"/", "1.0", [(b"connection", b"upgrade"), (b"upgrade", b"x")])
    assert head == b"GET / HTTP/1.0\r\n\r\n"


def test_what_lies_behind_an_offer_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of many offers in one piece would copy all that came behind it."""
    fed: list[bytes | memoryview] = []

    class Parser(httptools.HttpRequestParser):  # type: ignore[misc]
        def feed_data(self, data: bytes | memoryview) -> None:
            fed.append(data)
            super().feed_data(data)

    monkeypatch.setattr(httptools, "HttpRequestParser", Parser)
    recorder = Recorder()
    data = SOCKET * 20 + PLAIN
    assert feed(recorder, data)
    assert len(recorder.requests) == 21
    assert sum(len(piece) for piece in fed if isinstance(piece, bytes)) < 2 * len(data)
    assert all(piece.obj is data for piece in fed if isinstance(piece, memoryview))
