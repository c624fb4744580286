"""How long something lasts, as people write it."""

from __future__ import annotations

import pytest

from cli.duration import seconds_of
from fleet.config import ConfigError


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90.0), ("0.5h", 1800.0), ("30d", 30 * 86_400.0)])
def test_a_number_and_its_unit(text: str, seconds: float) -> None:
    """From seconds to days."""
    assert seconds_of("--for", text, most_days=30) == seconds


@pytest.mark.parametrize(
    "text", ["", "0s", "5", "soon", "-1h", "31d", "1e3s", "1h30m", "٣h", "9" * 100 + "s"]
)
def test_what_is_none_is_said(text: str) -> None:
    """With the option, the text, what it may be."""
    with pytest.raises(ConfigError, match=r"--for '.*': such as 30m, 2h or 1d, 30d at most"):
        seconds_of("--for", text, most_days=30)
