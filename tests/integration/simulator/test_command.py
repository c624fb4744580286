"""`heron simulate` as a person runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli import main as command_line

WORDS = ("simulate", "--days", "1:1", "--sample", "1d:2m:1m", "--jobs", "2", "--load", "0.2")


def test_a_run_shows_keeps_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Table, JSON and a page that needs nothing else; a second run finds what the first kept."""
    monkeypatch.setenv("HERON_CACHE", str(tmp_path / "cache"))
    out, page = tmp_path / "out.json", tmp_path / "out.html"
    words = [*WORDS, "--policy", "round_robin,planned", "--json", str(out), "--report", str(page)]
    assert command_line.main(words) == 0
    shown = capsys.readouterr().out
    assert "round_robin" in shown
    assert "share of the offered requests within the SLO" in shown
    cells = json.loads(out.read_text())["cells"]
    assert [one["cell"]["policy"] for one in cells] == ["round_robin", "planned"]
    for one in cells:
        part = one["result"]["all"]
        assert part["offered"] == sum(part[name] for name in ("served", "shed", "broken", "in_flight")) > 0
        assert one["result"]["cap_exceeded_seconds"] == 0
    assert cells[1]["result"]["plans"]
    html = page.read_text()
    assert html.count("<svg") >= 4
    assert "http://" not in html.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    kept = sorted((tmp_path / "cache").rglob("*.json"))
    before = [path.read_bytes() for path in kept]
    assert len(kept) == 2
    assert command_line.main(words) == 0
    assert [path.read_bytes() for path in sorted((tmp_path / "cache").rglob("*.json"))] == before


def test_a_missing_file_says_what_to_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Exit code 2 and the name of what is missing."""
    assert command_line.main([*WORDS, "--wind", str(tmp_path / "none.csv")]) == 2
    assert "none.csv" in capsys.readouterr().err


def test_a_fault_of_a_site_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """With the names that there are."""
    assert command_line.main([*WORDS, "--fault", "crash:nowhere:30s:10s"]) == 2
    assert "--fault: no site nowhere; there are farm1, farm2, farm3, farm4, farm5, and all" in (
        capsys.readouterr().err
    )
