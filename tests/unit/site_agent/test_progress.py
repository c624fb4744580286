"""An engine that has work and makes no token hangs; one without work, or that does not say, does not."""

from __future__ import annotations

from site_agent.engine_metrics import EngineMetrics
from site_agent.progress import Progress


def page(running: int | None, prompt: float | None = 10.0, output: float | None = 0.0) -> EngineMetrics:
    return EngineMetrics(running_requests=running, prompt_tokens=prompt, output_tokens=output)


def test_time_counts_from_the_last_token_while_something_runs() -> None:
    """A token, of a prompt or of an answer, begins it anew."""
    progress = Progress()
    progress.observe(page(1), 0.0)
    progress.observe(page(1), 5.0)
    progress.observe(page(1), 7.0)
    assert progress.stalled_seconds == 7.0
    progress.observe(page(2, output=1.0), 8.0)
    progress.observe(page(2, output=1.0), 9.0)
    assert progress.stalled_seconds == 1.0
    progress.observe(page(2, prompt=20.0, output=1.0), 10.0)
    assert progress.stalled_seconds == 0.0


def test_pages_that_do_not_come_say_nothing() -> None:
    """A busy engine's pages are late; it is the health probes that find out who is silent."""
    progress = Progress()
    progress.observe(page(1), 0.0)
    progress.observe(page(1), 1.0)
    assert progress.stalled_seconds == 1.0  # at any time after
    progress.observe(page(1, output=50.0), 500.0)
    assert progress.stalled_seconds == 0.0


def test_an_engine_that_never_takes_a_request_hangs_too() -> None:
    """Its gauge says that nothing runs; our own request there has waited all the while."""
    progress = Progress()
    for now in range(10):
        progress.observe(page(0), float(now), unanswered=1)
    assert progress.stalled_seconds == 9.0
    progress.observe(page(0), 10.0)
    assert progress.stalled_seconds == 0.0


def test_an_idle_engine_and_an_unknown_one_never_hang() -> None:
    """Old pages do not count once it was idle."""
    progress = Progress()
    for quiet in (page(0), page(None), page(1, prompt=None), page(1, output=None)):
        progress.observe(page(1), 0.0)
        progress.observe(quiet, 1.0)
        progress.observe(quiet, 1000.0)
        assert progress.stalled_seconds == 0.0
    progress.observe(page(1), 2000.0)
    progress.observe(page(1), 2003.0)
    assert progress.stalled_seconds == 3.0
