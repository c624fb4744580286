"""Which power readings are used."""

from __future__ import annotations

import time

import pytest
from support.stub_feed import reading

from site_agent.reading_judge import IntakeJudge

NOW = time.time()


def judge() -> IntakeJudge:
    return IntakeJudge(site_id="north", max_clock_skew_seconds=30.0)


def test_a_sequence_counts_once_and_only_upwards() -> None:
    """The same one by the other path is no refusal, nor the one before; an older one is."""
    one = judge()
    assert one.take(reading(1, sequence=10).to_json(), now=0.0, unix_now=NOW) is not None
    assert one.take(reading(1, sequence=10).to_json(), now=0.1, unix_now=NOW) is None
    assert one.take(reading(1, sequence=9).to_json(), now=0.2, unix_now=NOW) is None
    assert not one.refused
    assert one.take(reading(1, sequence=6).to_json(), now=0.2, unix_now=NOW) is None
    assert one.take(reading(1, sequence=11).to_json(), now=0.3, unix_now=NOW) is not None
    assert one.refused == {"stale": 1}


def test_a_second_writer_is_refused_until_the_first_is_silent() -> None:
    """A restarted feed is heard after two seconds."""
    one = judge()
    one.take(reading(1, sequence=10).to_json(), now=0.0, unix_now=NOW)
    other = reading(1, sequence=11, feed_id="feed-2").to_json()
    assert one.take(other, now=1.9, unix_now=NOW) is None
    assert one.take(other, now=2.0, unix_now=NOW) is not None
    assert one.take(reading(1, sequence=12).to_json(), now=2.1, unix_now=NOW) is None
    assert one.refused == {"second_writer": 2}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"null", "malformed"),
        (b"\xff", "malformed"),
        (b"x" * 300_000, "too_large"),
        (reading(1, site_id="south").to_json(), "wrong_site"),
        (reading(1, sequence=(1 << 53) - 1).to_json(), "far_sequence"),
        (reading(1).to_json().replace(b'"1.0"', b'"2.0"'), "schema_version"),
    ],
)
def test_what_may_not_be_used_is_refused_and_counted(raw: bytes, reason: str) -> None:
    """By reason; the judge goes on."""
    one = judge()
    assert one.take(raw, now=0.0, unix_now=NOW) is None
    assert one.refused == {reason: 1}
    assert one.take(reading(1).to_json(), now=0.1, unix_now=NOW) is not None


def test_a_foreign_clock_is_measured_and_never_believed() -> None:
    """A reading an hour off is used, and the difference exported."""
    one = judge()
    assert one.take(reading(1, observed_at=NOW + 3600.0).to_json(), now=0.0, unix_now=NOW) is not None
    assert one.clock_skew_seconds == pytest.approx(-3600.0)
    assert not one.refused


def test_a_measurement_of_the_period_before_is_no_skew() -> None:
    """An agent that starts ten minutes into a quarter of an hour; what is older than a period counts."""
    one = judge()
    period = reading(1).period_seconds
    assert one.take(reading(1, observed_at=NOW - 0.7 * period).to_json(), now=0.0, unix_now=NOW) is not None
    assert one.clock_skew_seconds == 0.0
    late = reading(1, observed_at=NOW - period - 40.0)
    assert one.take(late.to_json(), now=1.0, unix_now=NOW) is not None
    assert one.clock_skew_seconds == pytest.approx(40.0)
