"""How one request ended, told apart as issue and router's ledger tell it. Pure.

completed          the whole answer arrived
shed               429 or 503, also as the first event of a stream that had no text yet
client_cancelled   this client left, as its schedule said
broken             the answer had begun and ended with a stated error (`power_lost`, `stream_lost`, …)
failed             any other error answer, or no connection
lost               no answer and no stated error: connection cut, time-out, silent truncation
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from replay.answer import NOT_FINISHED_REASONS, AnswerReader, StatedError

Outcome = Literal["completed", "shed", "client_cancelled", "broken", "failed", "lost"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

SHED_STATUS = frozenset({429, 503})
_SHED_CODES = frozenset({"429", "503", "no_capacity", "no_power", "no_site"})
_BROKEN_CODES = frozenset({"power_lost", "stream_lost"})
"""Said only of accepted work, so they mean `broken` also where no text had been sent yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestResult:
    """One request from sending to its end. Instants are relative to sending."""

    outcome: Outcome
    reason: str
    """Why it did not complete: short and of few kinds, it is counted. Empty when completed."""
    wanted_prompt_tokens: int
    wanted_output_tokens: int
    e2e_seconds: float
    ttft_seconds: float | None = None
    status: int | None = None
    prompt_tokens: int | None = None
    """As the server counted them; None where it did not say."""
    output_tokens: int | None = None
    token_events: int = 0
    site_id: str | None = None
    """From `x-heron-site`."""
    retries: int = 0
    """How often this client sent it again."""
    corruption: str | None = None
    """What was wrong with the tokens that arrived; None when nothing was, or nothing was checked."""


def outcome_of_status(status: int, error: StatedError) -> tuple[Outcome, str]:
    """An answer with an error status."""
    outcome: Outcome = "shed" if status in SHED_STATUS else "failed"
    return outcome, f"HTTP {status} {error.code}".rstrip()


def outcome_of_stream(answer: AnswerReader, ending: str | None) -> tuple[Outcome, str]:
    """A stream that is over. `ending` says what cut it short, None when the body ended properly.

    Cases in order: whole answer (however the connection ended after it); stated error; nothing stated.
    """
    if answer.is_complete:
        return "completed", ""
    if answer.error is not None:
        code = answer.error.code
        if code in _BROKEN_CODES or not answer.error.is_first:
            return "broken", f"stream error {code}".rstrip()
        outcome: Outcome = "shed" if code in _SHED_CODES else "failed"
        return outcome, f"first event is error {code}".rstrip()
    if ending is not None:
        return "lost", ending
    if answer.finish_reason in NOT_FINISHED_REASONS:
        return "lost", f"finish_reason {answer.finish_reason}"
    return "lost", "ended without finish_reason" if answer.finish_reason is None else "ended without [DONE]"
