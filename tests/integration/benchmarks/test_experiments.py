"""All experiments in their smallest form: they run, go on where they were, and write their files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.experiments.__main__ import EXPERIMENTS, main

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROWS = {
    "bound": 1,
    "paper_table": 16,
    "power_short": 24,
    "matrix": 10,
    "ablation": 15,
    "sensitivity": 30,
    "grid": 2,
    "queueing": 2,
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all: an experiment finds the cells of those before it."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_runs_and_writes_what_it_says(
    name: str,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No file of data is needed; the second time nothing runs and the same bytes are written."""
    monkeypatch.setenv("HERON_CACHE", str(cache))
    words = [name, "--smoke", "--jobs", "2", "--out", str(tmp_path)]
    main(words)
    assert "# " in capsys.readouterr().out
    found = json.loads((tmp_path / f"{name}-smoke.json").read_text(), parse_constant=pytest.fail)
    assert found["experiment"] == name
    assert len(found["weeks" if name == "bound" else "rows"]) == ROWS[name]
    assert found["summary"]
    text = (tmp_path / f"{name}-smoke.md").read_text()
    assert "nan" not in text
    plots = sorted(tmp_path.glob("*.svg"))
    assert plots
    assert all(plot.name in text for plot in plots)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    kept = sorted(cache.rglob("*.json"))
    main(words)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert sorted(cache.rglob("*.json")) == kept
