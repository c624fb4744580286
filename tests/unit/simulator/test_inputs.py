"""From a cell to its blocks: common random numbers, and classes as live ones are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.policy.planner.problem import CLASSES
from simulator.cell import Cell, Sample
from simulator.inputs import CUTOFFS, blocks_of, class_indexes, read_inputs, scene
from simulator.world import Scene

CELL = Cell(
    wind="synthetic-far",
    first_day=1,
    last_day=2,
    trace="synthetic-conv",
    load=0.3,
    sample=Sample.parse("1d:3m:1m"),
    policy="heron",
    trips_per_day=3000.0,
)


def no_file(name: str) -> Path:
    raise FileNotFoundError(name)


def block(**changes: Any) -> Scene:
    """The second one of the cell with these changes."""
    inputs = read_inputs(CELL.with_(**changes), no_file)
    return scene(inputs, *blocks_of(inputs.cell)[1])


def drawn(one: Scene) -> list[bytes]:
    """Wind and requests."""
    arrivals = one.arrivals
    return [
        *(one.watts[name].tobytes() for name in sorted(one.watts)),
        arrivals.at_seconds.tobytes(),
        arrivals.prompt_tokens.tobytes(),
        arrivals.output_tokens.tobytes(),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"policy": "round_robin"},
        {"policy": "planned"},
        {"control": "gpu_idling", "server_switch": False},
        {"resume": False, "router_slo": False},
        {"forecast_error_ratio": 0.4, "length_error_ratio": 1.0},
        {"report_delay_seconds": 30.0, "report_loss_ratio": 0.5},
    ],
)
def test_all_policies_of_a_seed_meet_the_same_wind_and_requests(changes: dict[str, Any]) -> None:
    """Whatever decides, and whatever it is told: to the bit."""
    assert drawn(block(**changes)) == drawn(block())


def test_another_seed_is_another_draw() -> None:
    """Of the wind where there is any, and of the requests."""
    first, other = block(), block(seed=2)
    blows = [name for name, watts in first.watts.items() if watts.any()]
    assert len(blows) >= 3
    assert not any(np.array_equal(first.watts[name], other.watts[name]) for name in blows)
    assert all(one != another for one, another in zip(drawn(first)[-3:], drawn(other)[-3:], strict=True))


def test_trips_are_in_the_wind() -> None:
    """The same turbulence, with falls in it."""
    calm, tripped = block(trips_per_day=0.0), block()
    for name, watts in calm.watts.items():
        assert np.all(tripped.watts[name] <= watts)
    assert any(np.any(tripped.watts[name] < watts) for name, watts in calm.watts.items())


@given(st.integers(1, 9000), st.integers(1, 2000))
def test_classes_are_the_live_ones(prompt: int, output: int) -> None:
    """Many at once or one at a time."""
    found = class_indexes(np.array([prompt]), np.array([output]))[0]
    assert CLASSES[found] == CUTOFFS.classify(prompt, output)
