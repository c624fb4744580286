"""replay.schedule: due times come from the trace alone, and every change to a request is counted."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from replay.schedule import ScheduleCounts, ScheduledRequest, ScheduleRule, schedule
from replay.trace import TraceRequest


def trace(*rows: tuple[float, int, int]) -> list[TraceRequest]:
    return [TraceRequest(at_seconds=at, prompt_tokens=p, output_tokens=o) for at, p, o in rows]


def scheduled(requests: list[TraceRequest], **rule: Any) -> tuple[list[ScheduledRequest], ScheduleCounts]:
    counts = ScheduleCounts()
    return list(schedule(requests, ScheduleRule(**rule), Random(1), counts)), counts


def test_speed_divides_the_times() -> None:
    """At speed 60 a minute of the trace is a second."""
    found, counts = scheduled(trace((0, 5, 2), (60, 6, 3), (90, 7, 4)), speed=60)
    assert [(r.index, r.due_seconds, r.prompt_tokens, r.output_tokens) for r in found] == [
        (0, 0.0, 5, 2),
        (1, 1.0, 6, 3),
        (2, 1.5, 7, 4),
    ]
    assert (counts.scheduled, counts.prompt_tokens, counts.output_tokens) == (3, 18, 9)
    assert all(r.cancel_after_seconds is None for r in found)


def test_start_and_duration_cut_the_trace() -> None:
    """Wall seconds bound the run; the trace is not read beyond it."""
    rows = ((0, 1, 1), (10, 2, 1), (14, 3, 1), (20, 4, 1))
    found, counts = scheduled(trace(*rows), start_seconds=10, max_seconds=5)
    assert [(r.due_seconds, r.prompt_tokens) for r in found] == [(0.0, 2), (4.0, 3)]
    assert counts.seconds == 5
    assert scheduled(trace(*rows), max_seconds=60)[1].seconds == 20


def test_thinning_keeps_a_share_and_counts_the_rest() -> None:
    """Each request is drawn by itself; indices stay without gaps."""
    found, counts = scheduled(trace(*((float(i), 1, 1) for i in range(10_000))), keep_ratio=0.25)
    assert len(found) == pytest.approx(2_500, rel=0.1)
    assert counts.thinned + counts.scheduled == 10_000
    assert [r.index for r in found] == list(range(len(found)))


def test_sizes_fit_the_engine() -> None:
    """The prompt gives way first, then the output; what was cut is counted."""
    found, counts = scheduled(
        trace((0, 100, 20), (1, 95, 20), (2, 10, 500), (3, 80, 20)), max_total_tokens=100
    )
    assert [(r.prompt_tokens, r.output_tokens) for r in found] == [(80, 20), (80, 20), (1, 99), (80, 20)]
    assert counts.shortened == 3


def test_separate_limits() -> None:
    """Prompt and output each to its own limit."""
    found, counts = scheduled(trace((0, 100, 20)), max_prompt_tokens=64, max_output_tokens=8)
    assert (found[0].prompt_tokens, found[0].output_tokens) == (64, 8)
    assert counts.shortened == 1


def test_empty_sizes_become_one_token() -> None:
    """No API takes an empty prompt or max_tokens 0."""
    found, counts = scheduled(trace((0, 0, 0), (1, 5, 5)))
    assert (found[0].prompt_tokens, found[0].output_tokens) == (1, 1)
    assert (counts.raised, counts.shortened) == (1, 0)


def test_cancels_are_part_of_the_schedule() -> None:
    """A share of the clients leaves at a time drawn from 0 to the bound."""
    found, _ = scheduled(
        trace(*((float(i), 1, 1) for i in range(2_000))), cancel_ratio=0.3, cancel_within_seconds=0.5
    )
    leaving = [r.cancel_after_seconds for r in found if r.cancel_after_seconds is not None]
    assert len(leaving) == pytest.approx(600, rel=0.15)
    assert 0 <= min(leaving) < 0.1
    assert 0.4 < max(leaving) <= 0.5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("speed", 0),
        ("speed", float("inf")),
        ("start_seconds", -1),
        ("max_seconds", 0),
        ("keep_ratio", 0),
        ("keep_ratio", 1.5),
        ("cancel_ratio", -0.1),
        ("cancel_within_seconds", 0),
        ("max_prompt_tokens", 0),
        ("max_total_tokens", 1),
    ],
)
def test_rules_that_cannot_be_are_refused(name: str, value: float) -> None:
    """The message names the number and what is allowed."""
    with pytest.raises(ValueError, match=f"{name} = .*: must be"):
        ScheduleRule(**{name: value})
