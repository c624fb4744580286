"""`heron profile check`: tables, JSON, and the official files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from support import official_data
from support.measured import document_of, row_of

from cli import exit_codes, profile
from cli.main import main
from cli.profile_files import ML_ENERGY_FILES, ProfileFileError
from fleet.profile import LLAMA_70B_H100_TP4


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    profile.add_arguments(parser)
    return profile.run(parser.parse_args(words))


def test_tables_show_every_group(capsys: pytest.CaptureFixture[str]) -> None:
    """With what was not fitted marked so."""
    assert run("check") == exit_codes.DONE
    shown = capsys.readouterr().out
    for word in ("Llama-3.1-70B", "Splitwise", "vidur", "not fitted", "modelled"):
        assert word in shown


def test_json_has_rows_and_groups(capsys: pytest.CaptureFixture[str]) -> None:
    """For whoever wants to plot them."""
    assert run("check", "--json") == exit_codes.DONE
    document = json.loads(capsys.readouterr().out)
    first = document["rows"][0]
    assert first["error_ratio"] == pytest.approx(first["modelled"] / first["published"] - 1, abs=1e-3)
    assert document["groups"]
    assert document["wrong_figures"] == []


def test_a_directory_without_the_files_is_refused(tmp_path: Path) -> None:
    """The message names the file."""
    with pytest.raises(ProfileFileError, match=r"no mlenergy_v3_meta-llama__Llama-3\.1-70B"):
        run("check", "--files", str(tmp_path))


@pytest.mark.parametrize("content", ["{}", "no JSON", '{"configurations": [{"gpu_model": "H100"}]}'])
def test_a_file_of_another_shape_is_refused(tmp_path: Path, content: str) -> None:
    """Not half read."""
    for name, _ in ML_ENERGY_FILES.values():
        (tmp_path / name).write_text(content)
    with pytest.raises(ProfileFileError, match=r"not a file of the ML\.ENERGY leaderboard"):
        run("check", "--files", str(tmp_path))


@pytest.mark.official_data
def test_the_shipped_figures_are_those_of_the_official_files(capsys: pytest.CaptureFixture[str]) -> None:
    """None is further off than its rounding."""
    directory = official_data.path("splitwise_perf_model.csv").parent
    assert run("check", "--files", str(directory), "--json") == exit_codes.DONE
    assert json.loads(capsys.readouterr().out)["wrong_figures"] == []


def test_a_measured_file_is_told_and_its_fit_shown_row_by_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it is of, where each part comes from, and the error on its own rows."""
    path = tmp_path / "mine.json"
    rows = [row_of(LLAMA_70B_H100_TP4, batch, 512, clock) for clock in (1980, 800) for batch in (1, 8)]
    path.write_text(json.dumps(document_of(rows).model_dump(mode="json")))
    assert run("check", str(path)) == exit_codes.DONE
    shown = capsys.readouterr().out
    for word in (
        "on 4 × NVIDIA H100",
        "clocks 800, 1980 MHz",
        "stopped: modelled",
        "watts, 800 MHz",
        "+0.0%",
    ):
        assert word in shown
    assert run("check", str(path), "--json") == exit_codes.DONE
    document = json.loads(capsys.readouterr().out)
    assert len(document["rows"]) == 4 + 2 + 4
    assert document["profile"]["rows"][0]["source"].startswith("measured")


def test_a_file_that_makes_no_profile_is_refused(tmp_path: Path) -> None:
    """With its name, its row and what is allowed; and never together with the official files."""
    path = tmp_path / "mine.json"
    rows = [row_of(LLAMA_70B_H100_TP4, 8, 512, 1400)]
    path.write_text(json.dumps(document_of(rows).model_dump(mode="json")))
    with pytest.raises(ProfileFileError, match=r"mine\.json: no row at full clock \(1980 MHz\)"):
        run("check", str(path))
    with pytest.raises(ProfileFileError, match="not both"):
        run("check", str(path), "--files", str(tmp_path))
    assert main(["profile", "check", str(tmp_path / "nothing.json")]) == exit_codes.CONFIGURATION
