"""End to end: the real command line, real processes, judged by what it writes and what it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.heron_command import HERON, Finished
from support.processes import kill_all_with, pids_with


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[str]:
    """`NAME=value` that every process of this test has in its environment; none may be left at the end.

    Not `HERON_…`: those are configuration, and engines do not get them.
    """
    text = f"TEST_OF_HERON={tmp_path}"
    yield text
    left = pids_with(text)
    kill_all_with(text)
    assert left == [], "the test left processes behind"


@pytest.fixture
def environment(marker: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Of every command that a test starts; run directories go below its own, in a path with a space."""
    name, _, value = marker.partition("=")
    directory = tmp_path / "run directories"
    directory.mkdir()
    yield {**os.environ, name: value, "TMPDIR": str(directory)}
    for log in directory.rglob("*.log"):
        assert "please report this" not in log.read_text(errors="replace"), f"a part failed unforeseen: {log}"


@pytest.fixture
def demo(tmp_path: Path, environment: dict[str, str]) -> Callable[..., Finished]:
    """Run `heron demo --headless` with further arguments, and variables as keywords, to its end."""

    def run(*arguments: str, **variables: str) -> Finished:
        path = tmp_path / "out.json"
        done = subprocess.run(
            [*HERON, "demo", "--headless", "--json", str(path), *arguments],
            env={**environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        summary = json.loads(path.read_text()) if path.exists() else None
        return Finished(code=done.returncode, output=done.stdout, summary=summary)

    return run
