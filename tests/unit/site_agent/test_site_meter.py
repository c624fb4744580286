"""The number in a meter's answer, and which settings are refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from site_agent.meter_options import MeterOptions
from site_agent.site_meter import MeterError, watts_in


def options(**values: Any) -> MeterOptions:
    return MeterOptions.model_validate({"url": "http://10.0.0.9/x", "path": "a.1.watts"} | values)


@pytest.mark.parametrize(("unit", "watts"), [("W", 2.5), ("kW", 2500.0), ("mW", 0.0025)])
def test_the_path_leads_through_names_and_positions(unit: str, watts: float) -> None:
    """In the unit that is configured."""
    assert watts_in({"a": [0, {"watts": 2.5}]}, options(unit=unit)) == pytest.approx(watts)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "nothing at 'a'"),
        ({"a": [1]}, "nothing at '1'"),
        ({"a": {"1": 5}}, "nothing at 'watts'"),
        ({"a": [0, {"watts": "2.5"}]}, "no number"),
        ({"a": [0, {"watts": True}]}, "no number"),
        ({"a": [0, {"watts": None}]}, "no number"),
        ({"a": [0, {"watts": 0}]}, "cannot be"),
        ({"a": [0, {"watts": -3.0}]}, "cannot be"),
        ({"a": [0, {"watts": float("nan")}]}, "cannot be"),
        ({"a": [0, {"watts": float("inf")}]}, "cannot be"),
        ({"a": [0, {"watts": 10**400}]}, "cannot be"),
    ],
)
def test_what_is_no_draw_is_refused(document: Any, said: str) -> None:
    """0 too: the machine that asks draws power."""
    with pytest.raises(MeterError, match=said):
        watts_in(document, options())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"url": "http://me:secret@10.0.0.9/x"}, "password_file"),
        ({"url": "ftp://10.0.0.9/x"}, "url"),
        ({"username": "heron"}, "go together"),
        ({"password_file": "secret"}, "go together"),
        ({"max_age_seconds": 0.5}, "more than period_seconds"),
        ({"unit": "MW"}, "unit"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(values: dict[str, Any], said: str) -> None:
    """With the key that is wrong."""
    with pytest.raises(ValidationError, match=said):
        options(**values)
