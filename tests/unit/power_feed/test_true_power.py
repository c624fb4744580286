"""The judge's view of the wind."""

from __future__ import annotations

from pathlib import Path

import pytest

from power_feed.config import FeedConfig
from power_feed.true_power import TruePower

START = 1_700_000_000.0


def config(tmp_path: Path) -> FeedConfig:
    path = tmp_path / "wind.csv"
    path.write_text("time,north\n0,0.5\n900,\n1800,0.25\n")
    return FeedConfig.model_validate(
        {
            "speed": 60.0,
            "farms": [
                {
                    "farm_id": "f",
                    "site_id": "north",
                    "nameplate_watts": 1000.0,
                    "loss_ratio": 0.1,
                    "other_loads_watts": 50.0,
                    "source": {"kind": "csv", "path": path, "column": "north", "unit": "per_unit"},
                }
            ],
        }
    )


def test_it_is_what_the_site_could_have_drawn(tmp_path: Path) -> None:
    """Losses and other loads taken off, at the replay's speed; unknown where nothing was measured."""
    power = TruePower(config(tmp_path), start_unix_seconds=START)
    assert power.site_ids == ("north",)
    assert power.available_watts("north", START) == 400.0
    assert power.available_watts("north", START + 15) is None
    assert power.available_watts("north", START + 30) == 175.0
    assert power.available_watts("north", START + 45) is None
    assert power.last_known_watts("north", START) == 400.0
    assert power.last_known_watts("north", START + 15) == 400.0
    assert power.last_known_watts("north", START + 1000) == 175.0
    assert power.describe("north") == "wind.csv north at speed 60"


def test_an_unknown_site_is_an_error(tmp_path: Path) -> None:
    """A judge that asks for the wrong site must not be told 0 W."""
    with pytest.raises(KeyError):
        TruePower(config(tmp_path), start_unix_seconds=START).available_watts("south", START)
