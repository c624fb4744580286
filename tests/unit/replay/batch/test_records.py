"""Lines of the output, as they are written and as they are read again."""

from __future__ import annotations

import json
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from replay.batch.records import (
    NotARecordError,
    answered,
    expired,
    failed,
    is_torn,
    read_record,
    stated_message,
)

RNG = Random(1)


def test_an_answer_is_in_openai_s_shape() -> None:
    """As its documentation has it, and the body as its client's type takes it."""
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "logprobs": None,
                "message": {"role": "assistant", "content": "two\nlines", "refusal": None},
            }
        ],
    }
    outcome = answered("a", 200, "req-1", json.dumps(body, indent=2).encode(), RNG)
    assert outcome.is_good
    assert outcome.line.count(b"\n") == 1
    assert outcome.line.endswith(b"\n")
    line = json.loads(outcome.line)
    assert list(line) == ["id", "custom_id", "response", "error"]
    assert line["id"].startswith("batch_req_")
    assert (line["custom_id"], line["error"]) == ("a", None)
    assert line["response"] == {"status_code": 200, "request_id": "req-1", "body": body}
    assert ChatCompletion.model_validate(line["response"]["body"], strict=True).choices[0].message.content


def test_what_has_expired_is_said_in_openai_s_words() -> None:
    """The example of its documentation."""
    line = json.loads(expired("a", RNG).line)
    assert line["response"] is None
    assert line["error"] == {
        "code": "batch_expired",
        "message": "This request could not be executed before the completion window expired.",
    }


@pytest.mark.parametrize(
    ("status", "is_final"), [(200, True), (400, True), (404, True), (429, False), (408, False), (500, False)]
)
def test_what_may_change_is_not_final(status: int, is_final: bool) -> None:
    """A later run asks again."""
    outcome = answered("a", status, "", b'{"error": {"message": "m"}}', RNG)
    assert outcome.is_good is (status == 200)
    record = read_record(outcome.line)
    assert (record.custom_id, record.is_final) == ("a", is_final)


def test_what_has_no_answer_is_not_final() -> None:
    """Expired, or broken."""
    assert not read_record(expired("a", RNG).line).is_final
    assert not read_record(failed("a", "connection_error", "closed", RNG).line).is_final


def test_an_error_that_is_no_json_is_kept_as_text() -> None:
    """A proxy's page, cut to a bearable length."""
    line = json.loads(answered("a", 502, "", b"<html>\n\xff" + b"x" * 9000, RNG).line)
    assert line["response"]["status_code"] == 502
    assert line["response"]["body"]["error"]["message"].startswith("<html>\n")
    assert len(line["response"]["body"]["error"]["message"]) == 2000


@pytest.mark.parametrize("body", [b"", b"sound", b"[1]", b"\xff"])
def test_a_good_status_without_an_object_is_no_answer(body: bytes) -> None:
    """It would break whoever reads the file."""
    outcome = answered("a", 200, "", body, RNG)
    assert not outcome.is_good
    assert json.loads(outcome.line)["error"]["code"] == "answer_not_json"


@given(st.binary(), st.integers(200, 599), st.text(st.characters(exclude_categories=["Cs"])))
def test_whatever_comes_back_is_one_line(body: bytes, status: int, custom_id: str) -> None:
    """That is read again as what it was."""
    line = answered(custom_id, status, "é", body, RNG).line
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert read_record(line).custom_id == custom_id


@given(st.binary())
def test_any_bytes_are_a_record_or_none(data: bytes) -> None:
    """Nothing else is raised."""
    with suppress(NotARecordError):
        assert isinstance(read_record(data).custom_id, str)
    assert isinstance(stated_message(data), str)


@pytest.mark.parametrize(
    "value", [{}, [], {"custom_id": "a"}, {"custom_id": 1, "id": "", "response": None, "error": None}]
)
def test_another_file_s_line_is_no_record(value: Any) -> None:
    """A request's, above all: the input given as the output."""
    with pytest.raises(NotARecordError):
        read_record(json.dumps(value).encode())


def test_every_cut_of_a_line_is_a_torn_one() -> None:
    """And the end of another file is not."""
    line = answered("a", 200, "", b"{}", RNG).line
    assert all(is_torn(line[:end]) for end in range(len(line)))
    assert not is_torn(b'{"custom_id": "a"')
    assert not is_torn(b"text")
