"""The checks of DESIGN §8, each flaw injected."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_feed.quality import QualityChecker, QualityLimits, Verdict
from power_feed.sources.interface import Measurement


def checker(**keys: float) -> QualityChecker:
    limits = {"nameplate_watts": 1000.0, "period_seconds": 1.0, **keys}
    return QualityChecker(limits=QualityLimits(**limits))  # type: ignore[arg-type]


def judge(subject: QualityChecker, *values: float | None, start: float = 100.0) -> list[Verdict | None]:
    """One measurement a second, each judged as it is made."""
    return [
        subject.judge(Measurement(observed_at_unix_seconds=start + second, watts=value), start + second)
        for second, value in enumerate(values)
    ]


def marks(verdicts: list[Verdict | None]) -> list[tuple[str, ...] | None]:
    return [
        None if verdict is None else (verdict.quality, f"{verdict.watts:g}", *verdict.failed)
        for verdict in verdicts
    ]


def test_plausible_measurements_are_good() -> None:
    """Slow changes up and down pass as they are."""
    assert marks(judge(checker(), 500.0, 550.0, 480.0, 0.0 + 400)) == [
        ("good", "500"),
        ("good", "550"),
        ("good", "480"),
        ("good", "400"),
    ]


def test_before_anything_was_measured_nothing_is_known() -> None:
    """Neither 0 W nor full power is invented."""
    assert judge(checker(), None, math.nan) == [None, None]


def test_nothing_usable_repeats_the_last_good_value() -> None:
    """Missing and NaN are fallback, with the value and time of the last good measurement."""
    verdicts = judge(checker(), 500.0, None, math.nan, math.inf, 510.0)
    assert marks(verdicts) == [
        ("good", "500"),
        ("fallback", "500", "missing"),
        ("fallback", "500", "not_a_number"),
        ("fallback", "500", "not_a_number"),
        ("good", "510"),
    ]
    assert verdicts[2] is not None
    assert verdicts[2].observed_at_unix_seconds == 100.0


def test_a_fallback_repeats_no_suspect_value() -> None:
    """A suspicious rise followed by silence leaves the last good value."""
    assert marks(judge(checker(), 100.0, 900.0, None))[-1] == ("fallback", "100", "missing")


def test_a_measurement_that_is_not_renewed_goes_stale() -> None:
    """After three periods the same measurement is a fallback; a new one is good again."""
    subject = checker(period_seconds=10.0)
    old = Measurement(observed_at_unix_seconds=100.0, watts=500.0)
    assert marks([subject.judge(old, 100.0), subject.judge(old, 130.0), subject.judge(old, 130.1)]) == [
        ("good", "500"),
        ("good", "500"),
        ("fallback", "500", "stale"),
    ]
    new = Measurement(observed_at_unix_seconds=131.0, watts=500.0)
    assert marks([subject.judge(new, 131.0)]) == [("good", "500")]


def test_showing_a_measurement_twice_does_not_count_it_twice() -> None:
    """A reading a second of a 15-minute value is neither stuck nor a confirmation."""
    subject = checker(period_seconds=900.0)
    low = Measurement(observed_at_unix_seconds=0.0, watts=100.0)
    subject.judge(low, 0.0)
    high = Measurement(observed_at_unix_seconds=1.0, watts=900.0)
    shown = [subject.judge(high, 1.0 + second) for second in range(100)]
    assert {verdict.failed for verdict in shown if verdict} == {("ramp",)}


def test_negative_power_is_a_fall_to_nothing() -> None:
    """A record cannot hold it; the site may draw nothing meanwhile."""
    assert marks(judge(checker(), 50.0, -20.0, 10.0)) == [
        ("good", "50"),
        ("suspect", "0", "negative"),
        ("good", "10"),
    ]


def test_more_than_the_nameplate_stays_suspect() -> None:
    """Agreement does not make the impossible possible; a little above rated is a meter's noise."""
    assert marks(judge(checker(), 1000.0, 1019.0, 1200.0, 1200.0, 1200.0, 1200.0, 1000.0)) == [
        ("good", "1000"),
        ("good", "1019"),
        ("suspect", "1200", "above_nameplate", "ramp"),
        ("suspect", "1200", "above_nameplate"),
        ("suspect", "1200", "above_nameplate"),
        ("suspect", "1200", "above_nameplate"),
        ("good", "1000"),
    ]


def test_a_value_that_never_moves_is_stuck() -> None:
    """From the twelfth equal measurement on; the first that moves is good."""
    verdicts = marks(judge(checker(), *([500.0] * 13), 501.0))
    assert verdicts[10] == ("good", "500")
    assert verdicts[11] == ("suspect", "500", "stuck")
    assert verdicts[12] == ("suspect", "500", "stuck")
    assert verdicts[13] == ("good", "501")


@pytest.mark.parametrize("value", [0.0, 4.0, 985.0, 1000.0])
def test_standing_at_zero_or_rated_is_not_stuck(value: float) -> None:
    """A calm or a storm may last."""
    assert {mark[0] for mark in marks(judge(checker(), *([value] * 50))) if mark} == {"good"}


def test_the_stuck_check_can_be_switched_off() -> None:
    """A scripted source stands still by design."""
    verdicts = judge(checker(stuck_measurements=0), *([500.0] * 50))
    assert {verdict.quality for verdict in verdicts if verdict} == {"good"}


def test_a_value_that_is_held_on_purpose_is_not_stuck() -> None:
    """A script, or a replay that waits for its start, says so itself."""
    subject = checker()
    verdicts = [
        subject.judge(Measurement(observed_at_unix_seconds=at, watts=500.0, is_held=True), at)
        for at in map(float, range(50))
    ]
    assert {verdict.quality for verdict in verdicts if verdict} == {"good"}


def test_a_suspicious_fall_is_obeyed_at_once() -> None:
    """Marked for one measurement, with its low value; the next that agrees is good."""
    assert marks(judge(checker(), 900.0, 100.0, 100.0)) == [
        ("good", "900"),
        ("suspect", "100", "ramp"),
        ("good", "100"),
    ]


def test_a_suspicious_rise_waits_for_two_that_agree() -> None:
    """Suspect, suspect, then good: two further measurements."""
    assert marks(judge(checker(), 100.0, 900.0, 905.0, 890.0, 900.0)) == [
        ("good", "100"),
        ("suspect", "900", "ramp"),
        ("suspect", "905", "ramp"),
        ("good", "890"),
        ("good", "900"),
    ]


def test_a_rise_that_is_not_confirmed_starts_anew() -> None:
    """A measurement that disagrees begins its own count."""
    assert [mark[0] for mark in marks(judge(checker(), 100.0, 900.0, 700.0, 710.0, 705.0)) if mark] == [
        "good",
        "suspect",
        "suspect",
        "suspect",
        "good",
    ]


def test_a_spike_passes_without_a_trace() -> None:
    """One wild value between two plausible ones leaves them good."""
    assert marks(judge(checker(), 100.0, 900.0, 110.0)) == [
        ("good", "100"),
        ("suspect", "900", "ramp"),
        ("good", "110"),
    ]


def test_coming_back_from_a_false_fall_is_a_suspicious_rise() -> None:
    """The fall was obeyed, so the way back needs its confirmations."""
    assert [mark[0] for mark in marks(judge(checker(), 900.0, 0.0, 900.0, 900.0, 900.0)) if mark] == [
        "good",
        "suspect",
        "suspect",
        "suspect",
        "good",
    ]


def test_slow_records_may_do_anything_in_a_step() -> None:
    """In five minutes a farm can go from nothing to rated, and the measured sets do."""
    subject = checker(period_seconds=5.0, speed=60.0)
    verdicts = [
        subject.judge(Measurement(observed_at_unix_seconds=at, watts=watts), at)
        for at, watts in ((0.0, 10.0), (5.0, 980.0), (10.0, 10.0))
    ]
    assert [verdict.quality for verdict in verdicts if verdict] == ["good", "good", "good"]


def test_noise_between_quick_measurements_is_no_ramp() -> None:
    """Ten a second that differ by a few per cent are good; what a second does not allow is not."""
    subject = checker()
    verdicts = [
        subject.judge(Measurement(observed_at_unix_seconds=at, watts=watts), at)
        for at, watts in ((0.0, 500.0), (0.1, 550.0), (0.2, 480.0), (0.3, 800.0))
    ]
    assert [verdict.quality for verdict in verdicts if verdict] == ["good", "good", "good", "suspect"]


def test_a_clock_that_is_set_back_does_not_freeze_the_checks() -> None:
    """Measurements from before the step count as new ones."""
    subject = checker()
    judge(subject, 500.0, 510.0, start=10_000.0)
    assert marks(judge(subject, 505.0, 506.0, start=100.0)) == [("good", "505"), ("good", "506")]


def test_a_clock_that_is_set_back_makes_no_second_measurement_of_the_one_that_is_known() -> None:
    """Shown each second until the next, it neither confirms its own suspicious rise nor gets stuck."""
    subject = checker(period_seconds=5.0)
    subject.judge(Measurement(observed_at_unix_seconds=1000.0, watts=50.0), 1000.0)
    spike = Measurement(observed_at_unix_seconds=1005.0, watts=950.0)
    verdicts = [subject.judge(spike, at) for at in (1005.0, *range(1000, 1003), *range(400, 420))]
    assert set(marks(verdicts)) == {("suspect", "950", "ramp")}
    next_one = Measurement(observed_at_unix_seconds=405.0, watts=60.0)
    assert marks([subject.judge(next_one, 405.0)]) == [("good", "60")]


VALUES = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.floats(0, 1000))


@given(st.lists(VALUES, max_size=40))
@settings(max_examples=300, deadline=None)
def test_good_readings_never_jump_up_unconfirmed(values: list[float | None]) -> None:
    """A good value is measured, within nameplate, and a jump up to it was agreed on by two before it."""
    subject = checker()
    verdicts = judge(subject, *values)
    for index, verdict in enumerate(verdicts):
        if verdict is None:
            continue
        assert verdict.watts >= 0
        assert math.isfinite(verdict.watts)
        assert (verdict.quality == "good") == (not verdict.failed)
        if verdict.quality == "good":
            assert verdict.watts == values[index]
            assert verdict.watts <= 1020.0
    goods = [
        (index, verdict.watts)
        for index, verdict in enumerate(verdicts)
        if verdict is not None and verdict.quality == "good"
    ]
    for (before, low), (after, high) in pairwise(goods):
        if high - low > 100.0 * (after - before) + 1e-6:
            assert after - before >= 3


@pytest.mark.parametrize("watts", [4.3e12, -4.3e12, 1e300])
def test_no_farm_has_so_much(watts: float) -> None:
    """A register that is "not implemented", scaled: no record can hold it, and it is nothing to believe."""
    assert marks(judge(checker(), watts)) == [None]
    assert marks(judge(checker(), 500.0, watts, 510.0))[1] == ("fallback", "500", "not_a_number")
