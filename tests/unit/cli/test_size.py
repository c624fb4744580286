"""`heron size`: tables, JSON, plot, and what it refuses."""

from __future__ import annotations

import argparse
import json
import math
import warnings
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
        (("--server-years", "0"), "--server-years 0: it must be 0.1 to 100"),
        (("--facility-years", "1e-300"), "--facility-years 1e-300: it must be 0.1 to 100"),
        (("--overhead", "0"), "--overhead 0: it must be 1 or more"),
        (("--nameplate-mw", "12"), "is not in MW: say --farm-mw, or --unit mw if it is"),
        (
            ("--nameplate-mw", "north=12"),
            "--nameplate-mw north=12: no farm called north; there are west, east",
        ),
        (("--interest-ratio", "nan"), "0 or more"),
        (("--at", "101"), "percentile 101"),
        (("--shortage", "2"), "shortage_ratio"),
    ],
)
def test_what_cannot_be_sized_is_refused(wind: Path, words: tuple[str, str], message: str) -> None:
    """With what is wrong and what is allowed."""
    with pytest.raises(ConfigError, match=message):
        run("--wind", wind, "--quiet", f"{words[0]}={words[1]}")


MEGAWATTS = "time,north,south\n0,10.2,3\n900,4,2\n1800,2,9\n2700,5,1\n"
RTS = "Year,Month,Day,Period,309_WIND_1\n" + "".join(f"2020,1,1,{hour},{hour}\n" for hour in range(1, 25))


@pytest.mark.parametrize(
    ("text", "words", "farms"),
    [
        (MEGAWATTS, (), {"north": 10.2, "south": 9.0}),
        (MEGAWATTS, ("--nameplate-mw", "12"), {"north": 12.0, "south": 12.0}),
        (MEGAWATTS, ("--nameplate-mw", "12", "--nameplate-mw", "south=9.5"), {"north": 12.0, "south": 9.5}),
        (MEGAWATTS, ("--farm-mw", "north=50"), {"north": 50.0, "south": 9.0}),
        (MEGAWATTS, ("--farms", "south"), {"south": 9.0}),
        (RTS, (), {"309_WIND_1": 148.3}),
        (RTS, ("--farm-mw", "200"), {"309_WIND_1": 200.0}),
        ("time,a\n0,0.5\n900,1.0\n1800,0.3\n", (), {"a": 100.0}),
        ("time,a\n0,0.5\n900,1.0\n1800,0.3\n", ("--unit", "mw"), {"a": 1.0}),
    ],
)
def test_a_farm_is_as_large_as_its_file_in_megawatts_says(
    text: str, words: tuple[str, ...], farms: dict[str, float], tmp_path: Path
) -> None:
    """By what is known of it, else by its largest value; 100 MW where there are only shares."""
    path, out = tmp_path / "wind.csv", tmp_path / "size.json"
    path.write_text(text)
    assert run("--wind", path, "--quiet", "--json", out, *words) == exit_codes.DONE
    document = json.loads(out.read_text())
    assert document["farm_megawatts"] == farms
    assert all(fleet["cluster_megawatts"] <= sum(farms.values()) for fleet in document["fleets"])


def test_what_was_guessed_names_the_options_that_settle_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr; nothing is guessed where they are given."""
    path = tmp_path / "mw.csv"
    path.write_text(MEGAWATTS)
    run("--wind", path, "--quiet")
    told = capsys.readouterr().err
    assert "say --unit per_unit or --unit mw to be sure" in told
    assert "largest value, 10.2 MW, is taken; say --nameplate-mw to be sure" in told
    run("--wind", path, "--quiet", "--unit", "mw", "--nameplate-mw", "12")
    assert "to be sure" not in capsys.readouterr().err


def test_next_to_no_data_is_said_to_be_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused rows, steps left out, less than a year; no correlation of one step, no warning of numpy's."""
    path = tmp_path / "short.csv"
    path.write_text("time,a,b\n0,0.1,0.2\n900,x,0.3\n1800,0.2,y\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run("--wind", path) == exit_codes.DONE
    shown = capsys.readouterr()
    assert "nan…" not in shown.out
    assert "short.csv: 2 rows refused: line 3: a: not a number: 'x'; line 4" in shown.err
    assert "short.csv: 67% of its steps are left out" in shown.err
    assert "short.csv: 0.03 days, less than a year" in shown.err


def test_a_whole_year_without_gaps_needs_no_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is said of it."""
    path = tmp_path / "year.csv"
    rows = [f"{hour * 3600},{0.5 + 0.5 * math.sin(hour / 50):.3f}" for hour in range(365 * 24)]
    path.write_text("\n".join(["time,a", *rows]) + "\n")
    run("--wind", path, "--quiet", "--unit", "per_unit")
    assert capsys.readouterr().err == ""


def test_next_to_no_interest_is_next_to_none(wind: Path, tmp_path: Path) -> None:
    """The same cost as without, no division by zero."""
    found = []
    for interest in ("0", "1e-17"):
        out = tmp_path / "size.json"
        assert run("--wind", wind, "--quiet", "--interest-ratio", interest, "--json", out) == exit_codes.DONE
        found.append(json.loads(out.read_text())["fleets"][0]["cost"]["grid_usd_per_gpu_hour"])
    assert found[0] == pytest.approx(found[1])


def test_a_building_is_paid_by_its_it_watts(wind: Path, tmp_path: Path) -> None:
    """More overhead costs energy, and nothing else."""
    found = []
    for overhead in ("1", "1.5"):
        out = tmp_path / "size.json"
        words = ("--overhead", overhead, "--grid-usd-per-megawatt-hour", "0", "--json", out)
        assert run("--wind", wind, "--quiet", *words) == exit_codes.DONE
        found.append(json.loads(out.read_text())["fleets"][0]["cost"]["grid_usd_per_gpu_hour"])
    assert found[0] == pytest.approx(found[1])


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
