"""When each request is sent: an open loop, by the clock and never by the answers before it. Pure.

The trace's own times, divided by the speed; sizes cut to what the engine takes; and the requests, a stated
share, that their client will cancel. Whatever is changed or left out is counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random

from replay.trace import TraceRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledRequest:
    """One request to send."""

    index: int
    """Counts up from 0 over what is sent; the prompt is made from it."""
    due_seconds: float
    """After the start of the run."""
    prompt_tokens: int
    output_tokens: int
    cancel_after_seconds: float | None = None
    """The client leaves so long after sending, if it has no answer by then; None: it stays."""


@dataclass(slots=True, kw_only=True)
class ScheduleCounts:
    """What became of the trace's requests on their way into the schedule."""

    seconds: float = 0.0
    """The sending window: to `max_seconds`, or to the last request where the trace ends before."""
    scheduled: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    thinned: int = 0
    """Left out by `keep_ratio`."""
    shortened: int = 0
    """Sizes above the engine's limits, cut down to them."""
    raised: int = 0
    """Sizes of 0 tokens, which no API takes, made 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRule:
    """How a trace becomes a schedule."""

    speed: float = 1.0
    """Trace seconds per wall second."""
    start_seconds: float = 0.0
    """Trace time to begin at; what is earlier is passed over and not counted."""
    max_seconds: float | None = None
    """Wall seconds; later requests are not sent. None: to the end of the trace."""
    keep_ratio: float = 1.0
    """Share of the requests that is kept, each drawn by itself."""
    max_prompt_tokens: int | None = None
    max_output_tokens: int | None = None
    max_total_tokens: int | None = None
    """Prompt and output together (`max_model_len`); the prompt gives way, then the output."""
    cancel_ratio: float = 0.0
    """Share of the requests whose client leaves early."""
    cancel_within_seconds: float = 2.0
    """Such a client leaves at a time drawn evenly from 0 to this, after sending."""

    def __post_init__(self) -> None:
        """Raise ValueError naming the number that cannot be used."""
        _require(math.isfinite(self.speed) and self.speed > 0, "speed", self.speed, "above 0")
        _require(self.start_seconds >= 0, "start_seconds", self.start_seconds, "0 or more")
        if self.max_seconds is not None:
            _require(self.max_seconds > 0, "max_seconds", self.max_seconds, "above 0")
        _require(0 < self.keep_ratio <= 1, "keep_ratio", self.keep_ratio, "above 0 and at most 1")
        _require(0 <= self.cancel_ratio <= 1, "cancel_ratio", self.cancel_ratio, "from 0 to 1")
        _require(
            self.cancel_within_seconds > 0, "cancel_within_seconds", self.cancel_within_seconds, "above 0"
        )
        for name, least in (("max_prompt_tokens", 1), ("max_output_tokens", 1), ("max_total_tokens", 2)):
            value = getattr(self, name)
            if value is not None:
                _require(value >= least, name, value, f"{least} or more")


def _require(is_allowed: bool, name: str, value: float, allowed: str) -> None:
    if not is_allowed:
        raise ValueError(f"{name} = {value}: must be {allowed}")


def schedule(
    requests: Iterable[TraceRequest], rule: ScheduleRule, rng: Random, counts: ScheduleCounts
) -> Iterator[ScheduledRequest]:
    """The requests in order of due time, one pulled from `requests` at a time; `counts` grows as it goes."""
    for request in requests:
        if request.at_seconds < rule.start_seconds:
            continue
        due = (request.at_seconds - rule.start_seconds) / rule.speed
        if rule.max_seconds is not None and due >= rule.max_seconds:
            counts.seconds = rule.max_seconds
            return
        counts.seconds = due
        if rule.keep_ratio < 1 and rng.random() >= rule.keep_ratio:
            counts.thinned += 1
            continue
        prompt_tokens, output_tokens = _fit(request, rule, counts)
        cancel_after = None
        if rule.cancel_ratio > 0 and rng.random() < rule.cancel_ratio:
            cancel_after = rng.random() * rule.cancel_within_seconds
        scheduled = ScheduledRequest(
            index=counts.scheduled,
            due_seconds=due,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            cancel_after_seconds=cancel_after,
        )
        counts.scheduled += 1
        counts.prompt_tokens += prompt_tokens
        counts.output_tokens += output_tokens
        yield scheduled


def _fit(request: TraceRequest, rule: ScheduleRule, counts: ScheduleCounts) -> tuple[int, int]:
    prompt, output = max(1, request.prompt_tokens), max(1, request.output_tokens)
    if (prompt, output) != (request.prompt_tokens, request.output_tokens):
        counts.raised += 1
    wanted = (prompt, output)
    if rule.max_prompt_tokens is not None:
        prompt = min(prompt, rule.max_prompt_tokens)
    if rule.max_output_tokens is not None:
        output = min(output, rule.max_output_tokens)
    if rule.max_total_tokens is not None and prompt + output > rule.max_total_tokens:
        output = min(output, rule.max_total_tokens - 1)
        prompt = min(prompt, rule.max_total_tokens - output)
    if (prompt, output) != wanted:
        counts.shortened += 1
    return prompt, output
