"""How long something lasts, as people write it: 90s, 30m, 2h, 1d."""

from __future__ import annotations

import re

from fleet.config import ConfigError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)([smhd])", re.ASCII)
DAY_SECONDS = _UNITS["d"]
SHOWN_CHARACTERS = 64


def seconds_of(option: str, text: str, *, most_days: int) -> float:
    """Seconds, more than none.

    Raises:
        ConfigError: `text` is no such duration; `option` is named in it.
    """
    found = _DURATION.fullmatch(text)
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 0 < seconds <= most_days * DAY_SECONDS:
        longest = "a year" if most_days == 365 else f"{most_days}d"
        shown = repr(text[:SHOWN_CHARACTERS])
        raise ConfigError(f"{option} {shown}: such as 30m, 2h or 1d, {longest} at most")
    return seconds
