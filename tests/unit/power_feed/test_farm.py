"""When a farm's next reading is due, and its sequence."""

from __future__ import annotations

import pytest

from power_feed.farm import MIN_SPACING_SECONDS, FarmFeed
from power_feed.quality import QualityChecker, QualityLimits
from power_feed.readings import Farm
from power_feed.sources.interface import Source
from power_feed.sources.playback import Playback
from power_feed.sources.schedule import Schedule

START = 1_700_000_000.0


def feed(source: Source) -> FarmFeed:
    return FarmFeed(
        farm=Farm(farm_id="f", site_id="s", nameplate_watts=1000.0),
        source=source,
        checker=QualityChecker(limits=QualityLimits(nameplate_watts=1000.0, period_seconds=1.0)),
        feed_id="feed-1",
    )


def schedule(*points: tuple[float, float], period: float = 1.0) -> Schedule:
    return Schedule(points=points, nameplate_watts=1000.0, start_unix_seconds=START, period_seconds=period)


def test_a_reading_is_due_at_once_then_every_interval() -> None:
    """With a source that changes slowly the interval paces."""
    subject = feed(schedule((0.0, 0.5), period=60.0))
    assert subject.seconds_until_due(now=5.0, unix_seconds=START + 0.5) == 0.0
    subject.read(now=5.0, unix_seconds=START + 0.5)
    assert subject.seconds_until_due(now=5.0, unix_seconds=START + 0.5) == 1.0
    assert subject.seconds_until_due(now=6.25, unix_seconds=START + 1.75) == -0.25


def test_a_change_is_due_at_its_instant() -> None:
    """The fall at 0.7 s does not wait for the interval."""
    subject = feed(schedule((0.0, 0.5), (0.7, 0.1), period=60.0))
    subject.read(now=5.0, unix_seconds=START + 0.5)
    assert subject.seconds_until_due(now=5.0, unix_seconds=START + 0.5) == pytest.approx(0.2, abs=1e-6)
    reading = subject.read(now=5.2, unix_seconds=START + 0.7)
    assert reading is not None
    assert reading.granted_power_watts == 100.0


def test_a_source_that_changes_too_fast_is_sampled() -> None:
    """Never more than fifty readings a second."""
    subject = feed(schedule((0.0, 0.5), (0.001, 0.4), (0.002, 0.3), period=60.0))
    subject.read(now=5.0, unix_seconds=START)
    assert subject.seconds_until_due(now=5.0, unix_seconds=START) == pytest.approx(MIN_SPACING_SECONDS)


def test_a_wall_clock_that_was_set_back_asks_the_source_anew() -> None:
    """Nothing waits for an instant that may be hours away."""
    subject = feed(schedule((0.0, 0.5)))
    subject.read(now=5.0, unix_seconds=START + 100)
    assert subject.seconds_until_due(now=5.1, unix_seconds=START + 50) == 0.0


def test_sequences_start_at_the_clock_and_grow() -> None:
    """Unix milliseconds first, then one more each time."""
    subject = feed(schedule((0.0, 0.5)))
    first = subject.read(now=5.0, unix_seconds=START + 0.25)
    second = subject.read(now=6.0, unix_seconds=START + 1.25)
    assert first is not None
    assert second is not None
    assert first.sequence == 1_700_000_000_250
    assert second.sequence == first.sequence + 1


def test_a_higher_sequence_in_the_store_is_overtaken() -> None:
    """A clock that was set back over a restart does not make readers refuse the feed."""
    subject = feed(schedule((0.0, 0.5)))
    subject.read(now=5.0, unix_seconds=START)
    subject.note_sequence(2_000_000_000_000)
    subject.note_sequence(5)
    reading = subject.read(now=6.0, unix_seconds=START + 1)
    assert reading is not None
    assert reading.sequence == 2_000_000_000_001


def test_nothing_is_said_before_anything_was_measured() -> None:
    """No reading at all, rather than one of 0 W."""
    empty = Playback(
        description="gap",
        ratio=lambda _step: None,
        steps=10,
        record_period_seconds=60.0,
        nameplate_watts=1000.0,
        start_unix_seconds=START,
    )
    subject = feed(empty)
    assert subject.read(now=5.0, unix_seconds=START) is None
    assert subject.reading is None


def test_the_power_log_takes_one_a_minute() -> None:
    """The first at once, the next after sixty seconds."""
    subject = feed(schedule((0.0, 0.5)))
    assert [subject.is_log_due(now) for now in (5.0, 6.0, 64.9, 65.0, 66.0)] == [
        True,
        False,
        False,
        True,
        False,
    ]


def test_a_known_start_takes_effect_at_once() -> None:
    """The new source is read without waiting for the interval."""
    subject = feed(schedule((0.0, 0.5)))
    subject.read(now=5.0, unix_seconds=START)
    subject.restart(schedule((0.0, 0.3)))
    assert subject.seconds_until_due(now=5.0, unix_seconds=START) == 0.0
