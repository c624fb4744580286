"""The newest measurement, and what may become it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_feed.sources.latest import MAX_AHEAD_SECONDS, Latest
from power_feed.sources.signals import SourceFaultError


def test_before_the_first_nothing_is_measured() -> None:
    """Neither zero nor anything else."""
    latest = Latest()
    assert latest.measurement().watts is None
    assert latest.changed_after(0.0) is None


def test_a_measurement_without_a_time_is_of_now() -> None:
    """Each one is a new one, the same value too."""
    latest = Latest()
    assert latest.put(5.0, observed_at=None, now=100.0)
    assert latest.put(5.0, observed_at=None, now=101.0)
    assert latest.measurement().observed_at_unix_seconds == 101.0
    assert latest.changed_after(100.5) == 101.0
    assert latest.changed_after(101.0) is None


def test_what_is_not_newer_is_dropped() -> None:
    """Messages overtake each other, documents are read twice."""
    latest = Latest()
    assert latest.put(5.0, observed_at=90.0, now=100.0)
    assert not latest.put(6.0, observed_at=90.0, now=101.0)
    assert not latest.put(6.0, observed_at=80.0, now=102.0)
    assert latest.measurement().watts == 5.0


def test_one_sample_heard_twice_is_one_measurement() -> None:
    """Else a suspicious rise would confirm itself; another value, or the same one a period later, counts."""
    latest = Latest(period_seconds=1.0)
    assert latest.put(5.0, observed_at=None, now=100.0)
    assert not latest.put(5.0, observed_at=None, now=100.4)
    assert latest.put(4.0, observed_at=None, now=100.4)
    assert latest.put(4.0, observed_at=None, now=101.3)
    latest.put_unusable(now=101.4)
    assert latest.put(4.0, observed_at=None, now=101.5)
    assert latest.measurement().watts == 4.0


def test_one_document_asked_for_again_is_one_measurement_however_fast_its_clock() -> None:
    """Ahead of ours it is of the moment it came first; else each answer would confirm a suspicious rise."""
    latest = Latest(period_seconds=5.0)
    assert [latest.put(9.0, observed_at=104.0, now=100.0 + second) for second in range(6)] == [True] + 5 * [
        False
    ]
    assert latest.measurement().observed_at_unix_seconds == 100.0
    assert latest.put(9.0, observed_at=109.0, now=105.0)


def test_one_garbled_answer_hides_a_slow_source_only_until_the_next_good_one() -> None:
    """Though that is the same document; another value under its time is not believed."""
    latest = Latest(period_seconds=900.0)
    latest.put(5.0, observed_at=90.0, now=100.0)
    latest.put_unusable(now=160.0)
    assert not latest.put(7.0, observed_at=90.0, now=190.0)
    assert latest.measurement().watts is None
    assert latest.put(5.0, observed_at=90.0, now=220.0)
    assert latest.measurement().watts == 5.0
    assert latest.changed_after(200.0) == 220.0
    assert not latest.put(5.0, observed_at=90.0, now=280.0)


def test_the_future_is_refused_and_a_little_of_it_is_now() -> None:
    """A clock some seconds ahead is common; an hour ahead is a wrong zone."""
    latest = Latest()
    with pytest.raises(SourceFaultError, match="in the future"):
        latest.put(5.0, observed_at=100.0 + MAX_AHEAD_SECONDS + 1, now=100.0)
    assert latest.put(5.0, observed_at=100.0 + MAX_AHEAD_SECONDS, now=100.0)
    assert latest.measurement().observed_at_unix_seconds == 100.0


def test_a_clock_of_ours_that_is_set_back_does_not_lock_the_door() -> None:
    """The next measurement counts although it seems older."""
    latest = Latest()
    latest.put(5.0, observed_at=None, now=5000.0)
    assert latest.put(6.0, observed_at=None, now=1000.0)
    assert latest.measurement().watts == 6.0


def test_what_is_no_measurement_hides_the_newest_until_the_next() -> None:
    """And does not make that next one look old."""
    latest = Latest()
    latest.put(5.0, observed_at=97.0, now=100.0)
    latest.put_unusable(now=101.0)
    assert latest.measurement().watts is None
    assert latest.changed_after(100.0) == 101.0
    assert latest.put(6.0, observed_at=98.0, now=101.5)
    assert latest.measurement().watts == 6.0


def test_production_counts_only_when_the_farm_is_known_to_be_free() -> None:
    """Unknown hides it as curtailed does; the word of the signal is a change."""
    latest = Latest(measures="produced", needs_curtailment=True)
    latest.put(5.0, observed_at=None, now=100.0)
    assert latest.measurement().watts is None
    assert latest.signal(False, now=101.0)
    assert latest.measurement().watts == 5.0
    assert not latest.signal(False, now=102.0)
    assert latest.signal(True, now=103.0)
    assert latest.measurement().watts is None
    assert latest.changed_after(102.0) == 103.0


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 10)), min_size=1))
def test_observation_times_never_go_back_while_the_clock_goes_on(steps: list[tuple[float, float]]) -> None:
    """Whatever times come, in whatever order."""
    latest = Latest()
    now, before = 1e6, 0.0
    for observed_at, passed in steps:
        now += passed
        latest.put(1.0, observed_at=observed_at, now=now)
        assert latest.measurement().observed_at_unix_seconds >= before
        before = latest.measurement().observed_at_unix_seconds


def test_a_time_before_1970_is_a_clock_that_there_is_not() -> None:
    """An OPC UA server without one says 1601."""
    latest = Latest()
    with pytest.raises(SourceFaultError, match="no clock"):
        latest.put(5.0, observed_at=-11_644_473_600.0, now=100.0)
    assert latest.measurement().watts is None
