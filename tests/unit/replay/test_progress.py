"""replay.progress: a sliding window of seconds, whose gaps all reach the results."""

from __future__ import annotations

import pytest

from replay.outcome import RequestResult
from replay.progress import RollingWindow
from replay.results import Results


def result(e2e_seconds: float = 1.0) -> RequestResult:
    return RequestResult(
        outcome="completed",
        reason="",
        wanted_prompt_tokens=1,
        wanted_output_tokens=1,
        e2e_seconds=e2e_seconds,
        ttft_seconds=0.1,
    )


def test_rates_and_percentiles_of_the_window() -> None:
    """Over the seconds seen so far, at least one."""
    window = RollingWindow(Results(), 100.0)
    for _ in range(4):
        window.add_sent()
        window.add_result(result())
        window.add_gap(0.02)
    window.roll(101.0)
    window.add_sent()
    progress = window.progress(102.0, in_flight=1)
    assert (progress.elapsed_seconds, progress.in_flight) == (2.0, 1)
    assert (progress.sent_per_second, progress.ended_per_second, progress.tokens_per_second) == (
        2.5,
        2.0,
        2.0,
    )
    assert progress.itl_seconds_p50 == pytest.approx(0.02, rel=0.011)
    assert progress.ttft_seconds_p99 == pytest.approx(0.1, rel=0.011)
    assert progress.e2e_seconds_p50 == pytest.approx(1.0, rel=0.011)


def test_old_seconds_leave_the_window() -> None:
    """What is older than the window is no longer shown; without values there is no percentile."""
    window = RollingWindow(Results(), 0.0)
    window.add_gap(0.02)
    for now in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0):
        window.roll(now)
    progress = window.progress(6.5, in_flight=0)
    assert progress.itl_seconds_p50 is None
    assert progress.tokens_per_second == 0


def test_every_gap_reaches_the_results_once() -> None:
    """Seconds that are over at once, the last one when the run closes."""
    results = Results()
    window = RollingWindow(results, 0.0)
    for now in (0.5, 1.2, 1.9, 2.5, 9.0):
        window.add_gap(0.01)
        window.roll(now)
    window.add_gap(0.01)
    window.close()
    window.close()
    assert results.itl.count == 6


def test_the_results_counts_are_shown() -> None:
    """Sent, unsent, late, corrupted and outcomes are the run's, not the window's."""
    results = Results(sent=9, unsent=2, late_sends=1, corrupted=3)
    results.outcomes["shed"] = 4
    progress = RollingWindow(results, 0.0).progress(0.1, in_flight=5)
    assert (progress.sent, progress.unsent, progress.late_sends, progress.corrupted) == (9, 2, 1, 3)
    assert progress.outcomes["shed"] == 4
    results.outcomes["shed"] = 5
    assert progress.outcomes["shed"] == 4
