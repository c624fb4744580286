"""Which headers cross."""

from __future__ import annotations

from gateway.headers import request_headers, response_headers


def test_hop_by_hop_and_heron_headers_stay_behind() -> None:
    """Neither a connection's own headers nor forged x-heron-* ones reach the next hop."""
    headers = [
        (b"connection", b"keep-alive"),
        (b"transfer-encoding", b"chunked"),
        (b"host", b"a"),
        (b"content-length", b"3"),
        (b"x-heron-resume", b"1"),
        (b"authorization", b"Bearer client"),
        (b"x-custom", b"kept"),
    ]
    assert request_headers(headers, frozenset({b"authorization"})) == [(b"x-custom", b"kept")]


def test_answers_keep_their_own_headers() -> None:
    """Content type and unknown headers go back; length, date and framing are written anew."""
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"3"),
        (b"date", b"x"),
        (b"x-heron-headroom", b"4"),
        (b"x-ratelimit", b"9"),
    ]
    assert response_headers(headers) == [(b"content-type", b"application/json"), (b"x-ratelimit", b"9")]
