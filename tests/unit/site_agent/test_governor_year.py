"""The benchmark on real wind, a quarter of an hour of it on made-up wind, so that it keeps running."""

from __future__ import annotations

import itertools
import random

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
    assert 0.3 < result.energy_ratio <= 1.02


def test_a_third_of_the_trips_fall_twice() -> None:
    """Within nine seconds: what an episode is not restarted by."""
    found = trips(86_400 * 30, 10.0, random.Random(1))
    doubles = sum(first[1] == second[0] for first, second in itertools.pairwise(found))
    assert 0.2 < doubles / (len(found) - doubles) < 0.5
