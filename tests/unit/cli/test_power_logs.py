"""The judge's files: what is read, and what the wind is taken to be."""

from __future__ import annotations

from pathlib import Path

from cli.demo_config import DemoOptions, cap_rule, demo_tables, power_log, ride_through
from cli.power_logs import Granted, judge_sites, read_power_log
from cli.toml_text import to_toml
from cli.topology import build_topology
from power_feed.config import FeedConfig
from power_feed.true_power import TruePower


def test_the_older_part_of_a_log_comes_first(tmp_path: Path) -> None:
    """A log that was put aside as `.1` is read before the one that followed it."""
    path = tmp_path / "fake-power.csv"
    (tmp_path / "fake-power.csv.1").write_text("unix_seconds,site_watts\n1.0,10\n")
    path.write_text("unix_seconds,site_watts\n2.0,20\n")
    assert [sample.site_watts for sample in read_power_log(path)] == [10.0, 20.0]


def test_no_file_is_no_sample(tmp_path: Path) -> None:
    """Where no power log was written nothing is known."""
    assert list(read_power_log(tmp_path / "fake-power.csv")) == []


def test_a_broken_log_leaves_its_site_unknown_and_is_said(tmp_path: Path) -> None:
    """A log that cannot be judged by is a fault with its path; the other sites are judged."""
    options = DemoOptions(
        run_directory=tmp_path, ports=range(9001, 9011), site_token="t", seconds=60.0, scenario="calm"
    )
    config = tmp_path / "heron.toml"
    config.write_text(to_toml(demo_tables(options)))
    for site_id in options.sites:
        path = power_log(tmp_path, site_id)
        path.parent.mkdir(parents=True)
        path.write_text("unix_seconds,site_watts\n1000.0,1600\n1000.1,1600\n")
    power_log(tmp_path, "coast").write_text("unix_seconds,site_watts\nbroken\n")
    verdicts, faults = judge_sites(
        options,
        build_topology(config, {}, redis=None),
        start_unix_seconds=900.0,
        rule=cap_rule(options),
        limits=ride_through(options),
    )
    assert [site_id for site_id, verdict in verdicts.items() if verdict is None] == ["coast"]
    assert verdicts["north"] is not None
    assert verdicts["north"].cap_exceeded_seconds == 0.0
    assert len(faults) == 1
    assert str(power_log(tmp_path, "coast")) in faults[0]
    assert "line 2 is no sample" in faults[0]


def test_a_gap_in_the_wind_record_holds_the_value_before(tmp_path: Path) -> None:
    """Where nothing was measured the last measured wind holds on for the judge."""
    wind = tmp_path / "wind.csv"
    wind.write_text("time,a\n0,0.5\n60,0.4\n120,\n180,0.2\n")
    farm = {
        "farm_id": "f",
        "site_id": "north",
        "nameplate_watts": 1000.0,
        "source": {"kind": "csv", "path": str(wind), "column": "a", "unit": "per_unit"},
    }
    config = FeedConfig.model_validate({"farms": [farm]})
    granted = Granted(TruePower(config, start_unix_seconds=1000.0), "north")
    assert [granted(at) for at in (1001.0, 1061.0, 1121.0, 1181.0)] == [500.0, 400.0, 400.0, 200.0]
