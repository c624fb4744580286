"""From configuration to sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleet.config import ConfigError
from power_feed.config import FeedConfig
from power_feed.sources.registry import SOURCES, WindFiles, build_sources

START = 1_700_000_000.0


def config(*sources: dict[str, Any], **keys: Any) -> FeedConfig:
    farms = [
        {"farm_id": f"f{index}", "site_id": f"s{index}", "nameplate_watts": 1000.0, "source": source}
        for index, source in enumerate(sources)
    ]
    return FeedConfig.model_validate({"farms": farms, **keys})


@pytest.fixture
def wind_file(tmp_path: Path) -> Path:
    path = tmp_path / "wind.csv"
    path.write_text("time,north,coast,curtailed\n0,0.5,10,0\n60,0.6,,1\n120,0.7,30,\n180,0.8,40,0\n")
    return path


def test_every_kind_of_the_configuration_has_a_maker() -> None:
    """The registry and the configuration's kinds are the same."""
    assert set(SOURCES) == {"csv", "synthetic", "schedule", "least", "modbus", "opcua", "mqtt", "http"}


def test_a_csv_source_plays_its_column(wind_file: Path) -> None:
    """Ratio × nameplate, the file's period ÷ speed, and the file in its description."""
    source = build_sources(
        config({"kind": "csv", "path": wind_file, "column": "north", "unit": "per_unit"}, speed=6.0),
        start_unix_seconds=START,
    )["f0"]
    assert source.period_seconds == 10.0
    assert source.measurement(START + 10).watts == 600.0
    assert source.description == "wind.csv north at speed 6"


def test_a_file_in_megawatts_takes_its_nameplate_from_the_configuration(wind_file: Path) -> None:
    """10 MW of 40 MW nameplate is a quarter of the farm's own nameplate."""
    source = build_sources(
        config(
            {
                "kind": "csv",
                "path": wind_file,
                "column": "coast",
                "unit": "mw",
                "nameplate_megawatts": 40.0,
            }
        ),
        start_unix_seconds=START,
    )["f0"]
    assert source.measurement(START).watts == 250.0


def test_produced_power_counts_only_where_it_was_not_curtailed(wind_file: Path) -> None:
    """Where the flag is set, or missing, nothing is known of what was available."""
    source = build_sources(
        config(
            {
                "kind": "csv",
                "path": wind_file,
                "column": "north",
                "unit": "per_unit",
                "measures": "produced",
                "curtailment_column": "curtailed",
            }
        ),
        start_unix_seconds=START,
    )["f0"]
    assert source.measures == "produced"
    assert [source.measurement(START + 60 * step).watts for step in range(4)] == [500.0, None, None, 800.0]


def test_one_file_is_read_once(wind_file: Path) -> None:
    """Two farms on two columns of a file share what was read."""
    files = WindFiles()
    build_sources(
        config(
            {"kind": "csv", "path": wind_file, "column": "north"},
            {"kind": "csv", "path": wind_file, "column": "coast"},
        ),
        start_unix_seconds=START,
        files=files,
    )
    assert len(files.series) == 1


def test_farms_of_one_seed_are_different_farms_of_the_same_weather() -> None:
    """Without `site` the farm's place counts; the description says synthetic wind."""
    sources = build_sources(
        config({"kind": "synthetic", "seed": 7}, {"kind": "synthetic", "seed": 7}),
        start_unix_seconds=START,
    )
    assert sources["f0"].description == "synthetic wind (far, seed 7, farm 0) at speed 1"
    assert sources["f1"].description == "synthetic wind (far, seed 7, farm 1) at speed 1"
    instants = [START + 900 * step for step in range(50)]
    assert [sources["f0"].measurement(at).watts for at in instants] != [
        sources["f1"].measurement(at).watts for at in instants
    ]


def test_a_schedule_counts_wall_seconds_at_any_speed() -> None:
    """A script belongs to the run: `speed` does not hurry it."""
    source = build_sources(
        config({"kind": "schedule", "points": [[0, 1.0], [20, 0.1]]}, speed=60.0), start_unix_seconds=START
    )["f0"]
    assert source.measurement(START + 19.9).watts == 1000.0
    assert source.measurement(START + 20).watts == 100.0


def test_a_trip_can_be_laid_over_wind(wind_file: Path) -> None:
    """`least` nests the other kinds."""
    source = build_sources(
        config(
            {
                "kind": "least",
                "of": [
                    {"kind": "csv", "path": wind_file, "column": "north", "unit": "per_unit"},
                    {"kind": "schedule", "points": [[0, 1.0], [30, 0.1]]},
                ],
            }
        ),
        start_unix_seconds=START,
    )["f0"]
    assert source.measurement(START).watts == 500.0
    assert source.measurement(START + 30).watts == 100.0


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"column": "west"}, "has no column 'west'; there are north, coast, curtailed"),
        ({"column": "north", "curtailment_column": "off"}, "has no column 'off'"),
        ({"column": "north", "offset_seconds": 240.0}, "beyond its end"),
        ({"column": "north", "format": "fts213"}, "format fts213 was asked for"),
        ({"column": "north", "path": "/nowhere/wind.csv"}, "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_file_names_its_farm(wind_file: Path, source: dict[str, Any], says: str) -> None:
    """A configuration error, before anything is published."""
    with pytest.raises(ConfigError) as raised:
        build_sources(config({"kind": "csv", "path": wind_file, **source}), start_unix_seconds=START)
    assert "[power_feed] farms.0.source (farm f0)" in str(raised.value)
    assert says in str(raised.value)


def test_all_faults_are_told_at_once(wind_file: Path) -> None:
    """Two wrong farms are two lines."""
    with pytest.raises(ConfigError) as raised:
        build_sources(
            config(
                {"kind": "csv", "path": wind_file, "column": "x"},
                {"kind": "csv", "path": wind_file, "column": "y"},
            ),
            start_unix_seconds=START,
        )
    assert len(str(raised.value).splitlines()) == 2


def test_a_speed_that_nobody_could_follow_is_refused(wind_file: Path) -> None:
    """More than fifty measurements a second: the message says which speed is allowed."""
    with pytest.raises(ConfigError, match="allowed is a speed of at most 3000"):
        build_sources(
            config({"kind": "csv", "path": wind_file, "column": "north"}, speed=100_000.0),
            start_unix_seconds=START,
        )


def test_a_column_without_any_value_is_refused(tmp_path: Path) -> None:
    """A dead column would leave its site dark for ever, without a word."""
    path = tmp_path / "wind.csv"
    path.write_text("time,north,coast\n0,0.5,\n60,0.5,\n")
    with pytest.raises(ConfigError, match="'coast' holds no usable value"):
        build_sources(config({"kind": "csv", "path": path, "column": "coast"}), start_unix_seconds=START)
