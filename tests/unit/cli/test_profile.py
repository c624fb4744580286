"""`heron profile check`: tables, JSON, and the official files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from support import official_data

from cli import exit_codes, profile
from cli.profile_files import ML_ENERGY_FILES, ProfileFileError


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
