"""The systemd unit: its command in the real parser, its keys, and systemd's own check."""

from __future__ import annotations

import configparser
import shlex
import subprocess
from pathlib import Path

import pytest
from support.programs import need

from cli import main
from site_agent.config import SiteConfig
from site_agent.drivers.options import VllmOptions
from site_agent.drivers.vllm import KILL_SECONDS

ROOT = Path(__file__).parents[3]
UNIT = ROOT / "deploy" / "systemd" / "heron-site.service"


@pytest.fixture
def service() -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text())
    return dict(parser["Service"])


def test_a_stop_is_the_agents_alone_and_has_the_time_that_it_takes(service: dict[str, str]) -> None:
    """A signal to every engine would cut the streams that may finish within the grace."""
    assert service["KillMode"] == "mixed"
    assert service["KillSignal"] == "SIGTERM"
    grace = SiteConfig.model_fields["shutdown_grace_seconds"].default
    engine = VllmOptions.model_fields["stop_grace_seconds"].default
    assert float(service["TimeoutStopSec"]) > grace + engine + KILL_SECONDS
    assert service["Restart"] == "always"


def test_its_command_is_one_of_herons(service: dict[str, str]) -> None:
    """As the real command line reads it."""
    program, *arguments = shlex.split(service["ExecStart"])
    assert Path(program).name == "heron"
    parsed = main.parse(arguments)
    assert (parsed.command, parsed.site) == ("site-agent", "north")
    assert str(parsed.config) == "/etc/heron/fleet.toml"


def test_the_page_says_what_the_unit_does() -> None:
    """docs/site.md names the file and the two keys that matter."""
    page = (ROOT / "docs" / "site.md").read_text()
    assert "deploy/systemd/heron-site.service" in page
    for line in ("KillMode=mixed", "TimeoutStopSec=60"):
        assert line in page
        assert line in UNIT.read_text()


def test_systemd_finds_no_fault_in_it(tmp_path: Path) -> None:
    """With a command that is there: this machine has no /opt/heron."""
    unit = tmp_path / "heron-site.service"
    unit.write_text(UNIT.read_text().replace("/opt/heron/bin/heron", "/bin/true"))
    command = [need("systemd-analyze", "systemd"), "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "heron-site" in line]
    assert (done.returncode, said) == (0, []), done.stderr
