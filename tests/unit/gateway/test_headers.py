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


def test_what_only_the_asked_server_may_say_stays_behind() -> None:
    """Cookies and CORS of an upstream, and what its `Connection` headers name."""
    headers = [
        (b"connection", b"keep-alive, X-Secret"),
        (b"x-secret", b"1"),
        (b"connection", b"x-other ,"),
        (b"x-other", b"2"),
        (b"set-cookie", b"a=b"),
        (b"access-control-allow-origin", b"*"),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"x-secret"),
        (b"content-type", b"text/plain"),
    ]
    assert response_headers(headers) == [(b"content-type", b"text/plain")]
