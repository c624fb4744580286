"""What CORS headers an answer carries."""

from __future__ import annotations

from gateway.cors import MAX_ASKED_HEADERS_BYTES, CorsPolicy

ORIGIN = b"https://a.example"
PREFLIGHT = [(b"origin", ORIGIN), (b"access-control-request-method", b"POST")]


def test_a_named_origin_is_named_back():
    """With `vary`, so that caches keep answers apart."""
    lines = CorsPolicy([ORIGIN.decode()]).lines([(b"origin", ORIGIN)])
    assert lines.startswith(b"access-control-allow-origin: https://a.example\r\nvary: Origin\r\n")
    assert lines.endswith(b"\r\n")


def test_a_foreign_origin_gets_nothing_but_vary():
    """Nor does a request without one, or one that has more than a name in it."""
    policy = CorsPolicy([ORIGIN.decode()])
    for headers in ([(b"origin", b"https://b.example")], [], [(b"origin", ORIGIN + b"\r\nx: y")]):
        assert policy.lines(headers) == b"vary: Origin\r\n"
        assert policy.pairs(headers) == [(b"vary", b"Origin")]


def test_a_preflight_names_what_may_be_sent():
    """Only a preflight, only of an origin that is allowed; of headers no endless list."""
    policy = CorsPolicy([ORIGIN.decode()])
    asked = (b"access-control-request-headers", b"x" * 10_000)
    made = dict(policy.preflight([*PREFLIGHT, asked], ("POST", "OPTIONS")))
    assert made[b"access-control-allow-methods"] == b"POST, OPTIONS"
    assert len(made[b"access-control-allow-headers"]) == MAX_ASKED_HEADERS_BYTES
    assert policy.preflight(PREFLIGHT[:1], ("POST",)) == []
    assert policy.preflight([(b"origin", b"null"), PREFLIGHT[1]], ("POST",)) == []
    assert CorsPolicy(["*"]).preflight([(b"origin", b"null"), PREFLIGHT[1]], ("POST",))
