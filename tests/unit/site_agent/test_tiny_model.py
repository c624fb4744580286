"""How the tiny model gets into the cache; the making itself, which needs torch, is in tests/vllm."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from site_agent.drivers import tiny_model

MAKES = 'echo "$@" > "$3/arguments"'
FAILS = "echo 'no torch here' >&2; exit 1"


def vllm_beside(interpreter: str | None, directory: Path) -> Path:
    """The path of a `vllm` whose environment has this shell script for its python."""
    directory.mkdir()
    if interpreter is not None:
        python = directory / "python"
        python.write_text(f"#!/bin/sh\n{interpreter}\n")
        python.chmod(python.stat().st_mode | stat.S_IXUSR)
    command = directory / "vllm"
    command.touch()
    return command


def test_the_model_is_made_by_the_interpreter_beside_vllm(tmp_path: Path):
    """It runs isolated, so that this folder's vllm.py cannot stand in for the real package."""
    command = vllm_beside(MAKES, tmp_path / "with space")
    made = tiny_model.ensure(command, tmp_path / "cache", max_positions=8192)
    words = (made / "arguments").read_text().split()
    assert words[0] == "-I"
    assert words[-2:] == ["--max-positions", "8192"]
    assert [entry.name for entry in made.parent.iterdir()] == [made.name]


def test_a_model_that_is_there_is_not_made_again(tmp_path: Path):
    """The second call needs no interpreter at all."""
    made = tiny_model.ensure(vllm_beside(MAKES, tmp_path / "bin"), tmp_path / "cache")
    assert tiny_model.ensure(vllm_beside(None, tmp_path / "other"), tmp_path / "cache") == made


def test_lengths_are_kept_apart(tmp_path: Path):
    """A model for longer prompts is another model."""
    command = vllm_beside(MAKES, tmp_path / "bin")
    short, long = (
        tiny_model.ensure(command, tmp_path / "cache", max_positions=positions) for positions in (2048, 8192)
    )
    assert short != long


def test_a_missing_interpreter_is_named(tmp_path: Path):
    """The message says which file was looked for."""
    command = vllm_beside(None, tmp_path / "bin")
    with pytest.raises(tiny_model.TinyModelError, match=r"bin/python: no such interpreter"):
        tiny_model.ensure(command, tmp_path / "cache")


def test_a_failed_making_tells_why_and_leaves_nothing(tmp_path: Path):
    """The other interpreter's last words are in the message, and the next try starts clean."""
    with pytest.raises(tiny_model.TinyModelError, match="no torch here"):
        tiny_model.ensure(vllm_beside(FAILS, tmp_path / "bin"), tmp_path / "cache")
    assert list((tmp_path / "cache" / "models").iterdir()) == []


@pytest.mark.parametrize("positions", [63, 131_073])
def test_lengths_out_of_bounds_are_refused(tmp_path: Path, positions: int):
    """Before anything is imported or written."""
    with pytest.raises(ValueError, match="max_positions"):
        tiny_model.make(tmp_path, max_positions=positions)


def test_the_cache_is_where_the_user_wants_it(tmp_path: Path):
    """XDG_CACHE_HOME, else ~/.cache."""
    assert tiny_model.cache_dir({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "heron"
    assert tiny_model.cache_dir({}) == Path.home() / ".cache" / "heron"
