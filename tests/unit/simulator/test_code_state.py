"""Which state of the code a result belongs to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from simulator.code_state import PACKAGES

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


def test_a_compiled_copy_of_the_sources_is_in_their_state(tmp_path: Path) -> None:
    """What scripts/compile makes is a copy with libraries beside the sources: cells of both are the same."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "router" / "__init__.py").touch()
    (tmp_path / "simulator" / "engine.cpython-311-x86_64-linux-gnu.so").write_bytes(b"\x7fELF")
    assert state_of(tmp_path) == state_of(ROOT)
    (tmp_path / "simulator" / "engine.py").write_text("# another engine\n")
    assert state_of(tmp_path) != state_of(ROOT)
