"""`[router]`: defaults, environment, and errors that say what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.config import ConfigError
from router.config import load


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    return path


def test_everything_has_a_default():
    """`heron router` starts without a file."""
    fleet, config = load(None, {})
    assert (fleet.name, config.port, config.operations_port) == ("default", 8000, 8001)
    assert all(network.is_loopback for network in config.networks)


def test_the_environment_goes_over_the_file(tmp_path: Path):
    """One key each."""
    path = write(tmp_path, '[router]\nport = 9000\npolicy = "round_robin"\n')
    _, config = load(path, {"HERON_ROUTER_PORT": "9100", "HERON_ROUTER_HOLD_SECONDS": "1.5"})
    assert (config.port, config.policy, config.hold_seconds) == (9100, "round_robin", 1.5)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("port = 70000", ["port", "70000", "65535"]),
        ('policy = "magic"', ["policy", "magic", "least_loaded"]),
        ("policy_parameters.heron.speed = 1", ["heron.speed = 1", "no such parameter", "packing"]),
        ("policy_parameters.heron.packing = 3", ["heron.packing", "less than or equal to 1"]),
        ("policy_parameters.magic.speed = 1", ["magic", "least_loaded"]),
        ('site_networks = ["10.0.0.0/99"]', ["site_networks", "10.0.0.0/99"]),
        ("hold_seconds = -1", ["hold_seconds", "-1"]),
        ('auth = "none"', ["auth", "open"]),
        ('cors_origins = ["https://a.example/"]', ["cors_origins", "https://a.example/", "scheme://host"]),
        ('cors_origins = ["a.example"]', ["cors_origins", "a.example"]),
        ("colour = 1", ["colour", "no such key"]),
    ],
)
def test_an_error_names_file_key_value_and_what_is_allowed(tmp_path: Path, line: str, words: list[str]):
    """In one line."""
    path = write(tmp_path, f"[router]\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    for word in [str(path), "[router]", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "router.example"])  # noqa: S104
def test_a_router_that_others_can_reach_says_who_may_use_it(tmp_path: Path, host: str):
    """No router is open because nobody thought of it."""
    path = write(tmp_path, f'[router]\nhost = "{host}"\n')
    with pytest.raises(ConfigError, match="heron keys add"):
        load(path, {})
    for auth in ("keys", "open"):
        assert load(path, {"HERON_ROUTER_AUTH": auth})[1].auth == auth


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_on_this_machine_alone_a_router_is_open_unless_told_otherwise(tmp_path: Path, host: str):
    """As the demo is."""
    assert load(write(tmp_path, f'[router]\nhost = "{host}"\n'), {})[1].auth == "open"


def test_an_slo_is_set_by_request_class(tmp_path: Path):
    """One table each; another class than the nine is an error."""
    path = write(tmp_path, "[router.slo.SS]\nttft_seconds = 1.5\n[router.slo.LL]\ne2e_seconds = 60\n")
    slo = load(path, {})[1].slo
    assert (slo["SS"].ttft_seconds, slo["SS"].e2e_seconds, slo["LL"].e2e_seconds) == (1.5, None, 60)
    with pytest.raises(ConfigError, match="slo"):
        load(write(tmp_path, "[router.slo.XXL]\nttft_seconds = 1\n"), {})


def test_networks_beyond_this_machine_need_a_site_token(tmp_path: Path):
    """Else anybody there could use the sites."""
    path = write(tmp_path, '[router]\nsite_networks = ["10.0.0.0/8"]\n')
    with pytest.raises(ConfigError, match="site_token"):
        load(path, {})
    assert load(path, {"HERON_FLEET_SITE_TOKEN": "secret"})[1].site_networks == ("10.0.0.0/8",)


def test_parameters_of_policies_come_from_the_file_or_one_of_their_own(tmp_path: Path):
    """The file of their own is a table for each; it takes the place of all in the fleet's file."""
    path = write(tmp_path, "[router.policy_parameters.power_weighted]\nage_seconds = 60\n")
    own = tmp_path / "policies.toml"
    own.write_text("[heron]\npacking = 0.5\n")
    assert load(path, {})[1].policy_parameters == {"power_weighted": {"age_seconds": 60}}
    assert load(path, {}, parameters=own)[1].policy_parameters == {"heron": {"packing": 0.5}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["cannot be read"]),
        ("[heron", ["not TOML"]),
        ("[magic]", ["no policy 'magic'", "round_robin"]),
        ("heron = 3", ["must be a table"]),
        ("[heron]\nspeed = 1", ["heron.speed", "packing"]),
    ],
)
def test_an_error_in_the_file_of_parameters_names_it(tmp_path: Path, text: str | None, words: list[str]):
    """And what is allowed."""
    own = tmp_path / "policies.toml"
    if text is not None:
        own.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(None, {}, parameters=own)
    for word in [str(own), *words]:
        assert word in str(caught.value)
