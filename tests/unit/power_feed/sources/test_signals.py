"""From a value to watts, and from a curtailment signal to yes or no."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_feed.sources.signals import CurtailmentRule, Scaling, SourceFaultError, number_of


def scaling(**keys: Any) -> Scaling:
    return Scaling(**{"unit": "W", "nameplate_watts": 1000.0, **keys})


@pytest.mark.parametrize(
    ("keys", "raw", "watts"),
    [
        ({"unit": "W"}, 250, 250.0),
        ({"unit": "kW"}, 0.25, 250.0),
        ({"unit": "MW"}, 0.25, 250_000.0),
        ({"unit": "GW"}, 1, 1e9),
        ({"unit": "per_unit"}, 0.25, 250.0),
        ({"unit": "percent"}, 25, 250.0),
        ({"unit": "W", "scale": 0.1, "offset": 5.0}, 100, 15.0),
        ({"unit": "MW", "capacity": 5000.0}, 2000, 400.0),
        ({"unit": "percent", "capacity": 80.0}, 40, 500.0),
        ({"unit": "kW"}, -0.5, -500.0),
    ],
)
def test_units_scale_and_capacity(keys: dict[str, Any], raw: float, watts: float) -> None:
    """(value × scale + offset) in its unit; of a larger capacity the farm's share."""
    assert scaling(**keys).watts(raw) == pytest.approx(watts)


def test_nan_and_infinity_pass() -> None:
    """They are for the quality checks."""
    assert math.isnan(scaling().watts(math.nan))
    assert scaling().watts(10**400) == math.inf
    assert scaling().watts(-(10**400)) == -math.inf


@pytest.mark.parametrize("raw", [True, "1", b"1", [1], {"v": 1}, object()])
def test_what_is_no_number_is_a_wrong_type(raw: object) -> None:
    """A truth value is no power either."""
    with pytest.raises(SourceFaultError, match="not a number") as error:
        number_of(raw)
    assert error.value.kind == "wrong_type"


def test_nothing_is_missing_and_not_zero() -> None:
    """Stale, missing and zero are three things."""
    with pytest.raises(SourceFaultError) as error:
        number_of(None)
    assert error.value.kind == "missing"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_whatever_comes_is_watts_or_a_fault(raw: object) -> None:
    """Nothing else escapes, and messages stay short."""
    fault: SourceFaultError | None = None
    try:
        assert isinstance(scaling().watts(raw), float)
    except SourceFaultError as error:
        fault = error
    assert len(str(fault)) < 300


@pytest.mark.parametrize(
    ("rule", "raw", "is_curtailed"),
    [
        ({}, 1, True),
        ({}, 0, False),
        ({}, True, True),
        ({}, False, False),
        ({"curtailed_if": "zero"}, 0, True),
        ({"curtailed_if": "below", "threshold": 99.5}, 100, False),
        ({"curtailed_if": "below", "threshold": 99.5}, 40, True),
        ({"curtailed_if": "above", "threshold": 0.5}, 0.6, True),
        ({"curtailed_if": "not_empty"}, None, False),
        ({"curtailed_if": "not_empty"}, "", False),
        ({"curtailed_if": "not_empty"}, "''", False),
        ({"curtailed_if": "not_empty"}, "BID-1", True),
        ({"curtailed_if": "not_empty"}, 7, True),
    ],
)
def test_curtailment_rules(rule: dict[str, Any], raw: object, is_curtailed: bool) -> None:
    """Flags, set-points and names."""
    assert CurtailmentRule(**rule).is_curtailed(raw) is is_curtailed


@pytest.mark.parametrize("raw", [None, "yes", math.nan, [1]])
def test_a_signal_that_says_neither_is_a_fault(raw: object) -> None:
    """It then counts as unknown, which is not free."""
    with pytest.raises(SourceFaultError):
        CurtailmentRule().is_curtailed(raw)
