"""One fleet of real engines for all tests here."""

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


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmFleet]:
    """Started once, which takes half a minute; each test leaves both engines ready."""
    command = os.environ["HERON_VLLM_COMMAND"]
    found = shutil.which(command)
    assert found is not None, f"HERON_VLLM_COMMAND={command!r}: there is no such command"
    model_path = tiny_model.ensure(Path(found), tiny_model.cache_dir(os.environ), max_positions=MAX_POSITIONS)
    with vllm_fleet(tmp_path_factory.mktemp("vllm"), found, model_path) as running:
        yield running
