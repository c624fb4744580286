"""The benchmark on real wind, a quarter of an hour of it on made-up wind, so that it keeps running."""

from __future__ import annotations

import itertools
import random

import pytest

from benchmarks.governor.foresight import foresight_joules
from benchmarks.governor.year import nameplate_watts, reference_model, run_day, trips
from simulator.wind import Turbulence
from site_agent.situation import GovernorRule

SAMPLES = [0.9, 0.7, 0.8, 0.3, 0.6]


def test_a_stretch_of_wind_with_trips_is_kept_and_most_of_it_used() -> None:
    """No second beyond the ride-through; energy against a bound that needs no time to start."""
    model = reference_model()
    result = run_day(
        model,
        SAMPLES,
        period_seconds=300.0,
        start_seconds=0.0,
        seconds=1200,
        nameplate=nameplate_watts(model, SAMPLES, 40.0),
        rule=GovernorRule(start_seconds=60.0),
        trips_per_day=300.0,
        turbulence=Turbulence(),
        seed="1",
    )
    assert result.trips > 0
    assert result.exceeded_seconds == 0
    assert result.below_idle_seconds <= 0.2 * result.trips
    assert 0.8 < result.energy_ratio <= 1.0
    assert result.ideal_ratio < result.energy_ratio


def test_foresight_waits_for_what_it_must_wait_for() -> None:
    """Full power from the first second: a start is idle draw; power lost for longer than is bridged costs a
    boot and a start anew, for less it costs itself."""
    model = reference_model()
    lags = {"guard_ratio": 0.0, "start_seconds": 60.0, "boot_seconds": 120.0, "ride_through_seconds": 5.0}
    full, idle = model.full_watts, model.modelled_watts([0, 0], model.full_clock_mhz)
    caps = [2 * full] * 1000
    ideal, lagging = foresight_joules(model, caps, **lags)
    assert ideal == pytest.approx(1000 * full)
    assert lagging == pytest.approx(60 * idle + 940 * full)
    short, long = ([*caps[:500], *[0.0] * dark, *caps[500 + dark :]] for dark in (5, 6))
    assert foresight_joules(model, short, **lags)[1] == pytest.approx(lagging - 5 * full)
    assert foresight_joules(model, long, **lags)[1] == pytest.approx(2 * 60 * idle + (440 + 314) * full)


def test_a_third_of_the_trips_fall_twice() -> None:
    """Within nine seconds: what an episode is not restarted by."""
    found = trips(86_400 * 30, 10.0, random.Random(1))
    doubles = sum(first[1] == second[0] for first, second in itertools.pairwise(found))
    assert 0.2 < doubles / (len(found) - doubles) < 0.5
