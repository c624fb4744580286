"""From what a protocol hands over to watts, and from a curtailment signal to yes, no or unknown. Pure.

Rule: units are said in the configuration, never guessed; what is no number becomes None and a fault, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from power_feed.sources.interface import FaultKind

Unit = Literal["W", "kW", "MW", "GW", "per_unit", "percent"]
WATTS_PER_UNIT: Mapping[Unit, float] = {"W": 1.0, "kW": 1e3, "MW": 1e6, "GW": 1e9}
RATIO_PER_UNIT: Mapping[Unit, float] = {"per_unit": 1.0, "percent": 0.01}

CurtailedIf = Literal["not_zero", "zero", "not_empty", "below", "above"]
"""When a signal says "curtailed": a flag (`not_zero`, `zero`), a name that is there (`not_empty`), or a
set-point (`below`, `above` a threshold)."""

MAX_SHOWN_CHARACTERS = 80


class SourceFaultError(Exception):
    """Something went wrong with a source; the message says what, where and what to do."""

    def __init__(self, kind: FaultKind, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.kind: FaultKind = kind
        self.retry_after_seconds = retry_after_seconds
        """The other side asked not to be tried again sooner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """watts = (value × scale + offset), in `unit`; of a larger capacity only the farm's part."""

    unit: Unit
    nameplate_watts: float
    """The farm's: what ratios are multiplied by."""
    scale: float = 1.0
    offset: float = 0.0
    capacity: float | None = None
    """In `unit`: what the signal is of, when that is not the farm itself (a region, a country)."""

    def watts(self, raw: object) -> float:
        """Raises SourceFaultError (`wrong_type`): `raw` is no number. NaN stays NaN."""
        value = number_of(raw) * self.scale + self.offset
        if self.capacity is not None:
            return value / self.capacity * self.nameplate_watts
        if self.unit in RATIO_PER_UNIT:
            return value * RATIO_PER_UNIT[self.unit] * self.nameplate_watts
        return value * WATTS_PER_UNIT[self.unit]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurtailmentRule:
    """Reads a curtailment signal."""

    curtailed_if: CurtailedIf = "not_zero"
    threshold: float | None = None
    """For `below` and `above`."""

    def is_curtailed(self, raw: object) -> bool:
        """Raises SourceFaultError (`wrong_type`): the signal says neither yes nor no."""
        if self.curtailed_if == "not_empty":
            return raw is not None and str(raw).strip().strip("'\"") != ""
        value = float(raw) if isinstance(raw, bool) else number_of(raw)
        if math.isnan(value):
            raise SourceFaultError("wrong_type", "the curtailment signal is NaN: it counts as unknown")
        if self.curtailed_if == "not_zero":
            return value != 0
        if self.curtailed_if == "zero":
            return value == 0
        threshold = self.threshold or 0.0
        return value < threshold if self.curtailed_if == "below" else value > threshold


def number_of(raw: object) -> float:
    """A number as a float.

    Raises:
        SourceFaultError: it is none (`missing` for nothing at all, else `wrong_type`).
    """
    if raw is None:
        raise SourceFaultError(
            "missing", "nothing is there: check the address, node or path in the configuration"
        )
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        hint = "; to_number(…) in the path reads text" if isinstance(raw, str) else ""
        raise SourceFaultError("wrong_type", f"{shown(raw)} is {_type_name(raw)}, not a number{hint}")
    try:
        return float(raw)
    except OverflowError:
        return math.inf if raw > 0 else -math.inf


def shown(raw: object) -> str:
    """What came, short enough for a message."""
    text = repr(raw)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else text[: MAX_SHOWN_CHARACTERS - 1] + "…"


def _type_name(raw: object) -> str:
    names = {bool: "a truth value", str: "text", list: "a list", dict: "an object", bytes: "bytes"}
    return names.get(type(raw), f"of type {type(raw).__name__}")
