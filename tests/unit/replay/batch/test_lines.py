"""Lines of the input: requests, or what is wrong with them."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api_paths import PUBLIC_PATHS
from replay.batch import lines
from replay.batch.lines import BATCH_PATHS, BadLineError, numbered_lines, read_line

LINE: dict[str, Any] = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "m", "messages": []},
}


def raw(**changes: Any) -> bytes:
    """A line; a change to None takes the key away."""
    return json.dumps({name: value for name, value in (LINE | changes).items() if value is not None}).encode()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "not JSON: "),
        (b'"text"', "not a JSON object with custom_id, method, url and body"),
        (b"\xff", "not JSON: "),
        (raw(custom_id=None), "custom_id is missing: it must be a text of 1 to 512 characters"),
        (raw(custom_id=7), "custom_id is 7: it must be a text"),
        (raw(custom_id=""), "custom_id is '': it must be a text"),
        (raw(custom_id="x" * 513), "…: it must be a text of 1 to 512 characters"),
        (raw(method="GET"), "method is 'GET': it must be \"POST\""),
        (raw(url="/v1/nothing"), "url is '/v1/nothing': it must be a path that a router serves with JSON"),
        (raw(url=["/v1/completions"]), "it must be a path that a router serves with JSON"),
        (raw(url="/v1/audio/speech"), "audio and files cannot be in a line"),
        (raw(url="/v1/audio/transcriptions"), "audio and files cannot be in a line"),
        (raw(body=[1]), "body is [1]: it must be an object"),
        (raw(body={}), "body.model is missing: it must be the name of a model"),
        (raw(body={"model": 1}), "body.model is 1: it must be the name of a model"),
        (raw(body={"model": "m", "stream": True}), "body.stream must be false or left out"),
        (raw(body={"model": "m", "background": True}), "body.background must be false or left out"),
    ],
)
def test_what_is_wrong_is_said(line: bytes, said: str) -> None:
    """The key, its value, and what it must be."""
    with pytest.raises(BadLineError) as error:
        read_line(line)
    assert said in str(error.value)


@pytest.mark.parametrize("stream", [{}, {"stream": False}, {"stream": None}])
def test_a_request_is_read(stream: dict[str, Any]) -> None:
    """With the keys that OpenAI's format has."""
    request = read_line(raw(body={"model": "m", **stream}, extra=1))
    assert (request.custom_id, request.url, request.body) == ("a", LINE["url"], {"model": "m", **stream})


def test_every_path_with_json_both_ways_may_be_asked() -> None:
    """What a router serves, but audio."""
    assert set(PUBLIC_PATHS) - BATCH_PATHS == {
        "/v1/audio/speech",
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
    }


def test_a_line_s_own_tier_stays() -> None:
    """The others get the one that was chosen."""
    own = read_line(raw(body={"model": "m", "service_tier": "priority"}))
    none = read_line(raw(body={"model": "m", "service_tier": None}))
    assert own.names_tier
    assert not none.names_tier
    assert json.loads(own.payload("flex"))["service_tier"] == "priority"
    assert json.loads(none.payload("flex")) == {"model": "m", "service_tier": "flex"}
    assert none.body["service_tier"] is None


@given(st.binary())
def test_any_bytes_are_a_request_or_a_bad_line(data: bytes) -> None:
    """Nothing else is raised."""
    for _, line in numbered_lines(io.BytesIO(data)):
        with suppress(BadLineError):
            assert read_line(line).url in BATCH_PATHS


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(LINE, _JSON)) | _JSON)
def test_any_json_is_a_request_or_a_bad_line(value: Any) -> None:
    """Whatever stands under the right keys."""
    line = json.dumps(LINE | value if isinstance(value, dict) else value).encode()
    try:
        request = read_line(line)
    except BadLineError:
        return
    assert json.loads(request.payload("flex"))["model"] == request.body["model"]


def test_blank_lines_are_counted_and_no_requests() -> None:
    """So that numbers are those of an editor; Windows' mark at the beginning is no part of the first line."""
    stream = io.BytesIO(b"\xef\xbb\xbf{}\r\n\n  \n[]")
    assert list(numbered_lines(stream)) == [(1, b"{}\r\n"), (4, b"[]")]


def test_a_line_that_is_too_long_is_read_past(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one bad line, and the next has its own number."""
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 8)
    stream = io.BytesIO(b"123456789012345678901234567890\n12345678\nend")
    found = list(numbered_lines(stream))
    assert [number for number, _ in found] == [1, 2, 3]
    assert [len(line) > 8 for _, line in found] == [True, True, False]
