"""The short form of `benchmarks.resume`: streams of real vLLM engines cut at random bytes."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.resume import campaign
from benchmarks.resume.campaign import Group
from benchmarks.resume.fleet import EngineSetting

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not os.environ.get("HERON_VLLM_COMMAND"),
        reason="HERON_VLLM_COMMAND is not set: scripts/test-vllm installs vLLM's CPU build and runs this",
    ),
]

COUNTS: dict[Group, int] = {"exact": 20, "stop": 6, "faithful": 6, "text": 4}
SEED = 1


async def test_a_client_is_told_the_same_wherever_its_stream_is_cut(tmp_path: Path):
    """Text, one id, one role, one finish, one usage, one end; most go on at the other site."""
    results = await campaign.run(
        tmp_path, EngineSetting(command=os.environ["HERON_VLLM_COMMAND"]), COUNTS, seed=SEED
    )
    assert Counter(one.group for one in results) == COUNTS
    assert [(one.kind, one.path, one.difference) for one in results if one.difference] == []
    assert sum("ids" in one.methods for one in results if one.group == "exact") >= COUNTS["exact"] // 3
    assert sum("ids" in one.methods for one in results if one.group == "stop") >= COUNTS["stop"] // 3
    assert [one.methods for one in results if one.group == "text" and "ids" in one.methods] == []
