"""What a body's values may be: predicates of parsed JSON. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

Rule = Callable[[Any], bool]

MAX_INT = 2**63 - 1
MAX_COUNT = 1 << 53
"""No number of tokens is larger, nor can some programs read it."""
MAX_VALUES = 50_000
"""Of one plain value: looking at them takes some 10 ms."""
MAX_DEPTH = 100
"""Of one plain value; engines' parsers are recursive."""
_LARGE = 2.0**63


def is_text(value: Any) -> bool:
    """Not null."""
    return type(value) is str


def is_null(value: Any) -> bool:
    """Named, but nothing is asked for."""
    return value is None


def is_false(value: Any) -> bool:
    """Or null."""
    return value is None or value is False


def is_flag(value: Any) -> bool:
    """Or null."""
    return value is None or type(value) is bool


def is_text_or_null(value: Any) -> bool:
    """A string, or null."""
    return value is None or type(value) is str


def is_texts_by_name(value: Any) -> bool:
    """An object of strings, or null."""
    return value is None or (type(value) is dict and all(type(text) is str for text in value.values()))


def one_of(*values: str) -> Rule:
    """One of these strings."""
    return lambda value: type(value) is str and value in values


def null_or_one_of(*values: str) -> Rule:
    """One of these strings, or null."""
    return lambda value: value is None or (type(value) is str and value in values)


def whole(least: int) -> Rule:
    """An integer of 64 bits, or null."""
    return lambda value: value is None or (type(value) is int and least <= value <= MAX_INT)


def number(least: float, most: float) -> Rule:
    """Any number, or null."""
    return lambda value: value is None or (type(value) in (int, float) and least <= value <= most)


def is_object(rules: Mapping[str, Rule]) -> Rule:
    """Null, or an object with nothing but these."""

    def check(value: Any) -> bool:
        if type(value) is not dict:
            return value is None
        for name, one in value.items():
            rule = rules.get(name)
            if rule is None or not rule(one):
                return False
        return True

    return check


def is_plain(value: Any) -> bool:
    """Of moderate size, and with no number that another parser may read otherwise."""
    count = 1
    values = [value]
    for _ in range(MAX_DEPTH):
        nested: list[Any] = []
        for one in values:
            kind = type(one)
            if kind is dict or kind is list:
                count += len(one)
                if count > MAX_VALUES:
                    return False
                nested.extend(one.values() if kind is dict else one)
            elif not _is_scalar(one):
                return False
        if not nested:
            return True
        values = nested
    return False


def _is_scalar(value: Any) -> bool:
    kind = type(value)
    if kind is float:  # a large one may have been an integer of more than 64 bits
        return isfinite(value) and abs(value) < _LARGE
    if kind is int:
        return bool(-(1 << 63) <= value < 1 << 64)
    return kind is str or kind is bool or value is None
