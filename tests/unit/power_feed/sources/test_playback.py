"""Playing a record against the wall clock."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_feed.sources.playback import Playback

START = 1_700_000_000.0
RECORD = (0.1, 0.2, None, 0.4)


def playback(
    *,
    start: float | None = START,
    speed: float = 1.0,
    offset: float = 0.0,
    repeat: bool = False,
    record: tuple[float | None, ...] = RECORD,
) -> Playback:
    return Playback(
        description="record",
        ratio=lambda step: record[step],
        steps=len(record),
        record_period_seconds=900.0,
        nameplate_watts=1000.0,
        start_unix_seconds=start,
        speed=speed,
        offset_seconds=offset,
        repeat=repeat,
    )


def test_a_step_holds_until_the_next() -> None:
    """Within a step value and observation time stay; at the next they change together."""
    source = playback()
    assert source.measurement(START).watts == 100.0
    assert source.measurement(START + 899.9) == source.measurement(START)
    later = source.measurement(START + 900)
    assert (later.watts, later.observed_at_unix_seconds) == (200.0, START + 900)


def test_speed_divides_period_and_steps() -> None:
    """At speed 60 a quarter of an hour is 15 wall seconds."""
    source = playback(speed=60.0)
    assert source.period_seconds == 15.0
    assert source.measurement(START + 15).watts == 200.0
    assert source.next_change_after(START + 15) == START + 30


def test_a_gap_of_the_record_is_no_measurement() -> None:
    """The step's own time, without a value."""
    gap = playback().measurement(START + 1800)
    assert gap.watts is None
    assert gap.observed_at_unix_seconds == START + 1800


def test_after_the_end_there_is_nothing() -> None:
    """The last change is the end; after it no value and no change ever."""
    source = playback()
    assert source.measurement(START + 3599).watts == 400.0
    assert source.next_change_after(START + 3599) == START + 3600
    end = source.measurement(START + 3600)
    assert (end.watts, end.observed_at_unix_seconds) == (None, START + 3600)
    assert source.measurement(START + 1e6) == end
    assert source.next_change_after(START + 3600) is None


def test_a_record_may_repeat() -> None:
    """After the last step comes the first, with a new observation time."""
    source = playback(repeat=True)
    again = source.measurement(START + 3600)
    assert (again.watts, again.observed_at_unix_seconds) == (100.0, START + 3600)
    assert source.next_change_after(START + 3600) == START + 4500


def test_an_offset_begins_inside_the_record() -> None:
    """Offset in the record's time; a step under way keeps its own beginning."""
    source = playback(offset=1000.0, speed=10.0)
    first = source.measurement(START)
    assert (first.watts, first.observed_at_unix_seconds) == (200.0, START - 10.0)
    assert source.next_change_after(START) == START + 80.0


def test_before_its_start_a_record_stands_at_its_first_step() -> None:
    """Measured anew each period, so that nothing walks down before the wind begins to move."""
    source = playback(offset=900.0)
    early = source.measurement(START - 2000)
    assert early.watts == 200.0
    assert early.is_held
    assert not source.measurement(START).is_held
    assert START - 2900 < early.observed_at_unix_seconds <= START - 2000
    assert source.measurement(START - 1000).observed_at_unix_seconds > early.observed_at_unix_seconds


def test_without_a_known_start_a_record_stands_still() -> None:
    """Always the first step, always measured within the last period, for ever."""
    source = playback(start=None)
    for at in (START, START + 1e7):
        found = source.measurement(at)
        assert found.watts == 100.0
        assert at - 900 < found.observed_at_unix_seconds <= at
        change = source.next_change_after(at)
        assert change is not None
        assert at < change <= at + 900


@given(
    at=st.floats(min_value=START - 1e5, max_value=START + 1e5),
    speed=st.floats(min_value=1e-3, max_value=45_000.0),
    offset=st.floats(min_value=0, max_value=3599),
)
@settings(max_examples=300, deadline=None)
def test_a_change_is_later_and_seen_at_its_very_instant(at: float, speed: float, offset: float) -> None:
    """Sleeping until the next change and measuring then always finds a newer measurement."""
    source = playback(speed=speed, offset=offset, repeat=True)
    change = source.next_change_after(at)
    assert change is not None
    assert change > at
    before, after = source.measurement(at), source.measurement(change)
    assert before.observed_at_unix_seconds <= at
    assert before.observed_at_unix_seconds < after.observed_at_unix_seconds <= change


@pytest.mark.parametrize("at", [START - 1, START, START + 1e6])
def test_the_same_instant_gives_the_same_answer(at: float) -> None:
    """No state: asking twice, in any order, changes nothing."""
    source = playback()
    first = source.measurement(at)
    source.measurement(START + 5000)
    assert source.measurement(at) == first
