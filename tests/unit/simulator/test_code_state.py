"""Which state of the code a result belongs to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from simulator.code_state import deciding_sources

ROOT = Path(__file__).parents[3]


def state_of(tree: Path) -> str:
    asked = "import simulator.code_state as one; print(one.__file__, one.code_state())"
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    found = subprocess.run(
        [sys.executable, "-P", "-c", asked], env=environment, capture_output=True, text=True, check=True
    )
    path, _, state = found.stdout.strip().rpartition(" ")
    assert Path(path).is_relative_to(tree)
    return state


def copy_of_the_sources(folder: Path) -> Path:
    for path in (*deciding_sources(ROOT), ROOT / "simulator" / "code_state.py"):
        to = folder / path.relative_to(ROOT)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, to)
    return folder


def test_a_compiled_copy_of_the_sources_is_in_their_state(tmp_path: Path) -> None:
    """What scripts/compile makes is a copy with libraries beside the sources: cells of both are the same."""
    copy = copy_of_the_sources(tmp_path)
    (copy / "simulator" / "engine.cpython-311-x86_64-linux-gnu.so").write_bytes(b"\x7fELF")
    assert state_of(copy) == state_of(ROOT)
    (copy / "simulator" / "engine.py").write_text("# another engine\n")
    assert state_of(copy) != state_of(ROOT)


def test_what_decides_nothing_is_not_in_it() -> None:
    """A campaign of hours goes on after a change of a page, a socket or a telemetry source."""
    names = {str(path.relative_to(ROOT)) for path in deciding_sources(ROOT)}
    assert {"simulator/world.py", "site_agent/governor.py", "router/policy/planner/slow.py"} <= names
    assert {"power_feed/server_switch.py", "fleet/capacity.py", "router/live/demand_meter.py"} <= names
    assert not names & {"simulator/plots.py", "power_feed/server_tasks.py", "site_agent/power_loop.py"}
    assert not [name for name in names if name.startswith(("router/workers", "router/console", "cli"))]


def test_a_module_that_a_decision_comes_to_import_is_in_it(tmp_path: Path) -> None:
    """Also where only a function imports it."""
    copy = copy_of_the_sources(tmp_path)
    before = state_of(copy)
    (copy / "site_agent" / "mood.py").write_text("MOOD = 1\n")
    assert state_of(copy) == before
    with (copy / "site_agent" / "worth.py").open("a") as file:
        file.write("\n\ndef mood() -> int:\n    from site_agent.mood import MOOD\n    return MOOD\n")
    imported = state_of(copy)
    (copy / "site_agent" / "mood.py").write_text("MOOD = 2\n")
    assert len({before, imported, state_of(copy)}) == 3
