"""replay.outcome: each way to end has one name."""

from __future__ import annotations

import pytest

from replay.answer import AnswerReader, StatedError
from replay.outcome import outcome_of_status, outcome_of_stream

TOKEN = b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":null}]}\n\n'
FINISH = b'data: {"choices":[{"delta":{},"finish_reason":"%b"}]}\n\n'
ERROR = b'data: {"error":{"message":"m","code":"%b"}}\n\n'
DONE = b"data: [DONE]\n\n"


def answer(*events: bytes) -> AnswerReader:
    reader = AnswerReader()
    reader.feed(b"".join(events), 1.0)
    return reader


@pytest.mark.parametrize(
    ("status", "outcome"), [(429, "shed"), (503, "shed"), (400, "failed"), (404, "failed"), (500, "failed")]
)
def test_error_statuses(status: int, outcome: str) -> None:
    """429 and 503 are shed, every other error answer failed; the reason has status and code."""
    error = StatedError(code="why", message="", is_first=True)
    assert outcome_of_status(status, error) == (outcome, f"HTTP {status} why")


@pytest.mark.parametrize(
    ("events", "ending", "outcome", "reason"),
    [
        ((TOKEN, FINISH % b"stop", DONE), None, "completed", ""),
        ((TOKEN, FINISH % b"length", DONE), "connection: closed", "completed", ""),
        ((TOKEN, ERROR % b"power_lost", DONE), None, "broken", "stream error power_lost"),
        ((TOKEN, ERROR % b"500"), "connection: closed", "broken", "stream error 500"),
        ((ERROR % b"stream_lost", DONE), None, "broken", "stream error stream_lost"),
        ((ERROR % b"503", DONE), None, "shed", "first event is error 503"),
        ((ERROR % b"no_power", DONE), None, "shed", "first event is error no_power"),
        ((ERROR % b"invalid", DONE), None, "failed", "first event is error invalid"),
        ((TOKEN,), "connection: closed", "lost", "connection: closed"),
        ((TOKEN, FINISH % b"abort", DONE), None, "lost", "finish_reason abort"),
        ((TOKEN, DONE), None, "lost", "ended without finish_reason"),
        ((TOKEN, FINISH % b"stop"), None, "lost", "ended without [DONE]"),
        ((), None, "lost", "ended without finish_reason"),
    ],
)
def test_streams(events: tuple[bytes, ...], ending: str | None, outcome: str, reason: str) -> None:
    """A whole answer counts however its connection ended; a stated error is never lost; silence is."""
    assert outcome_of_stream(answer(*events), ending) == (outcome, reason)
