"""A batch that is interrupted goes on where it was: finished cells are kept, the one under way is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.scenes import no_file

from simulator.batch import Store, run_batch
from simulator.cell import Cell, Sample

CELL = Cell(
    wind="synthetic-far",
    first_day=1,
    last_day=1,
    trace="synthetic-conv",
    sample=Sample.parse("1d:90s:30s"),
    load=0.1,
    policy="round_robin",
)
CELLS = [CELL.with_(seed=seed) for seed in (1, 2, 3)]
PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from integration.simulator.test_batch import CELLS, no_file
from simulator.batch import Store, run_batch

if __name__ == "__main__":
    for cell, _ in run_batch(CELLS, no_file, jobs=1, store=Store(Path({store!r}), no_file)):
        print("done", cell.seed, flush=True)
        {then}
"""


TO_WORKERS = (
    "import os, signal; "
    "[os.kill(int(p), signal.{signal}) for p in "
    "open(f'/proc/{{os.getpid()}}/task/{{os.getpid()}}/children').read().split()]"
)


def started(tmp_path: Path, then: str) -> subprocess.Popen[str]:
    """A batch in a process of its own, that says which cell is done."""
    tests = str(Path(__file__).resolve().parents[2])
    program = tmp_path / "batch.py"
    program.write_text(PROGRAM.format(tests=tests, store=str(tmp_path / "store"), then=then))
    return subprocess.Popen(
        [sys.executable, str(program)],
        cwd=Path(__file__).resolve().parents[3],
        env=os.environ | {"PYTHONPATH": f"{Path(__file__).resolve().parents[3]}{os.pathsep}{tests}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def kept(tmp_path: Path) -> list[int]:
    """Seeds of the cells that are there, whole."""
    store = Store(tmp_path / "store", no_file)
    assert not list((tmp_path / "store").rglob("*.part"))
    return [cell.seed for cell in CELLS if store.find(cell) is not None]


def go_on(tmp_path: Path) -> list[int]:
    """Run the batch to its end; seeds of the cells that had to be run."""
    store = Store(tmp_path / "store", no_file)
    before = kept(tmp_path)
    found = dict(run_batch(CELLS, no_file, jobs=1, store=store))
    assert sorted(cell.seed for cell in found) == [1, 2, 3]
    return [seed for seed in kept(tmp_path) if seed not in before]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_batch_goes_on(tmp_path: Path, how: signal.Signals) -> None:
    """By Ctrl-C, or killed: what was done is found, the rest is run, and no worker is left behind."""
    stopped = TO_WORKERS.format(signal="SIGSTOP") + "; print('stopped', flush=True); signal.pause()"
    process = started(tmp_path, stopped)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["done 1\n", "stopped\n"]
    os.killpg(process.pid, how) if how is signal.SIGINT else process.kill()
    os.killpg(process.pid, signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert 1 in kept(tmp_path)
    assert 3 in go_on(tmp_path)
    assert kept(tmp_path) == [1, 2, 3]


def test_a_worker_that_dies_ends_the_batch_and_loses_nothing_that_was_done(tmp_path: Path) -> None:
    """With an error; the next run goes on."""
    process = started(tmp_path, TO_WORKERS.format(signal="SIGKILL"))
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "BrokenProcessPool" in errors
    assert 1 in kept(tmp_path)
    assert 3 in go_on(tmp_path)
    assert kept(tmp_path) == [1, 2, 3]
