"""The systemd units: their commands in the real parser, their keys, and systemd's own check."""

from __future__ import annotations

import configparser
import shlex
import subprocess
from pathlib import Path

import pytest
from support.programs import need

from cli import main
from router.config import RouterConfig
from site_agent.config import SiteConfig
from site_agent.drivers.options import VllmOptions
from site_agent.drivers.vllm import KILL_SECONDS

ROOT = Path(__file__).parents[3]
UNITS = ROOT / "deploy" / "systemd"
UNIT = UNITS / "heron-site.service"
FEED = UNITS / "heron-power-feed.service"
ROUTER = UNITS / "heron-router.service"


def service_of(unit: Path) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(unit.read_text())
    return dict(parser["Service"])


@pytest.fixture
def service() -> dict[str, str]:
    return service_of(UNIT)


def test_the_feed_runs_always_and_without_rights() -> None:
    """Its command is Heron's; it writes nothing anywhere."""
    feed = service_of(FEED)
    program, *arguments = shlex.split(feed["ExecStart"])
    parsed = main.parse(arguments)
    assert (Path(program).name, parsed.command, parsed.action) == ("heron", "power-feed", "run")
    assert (feed["Restart"], feed["User"], feed["ProtectSystem"]) == ("always", "heron", "strict")
    assert "deploy/systemd/heron-power-feed.service" in (ROOT / "docs" / "power_feed.md").read_text()


def test_the_router_runs_always_without_rights_and_ends_what_it_has_begun() -> None:
    """Its command is Heron's; a stop gives requests in flight their grace."""
    service = service_of(ROUTER)
    program, *arguments = shlex.split(service["ExecStart"])
    assert (Path(program).name, main.parse(arguments).command) == ("heron", "router")
    assert (service["Restart"], service["User"], service["ProtectSystem"]) == ("always", "heron", "strict")
    assert service["KillMode"] == "mixed"
    assert float(service["TimeoutStopSec"]) > RouterConfig.model_fields["shutdown_grace_seconds"].default
    assert "systemd/heron-router.service" in (ROOT / "deploy" / "README.md").read_text()


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


@pytest.mark.parametrize("path", [UNIT, FEED, ROUTER], ids=lambda path: path.stem)
def test_systemd_finds_no_fault_in_it(tmp_path: Path, path: Path) -> None:
    """With a command that is there: this machine has no /opt/heron."""
    unit = tmp_path / path.name
    unit.write_text(path.read_text().replace("/opt/heron/bin/heron", "/bin/true"))
    command = [need("systemd-analyze", "systemd"), "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    said = [line for line in (done.stdout + done.stderr).splitlines() if path.stem in line]
    assert (done.returncode, said) == (0, []), done.stderr
