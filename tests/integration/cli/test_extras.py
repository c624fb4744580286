"""A plain `pip install .` runs every service: an extra is imported by its users only."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
IMPORTED_AS = {"nvidia-ml-py": "pynvml"}
BLOCKED = """
import sys
for name in {names!r}:
    sys.modules[name] = None
import {module}
"""


def extras() -> list[str]:
    """Import names of every optional dependency."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    optional = {
        one.partition(">=")[0] for extra in project["optional-dependencies"].values() for one in extra
    }
    return [*sorted(IMPORTED_AS.get(name, name) for name in optional), "numpy"]


@pytest.mark.parametrize(
    "module", ["cli.main", "cli.services", "cli.up", "router.app", "site_agent.app", "power_feed.app"]
)
def test_a_service_is_imported_without_any_extra(module: str) -> None:
    """As in a service's own image, which has no extra."""
    names = extras()
    assert {"highspy", "matplotlib", "pynvml", "asyncua"} <= set(names)
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(names=names, module=module)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
