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
        ('site_networks = ["10.0.0.0/99"]', ["site_networks", "10.0.0.0/99"]),
        ("hold_seconds = -1", ["hold_seconds", "-1"]),
        ('auth = "none"', ["auth", "open"]),
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


def test_networks_beyond_this_machine_need_a_site_token(tmp_path: Path):
    """Else anybody there could use the sites."""
    path = write(tmp_path, '[router]\nsite_networks = ["10.0.0.0/8"]\n')
    with pytest.raises(ConfigError, match="site_token"):
        load(path, {})
    assert load(path, {"HERON_FLEET_SITE_TOKEN": "secret"})[1].site_networks == ("10.0.0.0/8",)
