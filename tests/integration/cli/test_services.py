"""`heron router`, `site-agent`, `power-feed` as processes: configuration errors and a port in use."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest
from support.heron_command import HERON

FLEET = """
[router]
port = {port}
operations_port = 0
[power_feed]
port = {port}
[[power_feed.farms]]
farm_id = "f"
site_id = "north"
nameplate_watts = 20000
source = {{ kind = "synthetic" }}
[[sites]]
site_id = "north"
farm_id = "f"
port = {port}
state_dir = "state"
[[sites]]
site_id = "coast"
farm_id = "g"
port = {port}
state_dir = "state2"
"""


def heron(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HERON, *arguments],
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        (
            ["router", "--config", "missing.toml"],
            {},
            "missing.toml: cannot be read: No such file",
        ),
        (["router"], {"HERON_ROUTER_PORT": "70000"}, "environment HERON_ROUTER_PORT: [router] port = 70000"),
        (["router"], {"HERON_ROUTER_POLICY": "best"}, "policy = 'best': allowed are"),
        (["site-agent", "--config", "fleet.toml"], {}, "has 2 sites; say which: --site north | coast"),
        (["site-agent", "--config", "fleet.toml", "--site", "ridge"], {}, "no site_id = 'ridge'"),
        (["power-feed"], {}, "[power_feed] farms: is missing and has no default"),
        (["router"], {"HERON_CONFIG": "broken.toml"}, "broken.toml: not TOML"),
    ],
)
def test_configuration_errors_exit_2_with_one_line_each(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], message: str
) -> None:
    """File or variable, key, value and what is allowed, on stderr, without a traceback."""
    (tmp_path / "fleet.toml").write_text(FLEET.format(port=9001))
    (tmp_path / "broken.toml").write_text("[router\n")
    done = heron(*arguments, cwd=tmp_path, **variables)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["router"], ["power-feed"]])
def test_a_port_in_use_is_said_in_one_line(tmp_path: Path, arguments: list[str]) -> None:
    """The message has the address; exit 1; no traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (tmp_path / "fleet.toml").write_text(FLEET.format(port=port))
        done = heron(*arguments, "--config", "fleet.toml", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert f"heron {arguments[0]}: " in done.stderr
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr
