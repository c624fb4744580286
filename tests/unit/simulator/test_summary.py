"""What blocks add up to: each class by its own SLO, refused requests at infinity, power by the second."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from support.scenes import scene

from fleet.capacity import Slo
from fleet.request import RequestFeatures
from simulator.record import Record, SiteRecord
from simulator.request import Outcome, SimRequest
from simulator.summary import Summary
from simulator.workload import Arrivals
from simulator.world import Block

SLOS = {"SS": Slo(ttft_seconds=1.0, e2e_seconds=5.0), "LL": Slo(ttft_seconds=10.0, e2e_seconds=50.0)}
NEVER = math.inf
Row = tuple[float, int, int, Outcome, float, float]
"""Arrival, prompt tokens, output tokens, outcome, TTFT, E2E."""
ROWS: tuple[Row, ...] = (
    (10.0, 100, 10, Outcome.SERVED, 0.5, 4.0),  # before the counted part
    (60.0, 100, 10, Outcome.SERVED, 0.5, 4.0),  # good
    (70.0, 512, 64, Outcome.SERVED, 2.0, 4.0),  # first token late for SS
    (80.0, 5000, 500, Outcome.SERVED, 2.0, 40.0),  # good for LL
    (130.0, 100, 10, Outcome.SERVED, 0.5, 6.0),  # end late
    (140.0, 100, 10, Outcome.SHED, NEVER, NEVER),
    (150.0, 100, 10, Outcome.BROKEN, 0.5, NEVER),
    (179.0, 1000, 100, Outcome.SERVED, 99.0, 999.0),  # a class without an SLO: served is good
    (180.0, 100, 10, Outcome.SERVED, 0.5, 4.0),  # after it
)
"""Of a block whose counted part is the second and third minute."""


def block_of(rows: tuple[Row, ...]) -> Block:
    """As a world would hand it over."""
    arrivals = Arrivals(
        at_seconds=np.array([row[0] for row in rows]),
        prompt_tokens=np.array([row[1] for row in rows]),
        output_tokens=np.array([row[2] for row in rows]),
    )
    record = Record(len(rows))
    for index, (at, prompt, output, outcome, ttft, e2e) in enumerate(rows):
        record.open(index, at)
        request = SimRequest(
            index=index,
            arrived_at=at,
            prompt_tokens=prompt,
            output_tokens=output,
            features=RequestFeatures("m", "SS", prompt, output, True),
            hold_until=at,
        )
        request.outcome = outcome
        request.first_token_at = None if math.isinf(ttft) else at + ttft
        request.produced_tokens = output if outcome is Outcome.SERVED else 0
        record.close(request, at + e2e)
    one = scene(seconds=180, warm_up_seconds=60, winds=((0.5,),), arrivals=arrivals)
    site = SiteRecord(181)
    site.available_watts[:] = 1000.0
    site.draw_watts[:] = np.where(np.arange(181) < 120, 400.0, 2000.0)
    site.joules[:] = np.concatenate(([0.0], np.cumsum(site.draw_watts[:-1])))
    site.exceeded_seconds[:] = np.maximum(0.0, np.arange(181) - 150.0)
    return Block(
        scene=one,
        record=record,
        sites={"s0": site},
        exceeded_seconds={"s0": 30.0},
        below_idle_seconds={"s0": 0.0},
        commands=Counter(SetClock=1),
        pushbacks=Counter(),
        joules={"s0": 0.0},
        events=7,
        decisions=3,
    )


def summed(*, short: tuple[bool, ...] = (False, False, True)) -> dict[str, dict[str, float]]:
    summary = Summary(SLOS)  # type: ignore[arg-type]
    summary.take(block_of(ROWS), np.array(short))
    return summary.as_dict()


def test_each_request_is_judged_by_its_class_and_only_counted_ones_count() -> None:
    """A time that is late for a short request is in time for a long one."""
    whole = summed()["all"]
    assert whole["offered"] == 7
    assert whole["good"] == 3
    assert (whole["good_by_block"], whole["offered_by_block"]) == ([3], [7])
    assert whole["slo_attainment_ratio"] == pytest.approx(3 / 7)
    assert (whole["served"], whole["shed"], whole["broken"], whole["in_flight"]) == (5, 1, 1, 0)
    assert whole["offered_requests_per_second"] == pytest.approx(7 / 120)


def test_power_short_minutes_have_their_own_requests_and_watts() -> None:
    """The third minute only: its four requests, its joules, its seconds above the cap."""
    found = summed()
    short = found["power_short"]
    assert (short["offered"], short["good"], short["seconds"]) == (4, 1, 60.0)
    assert short["kilowatt_hours"] == pytest.approx(60 * 2000 / 3.6e6)
    assert short["joules_per_output_token"] == pytest.approx(60 * 2000 / 110)
    assert short["cap_exceeded_seconds"] == 30.0
    assert short["wind_used_kilowatt_hours"] == pytest.approx(60 * 1000 / 3.6e6)
    assert short["wind_curtailed_kilowatt_hours"] == 0.0
    assert found["kilowatt_hours"] == pytest.approx((60 * 400 + 60 * 2000) / 3.6e6)
    assert found["wind_curtailed_kilowatt_hours"] == pytest.approx(60 * 600 / 3.6e6)


def test_minutes_short_throughout_are_the_whole_and_none_are_nothing() -> None:
    """Shares of nothing are None, never 0."""
    every = summed(short=(True, True, True))
    for name in ("offered", "good", "shed", "seconds"):
        assert every["power_short"][name] == every["all"][name]
    assert every["power_short"]["kilowatt_hours"] == pytest.approx(every["kilowatt_hours"])
    none = summed(short=(False, False, False))["power_short"]
    assert (none["offered"], none["seconds"], none["kilowatt_hours"]) == (0, 0.0, 0.0)
    assert none["slo_attainment_ratio"] is None
    assert none["joules_per_output_token"] is None


def test_refused_and_broken_requests_are_infinite() -> None:
    """Two of seven never ended: the median is finite, the 90th percentile is not."""
    times = summed()["all"]["e2e_seconds"]
    assert times["p50"] == 40.0  # type: ignore[index]
    assert times["p90"] is None  # type: ignore[index]
