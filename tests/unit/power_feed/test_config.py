"""The feed's table: what it takes, and how it says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.config import ConfigError
from power_feed.config import CsvSource, FeedConfig, ScheduleSource, SyntheticSource, load

GOOD = """
[fleet]
name = "demo"
[power_feed]
port = 0
speed = 60
start_file = "start"
[[power_feed.farms]]
farm_id = "north-farm"
site_id = "north"
nameplate_watts = 60000
loss_ratio = 0.03
other_loads_watts = 100
source = { kind = "csv", path = "data/wind.csv", column = "Area1", offset_seconds = 3600 }
[[power_feed.farms]]
farm_id = "coast-farm"
site_id = "coast"
nameplate_watts = 60000
source = { kind = "schedule", points = [[0, 0.6], [20, 0.05]] }
quality = { stuck_measurements = 0 }
[[power_feed.farms]]
farm_id = "ridge-farm"
site_id = "ridge"
nameplate_watts = 60000
source = { kind = "synthetic", seed = 3, preset = "near" }
[router]
port = 1
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    return path


def fault(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as raised:
        load(write(tmp_path, text), environment or {})
    return str(raised.value)


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    """Each kind of source, and paths relative to the file."""
    fleet, feed = load(write(tmp_path, GOOD), {})
    assert fleet.name == "demo"
    assert isinstance(feed, FeedConfig)
    csv, schedule, synthetic = (farm.source for farm in feed.farms)
    assert isinstance(csv, CsvSource)
    assert csv.path == tmp_path / "data" / "wind.csv"
    assert isinstance(schedule, ScheduleSource)
    assert schedule.points == ((0.0, 0.6), (20.0, 0.05))
    assert isinstance(synthetic, SyntheticSource)
    assert synthetic.preset == "near"
    assert feed.start_file == tmp_path / "start"
    assert feed.farms[1].quality.stuck_measurements == 0


def test_the_environment_overrules_the_file(tmp_path: Path) -> None:
    """And its faults name the variable."""
    assert load(write(tmp_path, GOOD), {"HERON_POWER_FEED_PORT": "8123"})[1].port == 8123
    assert fault(tmp_path, GOOD, {"HERON_POWER_FEED_SPEED": "-1"}).startswith(
        "environment HERON_POWER_FEED_SPEED: [power_feed] speed = -1"
    )


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("port = 0", "prot = 0", "prot = 0: no such key; allowed are host, port"),
        ('site_id = "coast"', 'site_id = "north"', "site north is fed twice"),
        ('farm_id = "coast-farm"', 'farm_id = "north-farm"', "farm north-farm is there twice"),
        ("nameplate_watts = 60000\nloss", "nameplate_watts = 0\nloss", "nameplate_watts = 0: "),
        ('kind = "csv"', 'kind = "modbus"', "farms.0.source"),
        (', column = "Area1"', "", "farms.0.source.csv.column: is missing and has no default"),
        ("[20, 0.05]", "[0, 0.05]", "points must grow in time"),
        ("[20, 0.05]", "[20, nan]", "farms.1.source.schedule.points"),
        ('column = "Area1"', 'column = "Area1", measures = "produced"', "is refused without"),
        ("speed = 60", "speed = 60\nstart_unix_seconds = 5", "give one of them"),
        ("speed = 60", "interval_seconds = 5", "interval_seconds = 5"),
    ],
)
def test_faults_name_file_key_value_and_what_is_allowed(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    """One line each, with the file's path."""
    assert old in GOOD
    message = fault(tmp_path, GOOD.replace(old, new, 1))
    assert str(tmp_path / "fleet.toml") in message
    assert "[power_feed]" in message
    assert says in message


def test_a_feed_without_farms_is_refused(tmp_path: Path) -> None:
    """It would serve nobody."""
    assert "farms: is missing" in fault(tmp_path, "[power_feed]\nport = 1\n")
    assert "farms" in fault(tmp_path, "[power_feed]\nfarms = []\n")


def test_a_table_that_is_none_is_refused(tmp_path: Path) -> None:
    """`power_feed = 3` is told, not crashed on."""
    assert "[power_feed] must be a table" in fault(tmp_path, "power_feed = 3\n")


def test_produced_power_is_taken_with_a_curtailment_signal(tmp_path: Path) -> None:
    """DESIGN §8: refused unless such a signal is configured."""
    text = GOOD.replace(
        'column = "Area1"', 'column = "Area1", measures = "produced", curtailment_column = "curtailed"'
    )
    source = load(write(tmp_path, text), {})[1].farms[0].source
    assert isinstance(source, CsvSource)
    assert source.measures == "produced"


SEVERAL = """
[power_feed]
[[power_feed.farms]]
farm_id = "coast-farm"
nameplate_watts = 60000
source = { kind = "synthetic" }
[[power_feed.farms.sites]]
site_id = "coast-1"
priority = 1
[[power_feed.farms.sites]]
site_id = "coast-2"
max_site_watts = 9000
ingress_url = "http://10.0.0.2:8101"
[[sites]]
site_id = "coast-1"
host = "127.0.0.1"
port = 8101
margin_ratio = 0.1
max_site_watts = 12000
[[sites]]
site_id = "coast-2"
port = 8102
max_site_watts = 12000
"""


def test_a_farm_has_several_sites_and_learns_of_them_from_the_same_file(tmp_path: Path) -> None:
    """What is said at the feed counts first; what `[[sites]]` say comes second."""
    [farm] = load(write(tmp_path, SEVERAL), {})[1].farms
    one, two = farm.fed_sites
    assert (one.site_id, one.priority, one.margin_ratio, one.max_site_watts) == ("coast-1", 1, 0.1, 12000.0)
    assert one.ingress_url == "http://127.0.0.1:8101"
    assert (two.margin_ratio, two.max_site_watts) == (0.05, 9000.0)
    assert two.ingress_url == "http://10.0.0.2:8101"


def test_a_farm_feeds_somebody(tmp_path: Path) -> None:
    """One site or several, not both, and none twice."""
    nobody = SEVERAL.replace("[[power_feed.farms.sites]]", "[[sites]]")
    assert "whom does it feed?" in fault(tmp_path, nobody)
    both = SEVERAL.replace("nameplate_watts = 60000", 'nameplate_watts = 60000\nsite_id = "coast-3"')
    assert "whom does it feed?" in fault(tmp_path, both)
    assert "site coast-1 is fed twice" in fault(tmp_path, SEVERAL.replace('"coast-2"\nmax', '"coast-1"\nmax'))
