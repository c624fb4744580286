"""`heron power-feed backtest` as a person calls it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from cli import backtest, main
from fleet.config import ConfigError


def wind_file(tmp_path: Path, rows: int) -> Path:
    path = tmp_path / "wind.csv"
    values = (0.5 + 0.4 * math.sin(step / 9) for step in range(rows))
    path.write_text("time,a\n" + "".join(f"{900 * step},{value:.4f}\n" for step, value in enumerate(values)))
    return path


def test_it_prints_a_table_and_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Horizons, models, loss, gain and coverage; the same as JSON."""
    path = wind_file(tmp_path, 3000)
    assert main.main(["power-feed", "backtest", "--wind", str(path)]) == 0
    page = capsys.readouterr().out
    assert "  15 min  point " in page
    assert "below p10" in page
    assert "µs to learn from a measurement (3,000 in" in page
    assert main.main(["power-feed", "backtest", "--wind", str(path), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["horizons"][0]["horizon_seconds"] == 900.0
    assert set(figures["horizons"][0]["models"]) == {"point", "level", "moods"}
    assert set(figures["times"]) == {"level", "moods"}
    assert figures["times"]["level"]["measurements"] == 3000
    assert figures["times"]["level"]["seconds_per_forecast"] > 0


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    """No file, and one that is too short."""
    for words in ([], ["--wind", str(wind_file(tmp_path, 50))]):
        arguments = main.parse(["power-feed", "backtest", *words])
        with pytest.raises(ConfigError, match=r"is missing|are needed"):
            backtest.run(arguments)
