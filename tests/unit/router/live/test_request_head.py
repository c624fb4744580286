"""What crosses from a client's head to a site's."""

from __future__ import annotations

import random
from typing import Any

import pytest
from support.views import FEATURES

from router.live.request_head import RequestHead, shared_head, site_head


class _Request:
    def __init__(self, *headers: tuple[bytes, bytes]) -> None:
        self.headers = list(headers)
        self.fields = dict(headers)


def head(*headers: tuple[bytes, bytes]) -> RequestHead:
    request: Any = _Request(*headers)
    return RequestHead(request, random.Random(1))


def test_only_the_allow_list_passes():
    """No authorization, no cookie, nothing of ours, no compression."""
    made = head(
        (b"authorization", b"Bearer x"),
        (b"cookie", b"c"),
        (b"x-heron-tier", b"priority"),
        (b"accept-encoding", b"gzip"),
        (b"content-type", b"text/plain"),
        (b"traceparent", b"00-1-2-01"),
    )
    assert made.passed_on == [(b"traceparent", b"00-1-2-01")]


@pytest.mark.parametrize("value", [b"", b"x" * 129, b"a\x01b", "é".encode()])
def test_a_request_id_that_is_unfit_is_replaced(value: bytes):
    """It goes into logs and headers."""
    made = head((b"x-request-id", value))
    assert len(made.request_id) == 32
    assert head((b"x-request-id", b"mine")).request_id == b"mine"


@pytest.mark.parametrize("value", [b"", b"soon", b"-1", b"0", b"nan", b"inf"])
def test_a_deadline_that_is_none_is_ignored(value: bytes):
    """Positive and finite, or not there."""
    assert head((b"x-heron-deadline-seconds", value)).deadline_seconds is None
    assert head((b"x-heron-deadline-seconds", b"2.5")).deadline_seconds == 2.5


def test_a_site_is_told_class_tier_and_token():
    """And the resume, where it is one."""
    shared = shared_head([(b"traceparent", b"00-1-2-01")], FEATURES, b"r")
    written = site_head(
        b"site:80",
        "/v1/completions",
        shared,
        12,
        deadline_seconds_left=1.5,
        authorization=b"Bearer t",
        is_resume=True,
    )
    first, *lines = written.removesuffix(b"\r\n\r\n").split(b"\r\n")
    assert first == b"POST /v1/completions HTTP/1.1"
    assert [tuple(line.split(b": ", 1)) for line in lines] == [
        (b"host", b"site:80"),
        (b"content-type", b"application/json"),
        (b"x-request-id", b"r"),
        (b"x-heron-class", b"SS"),
        (b"x-heron-tier", b"default"),
        (b"x-heron-expected-output-tokens", b"10"),
        (b"traceparent", b"00-1-2-01"),
        (b"x-heron-deadline-seconds", b"1.500"),
        (b"x-heron-resume", b"1"),
        (b"authorization", b"Bearer t"),
        (b"content-length", b"12"),
    ]


def test_nothing_is_told_that_is_not_there():
    """No deadline, no resume, no token."""
    written = site_head(b"h", "/v1/completions?a=b", shared_head([], FEATURES, b"r"), 0)
    assert written.startswith(b"POST /v1/completions?a=b HTTP/1.1\r\nhost: h\r\n")
    assert not any(name in written for name in (b"deadline", b"resume", b"authorization", b"affinity"))
