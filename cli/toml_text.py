"""Writes the TOML that this project's own configuration uses: tables, arrays of tables, plain values. Pure.

The standard library reads TOML and does not write it; the subset here needs no dependency. What it cannot
write it refuses.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(tables: Mapping[str, Any]) -> str:
    """`tables` as a TOML document that reads back equal; keys whose value is None are left out.

    Raises:
        TypeError: a value that TOML has no form for.
    """
    return "\n".join(_table((), tables)).strip() + "\n"


def _table(path: tuple[str, ...], table: Mapping[str, Any]) -> list[str]:
    lines, later = [], []
    for key, value in table.items():
        name = (*path, key)
        if value is None:
            continue
        if isinstance(value, Mapping):
            later += ["", f"[{'.'.join(map(_key, name))}]", *_table(name, value)]
        elif isinstance(value, (list, tuple)) and value and all(isinstance(one, Mapping) for one in value):
            for one in value:
                later += ["", f"[[{'.'.join(map(_key, name))}]]", *_table(name, one)]
        else:
            lines.append(f"{_key(key)} = {_value(value)}")
    return lines + later


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _string(key)


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float() if math.isfinite(value):
            return repr(value)
        case str() | Path():
            return _string(str(value))
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
        case Mapping():
            return "{ " + ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items()) + " }"
        case _:
            raise TypeError(f"no TOML form for {value!r}")
