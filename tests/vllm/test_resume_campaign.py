"""The short form of `benchmarks.resume`: streams of real vLLM engines cut at random bytes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.resume import campaign

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not os.environ.get("HERON_VLLM_COMMAND"),
        reason="HERON_VLLM_COMMAND is not set: scripts/test-vllm installs vLLM's CPU build and runs this",
    ),
]

CUTS = 20
SEED = 1


async def test_a_client_is_told_the_same_wherever_its_stream_is_cut(tmp_path: Path):
    """Text, one id, one role, one finish, one usage, one end; most go on at the other site."""
    results = await campaign.run(tmp_path, os.environ["HERON_VLLM_COMMAND"], cuts=CUTS, kills=0, seed=SEED)
    assert len(results) == CUTS
    assert [(one.kind, one.path, one.difference) for one in results if one.difference] == []
    assert sum(one.resumed for one in results) >= CUTS // 2
