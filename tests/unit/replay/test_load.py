"""replay.load: a trace or the generator under one schedule, and the name that says which."""

from __future__ import annotations

from pathlib import Path

import pytest

from replay.load import open_load
from replay.schedule import ScheduleRule
from replay.synthetic import SyntheticSpec
from replay.trace import TraceError

TRACE = (
    b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.5,10,2\nbroken\n"
    b"2023-11-16 18:17:05.5,20,3\n"
)


def test_a_trace(tmp_path: Path) -> None:
    """Scheduled rows, counts and the report of the file."""
    file = tmp_path / "trace with space.csv"
    file.write_bytes(TRACE)
    with open_load(file, ScheduleRule(speed=2), seed=1) as load:
        rows = list(load.requests)
    assert [(r.due_seconds, r.prompt_tokens) for r in rows] == [(0.0, 10), (1.0, 20)]
    assert load.description == "trace with space.csv"
    assert load.report is not None
    assert load.report.broken_rows == 1
    assert load.counts.output_tokens == 5


def test_a_synthetic_load() -> None:
    """Ends at its duration, repeats with its seed, and says that it is synthetic."""
    rule = ScheduleRule(max_seconds=10)
    spec = SyntheticSpec(requests_per_second=20)
    with open_load(spec, rule, seed=5) as first, open_load(spec, rule, seed=5) as second:
        rows = list(first.requests)
        assert rows == list(second.requests)
    assert 100 < len(rows) < 400
    assert first.description.startswith("synthetic trace")
    assert "seed 5" in first.description
    assert first.report is None


def test_thinning_does_not_change_the_requests() -> None:
    """Cancels and thinning draw from a source of their own."""
    spec = SyntheticSpec(requests_per_second=20)
    with open_load(spec, ScheduleRule(max_seconds=10), seed=5) as plain:
        times = [row.due_seconds for row in plain.requests]
    with open_load(spec, ScheduleRule(max_seconds=10, cancel_ratio=0.5), seed=5) as cancelling:
        assert [row.due_seconds for row in cancelling.requests] == times


def test_a_synthetic_load_without_an_end_is_refused() -> None:
    """It would never be over."""
    with pytest.raises(ValueError, match="max_seconds"), open_load(SyntheticSpec(), ScheduleRule(), seed=1):
        pass


def test_another_kind_of_file_is_refused_at_once(tmp_path: Path) -> None:
    """Before anything is started for it."""
    file = tmp_path / "wind.csv"
    file.write_bytes(b"Day,Time,Area1\n")
    with pytest.raises(TraceError, match="wind"), open_load(file, ScheduleRule(), seed=1):
        pass
