"""`heron size`: tables, JSON, plot, and what it refuses."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import pytest

from cli import exit_codes, size
from fleet.config import ConfigError
from simulator.sizing_cost import GPUS

ROWS = 96


@pytest.fixture
def wind(tmp_path: Path) -> Path:
    """Two farms, a day of quarter hours, blowing in turn."""
    path = tmp_path / "wind.csv"
    lines = ["time,west,east"]
    for row in range(ROWS):
        hour, minute = divmod(row * 15, 60)
        west = 0.5 + 0.5 * math.sin(row / 8)
        lines.append(f"2024-05-12T{hour:02}:{minute:02}:00Z,{west:.3f},{1 - west:.3f}")
    path.write_text("\n".join(lines) + "\n")
    return path


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    size.add_arguments(parser)
    return size.run(parser.parse_args([str(word) for word in words]))


def test_tables_show_farms_sizes_costs_and_sources(wind: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was given is called so."""
    assert run("--wind", wind, "--farm-mw", 50, "--gpu-usd", 20_000) == exit_codes.DONE
    shown = capsys.readouterr().out
    for word in ("west", "east", "p40", "$/GPU-hour", "given", "assumed", "Lazard"):
        assert word in shown


def test_json_holds_input_and_answer(wind: Path, tmp_path: Path) -> None:
    """Nothing that JSON does not know."""
    out = tmp_path / "size.json"
    words = ("--quiet", "--farm-mw", "50", "--farm-mw", "east=0.001", "--json", out, "--percentiles", "50,20")
    assert run("--wind", wind, *words) == exit_codes.DONE
    document = json.loads(out.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert document["farm_megawatts"] == {"west": 50.0, "east": 0.001}
    assert [fleet["percentile"] for fleet in document["fleets"]] == [20.0, 50.0]
    farm = document["fleets"][1]["farms"][1]
    assert (farm["gpus"], farm["use_ratio"]) == (0, None)
    assert document["correlations"]["west"]["east"] == pytest.approx(-1, abs=1e-3)
    assert document["fleets"][1]["cost"]["wind_usd_per_gpu_hour"] > 0


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_the_plot_is_of_the_kind_that_its_name_says(
    wind: Path, tmp_path: Path, suffix: str, magic: bytes
) -> None:
    """PNG or SVG."""
    path = tmp_path / f"size{suffix}"
    assert run("--wind", wind, "--quiet", "--plot", path, "--at", 35) == exit_codes.DONE
    assert path.read_bytes().startswith(magic)


def test_a_place_that_cannot_be_written_is_refused_before_the_work(wind: Path, tmp_path: Path) -> None:
    """The message names the file."""
    with pytest.raises(ConfigError, match=r"--json .*size\.json: cannot be written"):
        run("--wind", wind, "--quiet", "--json", tmp_path / "no" / "size.json")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--farms", "north"), "no farm called north; it has west, east"),
        (("--farm-mw", "big"), "no number of MW"),
        (("--farm-mw", "-1"), "above 0"),
        (("--farm-mw", "north=3"), "no farm called north"),
        (("--percentiles", "20;30"), "with commas"),
        (("--percentiles", "120"), "between 0 and 100"),
        (("--plot", "size.gif"), "a plot ends in"),
        (("--gpu-watts", "0"), "gpu_watts"),
        (("--server-years", "0"), "--server-years 0: it must be above 0"),
        (("--interest-ratio", "nan"), "0 or more"),
        (("--at", "101"), "percentile 101"),
        (("--shortage", "2"), "shortage_ratio"),
    ],
)
def test_what_cannot_be_sized_is_refused(wind: Path, words: tuple[str, str], message: str) -> None:
    """With what is wrong and what is allowed."""
    with pytest.raises(ConfigError, match=message):
        run("--wind", wind, "--quiet", f"{words[0]}={words[1]}")


def test_a_file_that_is_no_wind_is_refused(tmp_path: Path) -> None:
    """Absent, or of another kind."""
    with pytest.raises(ConfigError, match="no such file"):
        run("--wind", tmp_path / "none.csv")
    (tmp_path / "text.csv").write_text("not wind\n")
    with pytest.raises(ConfigError):
        run("--wind", tmp_path / "text.csv")


def test_the_names_of_gpus_are_those_that_are_known() -> None:
    """They stand twice, so that --help does not load numpy."""
    assert set(size.GPU_NAMES) == set(GPUS)
