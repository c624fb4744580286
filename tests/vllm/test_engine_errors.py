"""What goes wrong at a real engine's start is said in words that name the key to change."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from support.processes import pids_with

from fleet.profile import SitePowerModel
from site_agent.drivers import vllm
from site_agent.drivers.interface import DriverContext, InstanceSpec
from site_agent.drivers.options import VllmOptions
from tests.vllm.conftest import vllm_and_model

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not os.environ.get("HERON_VLLM_COMMAND"),
        reason="HERON_VLLM_COMMAND is not set: scripts/test-vllm installs vLLM's CPU build and runs this",
    ),
]

SPEC = InstanceSpec(instance_id="i0", index=0, port=0, model="tiny", gpu_indices=())


class NoRegistry:
    """The test itself ends what it starts."""

    def add(self, label: str, pid: int) -> None: ...
    def remove(self, pid: int) -> None: ...


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cpu_kv_cache_gib": 900}, "out of memory: the machine has less than cpu_kv_cache_gib asks for"),
        (
            {"arguments": ["--max-model-len", "99999"]},
            "--max-model-len is longer than the model's own context",
        ),
    ],
    ids=["memory", "length"],
)
async def test_an_engine_that_cannot_start_says_why(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    """By the words that this build writes into its log, and no process is left."""
    command, model_path = vllm_and_model()
    options = VllmOptions.model_validate(
        {
            "kind": "vllm",
            "model": "tiny",
            "command": [command],
            "model_path": str(model_path),
            "gpus_per_instance": 0,
            "environment": {"OMP_NUM_THREADS": "1", "TEST_OF_HERON": str(tmp_path)},
            **changes,
        }
    )
    context = DriverContext(
        site_id="north",
        state_dir=tmp_path,
        specs=(SPEC,),
        options=options,
        profile=None,
        power_model=SitePowerModel(),
        processes=NoRegistry(),
        environment=os.environ,
    )
    engines = vllm.VllmEngines(context, options)
    try:
        await engines.open()
        await engines.start(SPEC)
        async with asyncio.timeout(240):
            while (why := engines.exit_reason("i0")) is None:
                assert not await engines.is_ready("i0")
                await asyncio.sleep(0.2)
        assert said in why
    finally:
        await engines.aclose()
    assert pids_with(f"TEST_OF_HERON={tmp_path}") == []
