"""`heron bound`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.main import main


def test_it_says_per_load_what_could_be_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without any file: synthetic wind and load. More load, a smaller part; no baseline above the bound."""
    file = tmp_path / "bound.json"
    assert main(["bound", "--days", "1:1", "--load", "0.3,0.9", "--json", str(file)]) == 0
    weeks = json.loads(file.read_text())["weeks"]
    assert [week["days"] for week in weeks] == [[1, 1]]
    for week in weeks:
        for kind in ("within_slo", "any_latency"):
            low, high = week[kind]["by_load"]
            assert high["bound"] <= low["bound"] <= 1 + 1e-9
            for row in (low, high):
                assert row["bound_same_mix"] <= row["bound"] + 1e-9
                assert all(value <= row["bound_same_mix"] + 1e-9 for value in row["baselines"].values())
        better, worse = week["any_latency"]["by_load"][1], week["within_slo"]["by_load"][1]
        assert worse["bound_same_mix"] <= better["bound_same_mix"] + 1e-9
    assert "cluster peak" in capsys.readouterr().out


def test_of_a_sample_it_is_by_seed_and_says_what_came(tmp_path: Path) -> None:
    """The requests that a seed draws, not the expected ones; both kept."""
    file = tmp_path / "bound.json"
    found = []
    for seed in ("1", "2"):
        words = ["--days", "1:2", "--sample", "1d:4m:1m", "--load", "0.5", "--seed", seed]
        assert main(["bound", *words, "--arrivals", "poisson", "--json", str(file)]) == 0
        (week,) = json.loads(file.read_text())["weeks"]
        assert (week["sample"], week["seed"]) == ("86400s:240s:60s", int(seed))
        assert week["offered_ratios"]["0.5"] == pytest.approx(0.5, rel=0.1)
        found.append(week["offered_ratios"])
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--days", "fts-127"], "weeks have names only in"),
        (["--days", "9:3"], "days count from 1"),
        (["--load", "much"], "expected numbers"),
        (["--load", "0"], "above 0"),
        (["--sample", "often"], "expected EVERY:LENGTH:WARM_UP"),
        (["--wind", "nowhere.csv"], "no such file"),
        (["--sites", "nowhere.toml"], "nowhere.toml"),
        (["--trace", "nowhere.csv"], "no such file"),
        (["--days", "360:371"], "has no day 371"),
        (["--days", "1:1", "--size-percentile", "0"], "percentile 0 of its power is 0; take a higher one"),
    ],
)
def test_what_cannot_be_meant_is_told(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2, with what to do."""
    assert main(["bound", *words]) == 2
    assert message in capsys.readouterr().err


def test_rows_that_cannot_be_used_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, once for all weeks, with what was taken for granted and what a user of it can do."""
    wind = tmp_path / "wind.csv"
    rows = [f"{hour * 3600},{'x' if hour == 7 else 5 + hour % 4}" for hour in range(49)]
    wind.write_text("\n".join(["time,a", *rows]) + "\n")
    assert main(["bound", "--wind", str(wind), "--days", "1:1,2:2", "--load", "0.3"]) == 0
    told = capsys.readouterr().err
    assert told.count("wind.csv: 1 row refused: line 9: a: not a number: 'x'") == 1
    assert "largest value, 8 MW, is taken; give a file of shares of nameplate to be sure" in told


def test_more_sites_than_columns_read_them_days_later(tmp_path: Path) -> None:
    """Also where that is beyond the record's end: it goes round, as in the simulator."""
    sites, file = tmp_path / "sites.toml", tmp_path / "bound.json"
    sites.write_text("count = 12\n")
    words = ["--days", "80:80", "--load", "0.5", "--sites", str(sites), "--json", str(file)]
    assert main(["bound", *words]) == 0
    [week] = json.loads(file.read_text())["weeks"]
    assert len(week["sites"]) == 12
    assert 0 < week["within_slo"]["by_load"][0]["bound"] <= 1
