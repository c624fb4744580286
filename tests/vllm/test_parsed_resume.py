"""Streams with reasoning and tool calls of real vLLM engines go on at another, by its own parsers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.resume import parsed
from benchmarks.resume.fleet import EngineSetting

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not os.environ.get("HERON_VLLM_COMMAND"),
        reason="HERON_VLLM_COMMAND is not set: scripts/test-vllm installs vLLM's CPU build and runs this",
    ),
]

CUTS = 18


async def test_a_client_is_told_the_same_reasoning_text_and_calls(tmp_path: Path):
    """Wherever its stream is cut: in the reasoning, in the text, in a call; before what a grammar makes."""
    setting = EngineSetting(command=os.environ["HERON_VLLM_COMMAND"])
    results = await parsed.run(tmp_path, setting, CUTS)
    assert [(one.kind, one.difference) for one in results if one.difference] == []
    assert sum("parsed" in one.methods for one in results) >= CUTS // 2
    assert {one.kind for one in results if "parsed" in one.methods} == set(parsed.KINDS)
