"""What a site's answer says beside its content: room, pushback, that it gave up."""

from __future__ import annotations

import asyncio
import math
import re
from typing import Any

import orjson

from gateway.upstream import UpstreamError, UpstreamResponse
from router.live.placement import Placement
from router.live.relay import InterruptedRelayError
from router.policy.load import Load
from router.policy.stream_scan import is_abort

MAX_REFUSAL_BYTES = 64 * 1024
"""Of the body of a refusal or error: enough for any message."""
REFUSAL_SECONDS = 2.0
LEAST_RETRY_SECONDS = 0.1
PUSHBACK_REASONS = frozenset({"power", "capacity", "draining"})
_CONSTRAINTS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
_FINISH_REASON = b'"finish_reason"'
_ABORT = re.compile(rb'"finish_reason"\s*:\s*"(?:abort|error)"')


class RefusedError(Exception):
    """A site's answer that is not a continuation."""

    def __init__(self, status: int, pushback: str, retry_after: bytes | None) -> None:
        super().__init__(status)
        self.status = status
        self.pushback = pushback
        self.retry_after = retry_after

    @classmethod
    def from_response(cls, response: UpstreamResponse) -> RefusedError:
        pushback = response.fields.get(b"x-heron-pushback")
        after = response.fields.get(b"x-heron-retry-after-seconds") or response.fields.get(b"retry-after")
        status = 503 if pushback is not None else response.status
        return cls(status, (pushback or b"capacity").decode("latin-1"), after)


def is_gone(failure: BaseException) -> bool:
    """Whether parsers did not answer because their site has lost its power, say: a break as any."""
    is_busy = isinstance(failure, RefusedError) and failure.status >= 500
    return is_busy or isinstance(failure, (UpstreamError, TimeoutError))


def grammar_of(data: bytes) -> bytes | None:
    """`structured_outputs` in an answer of `/v1/chat/completions/render`, as a request has it.

    Empty: there is none. None: it is no such answer.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    sampling = value.get("sampling_params") if isinstance(value, dict) else None
    if not isinstance(sampling, dict):
        return None
    found = sampling.get("structured_outputs")
    if not isinstance(found, dict):
        return b"" if found is None else None
    if all(found.get(name) is None for name in _CONSTRAINTS):
        return b""
    try:
        return orjson.dumps({name: one for name, one in found.items() if one is not None and name[:1] != "_"})
    except orjson.JSONEncodeError:  # nested deeper than can be written
        return None


def note_headroom(response: UpstreamResponse, load: Load) -> None:
    """`x-heron-headroom`: room left at the site after this request."""
    value = response.fields.get(b"x-heron-headroom")
    if value is not None and value.isdigit() and len(value) < 10:
        load.answered(float(value))


def note_pushback(placement: Placement, reason: str, retry_after: bytes | None, now: float) -> None:
    """The site said "not here": never a fault. The snapshot's figure is void at once."""
    if reason not in PUSHBACK_REASONS:
        reason = "capacity"
    entry = placement.entry
    entry.breaker.succeed(placement.probe)
    entry.results["pushback"] += 1
    entry.pushbacks[reason] = entry.pushbacks.get(reason, 0) + 1
    placement.load.pushed_back(reason, _seconds(retry_after), now)


async def read_refusal(response: UpstreamResponse) -> bytes:
    """The body of a refusal or error, so that its connection can be used again; b"" if it does not come."""
    try:
        async with asyncio.timeout(REFUSAL_SECONDS):
            return await response.read(MAX_REFUSAL_BYTES)
    except (UpstreamError, InterruptedRelayError, TimeoutError):
        return b""


def is_aborted(body: bytes, choices: int) -> bool:
    """Whether an answer in one piece is cut short: a stopping vLLM says 200 and `finish_reason` "abort".

    With one choice only the last `finish_reason` is looked at: a search over a long answer costs.
    """
    at = body.rfind(_FINISH_REASON)
    while at >= 0:
        if _ABORT.match(body, at) is not None:
            return _has_aborted_choice(body)
        at = body.rfind(_FINISH_REASON, 0, at) if choices > 1 else -1
    return False


def _has_aborted_choice(body: bytes) -> bool:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    choices = value.get("choices") if isinstance(value, dict) else None
    return isinstance(choices, list) and any(
        isinstance(choice, dict) and is_abort(choice.get("finish_reason")) for choice in choices
    )


def is_message_aborted(body: bytes) -> bool:
    """The same of `/v1/messages`: vLLM gives no stop reason there for a request that it gave up."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(value, dict) and value.get("type") == "message" and value.get("stop_reason") is None


def error_status(error: Any) -> int:
    """The HTTP status that an error event stands for; 500 where it does not say."""
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) == 3:
        code = int(code)
    return code if isinstance(code, int) and 400 <= code < 600 else 500


def _seconds(value: bytes | None) -> float | None:
    """None: it does not say; nor does one that says next to nothing, and would be asked again and again."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= LEAST_RETRY_SECONDS else None
