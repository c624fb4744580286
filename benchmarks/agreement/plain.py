"""Dataclasses as JSON, for recordings: no field that has its default, and the kind's name where asked for."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any


def plain(value: Any, *, is_named: bool = False) -> Any:
    """What `json.dumps` takes. `is_named`: of each dataclass, `{kind: fields}`."""
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        made = {
            field.name: plain(given, is_named=is_named)
            for field in fields(value)
            if (given := getattr(value, field.name)) != field.default or field.default is MISSING
        }
        return {type(value).__name__: made} if is_named else made
    if isinstance(value, tuple | list):
        return [plain(one, is_named=is_named) for one in value]
    return value
