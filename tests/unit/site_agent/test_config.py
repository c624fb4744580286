"""`[[sites]]`: defaults, what the numbers promise together, and errors that say what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fleet.config import ConfigError
from site_agent import config

MINIMAL = """
[[sites]]
site_id = "north"
farm_id = "north-farm"
state_dir = "state/north"
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    return path


def test_a_site_needs_three_keys(tmp_path: Path) -> None:
    """All else has a default, and an agent of an only site need not be told which."""
    fleet, site = config.load(write(tmp_path, MINIMAL), None, {})
    assert fleet.name == "default"
    assert site.site_id == "north"
    assert site.engine.kind == "emulated"
    assert site.site_watts_limit() == pytest.approx(8756.55 * 1.1)
    assert site.ride_through().joules == pytest.approx(8756.55 * 1.1 * 5)
    assert site.gpus_per_instance() == 4


def test_spare_gpus_are_within_the_default_limit(tmp_path: Path) -> None:
    """Their draw counts: without room for it engines would be kept below what the feeder carries."""
    site = config.load(write(tmp_path, MINIMAL), None, {})[1]
    model = site.site_model(spare_gpus=4)
    assert site.site_watts_limit(spare_gpus=4) == pytest.approx(model.full_watts * 1.1)
    assert site.cap_rule(spare_gpus=4).max_site_watts > site.cap_rule().max_site_watts
    assert site.ride_through(spare_gpus=4).joules == pytest.approx(model.full_watts * 1.1 * 5)
    given = config.load(write(tmp_path, MINIMAL + "max_site_watts = 7000.0"), None, {})[1]
    assert given.site_watts_limit(spare_gpus=4) == 7000.0


def test_without_a_file_the_environment_is_enough() -> None:
    """As in a container."""
    _, site = config.load(
        None,
        "north",
        {
            "HERON_SITE_FARM_ID": "f",
            "HERON_SITE_STATE_DIR": "/var/lib/heron",
            "HERON_SITE_GOVERNOR__DRAIN_SECONDS": "0.5",
        },
    )
    assert site.site_id == "north"
    assert site.governor.drain_seconds == 0.5


def test_a_relative_state_dir_is_beside_the_file(tmp_path: Path) -> None:
    """So a site's state does not depend on where its agent was started from."""
    assert config.load(write(tmp_path, MINIMAL), None, {})[1].state_dir == tmp_path / "state/north"
    absolute = MINIMAL.replace("state/north", "/var/lib/heron")
    assert config.load(write(tmp_path, absolute), None, {})[1].state_dir == Path("/var/lib/heron")


def test_one_of_several_sites_is_taken_by_name(tmp_path: Path) -> None:
    """Without a name, or with a wrong one, the error lists them."""
    path = write(tmp_path, MINIMAL + MINIMAL.replace("north", "coast"))
    assert config.load(path, "coast", {})[1].farm_id == "coast-farm"
    with pytest.raises(ConfigError, match=r"2 sites; say which: --site north \| coast"):
        config.load(path, None, {})
    with pytest.raises(ConfigError, match="no site_id = 'ridge'; there are north, coast"):
        config.load(path, "ridge", {})


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("margin_ratio = 1.5", r"\[sites\] margin_ratio = 1.5: Input should be less than 1"),
        ("colour = 1", r"\[sites\] colour = 1: no such key; allowed are site_id, farm_id"),
        ("safe_floor_watts = 1750", "needs firm_power_source"),
        ("watchdog_seconds = 5", "watchdog_seconds must be less than ride_through_seconds"),
        ("watchdog_seconds = 0.5\ngovernor = { tick_seconds = 1.0 }", "at least 4 × governor.tick_seconds"),
        (
            'engine = { kind = "vllm", model = "m", first_port = 65500 }',
            "first_port = 65500: Input should be less than or equal to 65472",
        ),
        (
            'engine = { kind = "external", model = "m", urls = ["http://127.0.0.1:99999"] }',
            "the port from 1 to 65535",
        ),
        ("governor = { drain_seconds = 4 }", "do not fit ride_through_seconds = 5"),
        (
            'engine = { kind = "emulated", profile = "x" }',
            r"\[sites\]: engine.profile: 'x' is no profile: known are llama.*json",
        ),
        ('engine = { kind = "steam" }', "'emulated', 'vllm'"),
        ('engine = { kind = "emulated", instances = 0 }', "greater than or equal to 1"),
        ("max_site_watts = 1000", "below what the site draws with every engine stopped, 1584 W"),
        ('host = "0.0.0.0"', "ingress_url must be given"),
        ('feed_url = "http://feed/path"', "feed_url = 'http://feed/path'"),
        ('ingress_url = "http://host:0"', "scheme://host:port"),
        ("overhead_ratio = nan", "finite"),
    ],
)
def test_an_error_says_file_key_value_and_what_is_allowed(tmp_path: Path, lines: str, message: str) -> None:
    """So that it can be mended without the source."""
    path = write(tmp_path, MINIMAL + lines)
    with pytest.raises(ConfigError, match=message) as error:
        config.load(path, None, {})
    assert str(error.value).startswith(str(path))


def test_two_sites_of_one_name_are_an_error(tmp_path: Path) -> None:
    """They would write the same keys."""
    with pytest.raises(ConfigError, match="two sites have this name"):
        config.load(write(tmp_path, MINIMAL + MINIMAL), "north", {})


def test_an_ingress_beyond_this_machine_needs_a_site_token(tmp_path: Path) -> None:
    """Or anybody on the network could use the engines."""
    lines = 'host = "10.0.0.5"'
    with pytest.raises(ConfigError, match="site_token is missing"):
        config.load(write(tmp_path, MINIMAL + lines), None, {})
    token = '[fleet]\nsite_token = "secret"\n'
    fleet, site = config.load(write(tmp_path, token + MINIMAL + lines), None, {})
    assert site.host == "10.0.0.5"
    assert "secret" not in repr(fleet)


def test_the_site_model_has_full_clocks_only_where_they_cannot_be_set(tmp_path: Path) -> None:
    """The governor then saves by stopping engines."""
    _, site = config.load(write(tmp_path, MINIMAL), None, {})
    assert len(site.site_model().clocks_mhz) == 7
    assert site.site_model(can_set_clock=False).clocks_mhz == (1980,)


def test_engines_without_a_profile_have_assumed_watts(tmp_path: Path) -> None:
    """The CPU build of vLLM in tests."""
    engine = 'engine = { kind = "vllm", model = "tiny", gpus_per_instance = 0, assumed_busy_watts = 500 }'
    _, site = config.load(write(tmp_path, MINIMAL + engine), None, {})
    assert site.performance_profile().profile_id == "assumed"
    assert site.site_model().full_watts == pytest.approx((500 + 600) * 1.1)
    assert site.gpus_per_instance() == 0


@pytest.mark.parametrize(
    ("lines", "switches"),
    [
        ("", False),
        ("has_server_switch = true\n", True),
        ('[[power_feed.farms]]\n[[power_feed.farms.sites]]\nsite_id = "north"\n', False),
        ('[[power_feed.farms]]\nsites = [{ site_id = "north", server = { kind = "redfish" } }]\n', True),
        ('[[power_feed.farms]]\nsites = [{ site_id = "coast", server = { kind = "redfish" } }]\n', False),
        ("[power_feed]\nfarms = [3, { sites = 4 }, { sites = [5] }]\n", False),
    ],
)
def test_the_feeds_switch_is_known_from_the_same_file(tmp_path: Path, lines: str, switches: bool) -> None:
    """Or said, where the feed has a file of its own."""
    _, site = config.load(write(tmp_path, MINIMAL + lines), None, {})
    assert site.has_server_switch is switches


def test_what_is_said_of_the_switch_outranks_the_feeds_table(tmp_path: Path) -> None:
    """In the file and in the environment."""
    feed = '[[power_feed.farms]]\nsites = [{ site_id = "north", server = { kind = "redfish" } }]\n'
    path = write(tmp_path, MINIMAL + "has_server_switch = false\n" + feed)
    assert not config.load(path, None, {})[1].has_server_switch
    assert not config.load(write(tmp_path, MINIMAL + feed), None, {"HERON_SITE_HAS_SERVER_SWITCH": "false"})[
        1
    ].has_server_switch


def test_the_example_file_is_valid() -> None:
    """What `heron up --example` prints starts every site of it."""
    path = Path(__file__).parents[3] / "cli" / "example_fleet.toml"
    names = re.findall(r'^site_id = "(\w+)"', path.read_text(), re.MULTILINE)
    assert {config.load(path, name, {})[1].site_id for name in names} >= {"north", "coast", "ridge"}


@pytest.mark.parametrize(
    ("engine", "starts"),
    [
        ('kind = "vllm"\nmodel = "m"\ninstances = 2', 30),
        ('kind = "vllm"\nmodel = "m"\ninstances = 2\nstart_seconds = 3600', 2),
        ('kind = "vllm"\nmodel = "m"\ninstances = 64', 240),
        ('kind = "emulated"', 240),
    ],
)
def test_starts_an_hour_are_bounded_by_what_a_start_takes(tmp_path: Path, engine: str, starts: int) -> None:
    """A quarter of the time at most; one each at least; what is configured goes before it."""
    text = f"{MINIMAL}[sites.engine]\n{engine}\n"
    _, site = config.load(write(tmp_path, text), None, {})
    assert site.governor_rule().max_starts_per_hour == starts
    _, site = config.load(write(tmp_path, text + "[sites.governor]\nmax_starts_per_hour = 7\n"), None, {})
    assert site.governor_rule().max_starts_per_hour == 7
