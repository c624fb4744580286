"""What clients ask for, counted and told."""

from __future__ import annotations

import pytest

from fleet.request import RequestFeatures
from router.live.demand_meter import (
    MAX_KEYS,
    DemandMeter,
    DemandWindow,
    add_json,
    from_record,
    to_json,
    to_record,
)
from router.policy.planner.check import CLASSES


def features(model: str = "m", prompt_tokens: int = 100, output_tokens: int = 20) -> RequestFeatures:
    """A small request."""
    return RequestFeatures(model, "SS", prompt_tokens, output_tokens, True)


def test_rates_are_those_of_the_last_minute() -> None:
    """Sixty requests in a minute, then none."""
    meter, window = DemandMeter(), DemandWindow()
    window.take(meter.totals, 0.0)
    assert window.loads() == {}
    for number in range(60):
        meter.came(features(prompt_tokens=100 + number % 2 * 100))
    window.take(meter.totals, 30.0)
    load = window.loads()["m", "SS"]
    assert (load.requests_per_second, load.prompt_tokens, load.output_tokens) == (2.0, 150.0, 20.0)
    window.take(meter.totals, 60.0)
    assert window.loads()["m", "SS"].requests_per_second == 1.0
    window.take(meter.totals, 90.0)
    assert window.loads()["m", "SS"].requests_per_second == 0.0


def test_the_totals_of_workers_add_up() -> None:
    """As they say them over their socket."""
    one, other = DemandMeter(), DemandMeter()
    one.came(features())
    other.came(features(prompt_tokens=300))
    totals = {key: list(entry) for key, entry in one.totals.items()}
    add_json(totals, to_json(other.totals))
    assert totals == {("m", "SS"): [2.0, 400.0, 40.0]}


def test_a_total_that_shrinks_begins_anew() -> None:
    """A worker died before it said all that it had counted."""
    window = DemandWindow()
    window.take({("m", "SS"): [100.0, 1.0, 1.0]}, 0.0)
    window.take({("m", "SS"): [20.0, 200.0, 40.0]}, 10.0)
    assert window.loads()["m", "SS"].requests_per_second == 2.0


def test_a_clock_that_goes_back_forgets_what_was() -> None:
    """No rate over a time that did not pass."""
    window = DemandWindow()
    window.take({("m", "SS"): [1.0, 1.0, 1.0]}, 100.0)
    window.take({("m", "SS"): [2.0, 1.0, 1.0]}, 50.0)
    assert window.loads() == {}
    window.take({("m", "SS"): [3.0, 1.0, 1.0]}, 50.0)
    assert window.loads() == {}


def test_models_are_bounded() -> None:
    """Sites may name any number of them."""
    meter = DemandMeter()
    for number in range(MAX_KEYS + 5):
        meter.came(features(model=f"m{number}"))
    assert len(meter.totals) == MAX_KEYS


def test_the_record_carries_what_was_measured_and_classes_are_checked() -> None:
    """A foreign router's class that is none is left out."""
    meter, window = DemandMeter(), DemandWindow()
    window.take(meter.totals, 0.0)
    meter.came(features())
    window.take(meter.totals, 10.0)
    table = to_record(window.loads())
    back = from_record(table | {"n": {"XX": table["m"]["SS"]}}, CLASSES)
    assert set(back) == {("m", "SS")}
    assert back["m", "SS"].requests_per_second == pytest.approx(0.1)
