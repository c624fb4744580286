"""Fleets of real engines, one at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.vllm_fleet import VllmFleet, vllm_fleet

from site_agent.drivers import tiny_model

MAX_POSITIONS = 8192
"""Conversations over a shared prefix of 2,000 tokens need more than 2,048."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmFleet]:
    """Started once for each file, which takes half a minute; each test leaves both engines ready."""
    with vllm_fleet(tmp_path_factory.mktemp("vllm"), *vllm_and_model()) as running:
        yield running


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmFleet]:
    """One site with two engines, behind a router."""
    directory = tmp_path_factory.mktemp("pair")
    with vllm_fleet(directory, *vllm_and_model(), sites=("north",), instances=2) as running:
        yield running


def vllm_and_model() -> tuple[str, Path]:
    """The command, and a tiny model made by its environment."""
    command = os.environ["HERON_VLLM_COMMAND"]
    found = shutil.which(command)
    assert found is not None, f"HERON_VLLM_COMMAND={command!r}: there is no such command"
    return found, tiny_model.ensure(
        Path(found), tiny_model.cache_dir(os.environ), max_positions=MAX_POSITIONS
    )
