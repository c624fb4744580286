"""The demo's figures of pushbacks and recovery, from what it polled."""

from __future__ import annotations

import pytest

from cli.demo_samples import FleetSample, GoodSample, pushback_values, recovery_values


def fleet(at: float, requests: int = 0, pushbacks: int = 0, *, has_room: bool = True) -> FleetSample:
    """One poll of the router."""
    return FleetSample(at_seconds=at, requests=requests, pushbacks=pushbacks, has_room=has_room)


def test_the_steady_ratio_leaves_out_the_start_and_the_fall() -> None:
    """Of 100 requests between 3 s and the fall at 10 s, one was pushed back."""
    samples = [fleet(0), fleet(3, 40, 20), fleet(10, 140, 21), fleet(11, 150, 99)]
    values = pushback_values(samples, fall_at=10.0)
    assert values["steady_ratio"] == 0.01
    assert values["total"] == 99
    assert pushback_values(samples, None)["steady_ratio"] == pytest.approx(79 / 110)


def test_the_worst_second_after_a_fall_is_found() -> None:
    """Wherever in the seconds after it; a longer gap between polls is not a second."""
    samples = [fleet(10.0, 400, 0), fleet(10.5, 420, 0), fleet(11.0, 440, 10), fleet(11.5, 460, 22)]
    samples += [fleet(14.0, 560, 22), fleet(20.0, 800, 900)]
    values = pushback_values(samples, fall_at=10.0)
    assert values["worst_second_after_fall_ratio"] == pytest.approx(22 / 40)


def test_nothing_seen_is_nothing_said() -> None:
    """Not zero."""
    assert pushback_values([], 10.0) == {
        "total": None,
        "steady_ratio": None,
        "worst_second_after_fall_ratio": None,
    }


def good(*rates: float) -> list[GoodSample]:
    """So many good requests in each second."""
    samples, total = [GoodSample(at_seconds=0.0, good=0)], 0.0
    for second, rate in enumerate(rates, start=1):
        total += rate
        samples.append(GoodSample(at_seconds=float(second), good=round(total)))
    return samples


def test_recovery_is_counted_from_the_first_room_to_full_goodput() -> None:
    """Dark from 11 to 20; goodput is full again in the three seconds that end at 25."""
    rooms = [fleet(float(at), has_room=not 11 <= at < 20) for at in range(30)]
    rates = [40.0] * 11 + [0.0] * 9 + [10.0, 20.0] + [40.0] * 8
    values = recovery_values(rooms, good(*rates), fall_at=10.0)
    assert values == {"dark_seconds": 9.0, "goodput_before_requests_per_second": 40.0, "seconds": 5.0}


def test_a_run_that_ends_before_goodput_is_back_says_so() -> None:
    """None, not the length of the run."""
    rooms = [fleet(float(at), has_room=not 11 <= at < 20) for at in range(30)]
    values = recovery_values(rooms, good(*[40.0] * 11, *[0.0] * 18), fall_at=10.0)
    assert values is not None
    assert values["seconds"] is None


def test_without_darkness_there_is_no_recovery() -> None:
    """A site always had room, or no fall was planned."""
    rooms = [fleet(float(at)) for at in range(30)]
    assert recovery_values(rooms, good(*[40.0] * 29), fall_at=10.0) is None
    assert recovery_values(rooms, good(*[40.0] * 29), fall_at=None) is None
