"""LangChain's OpenAI model and LiteLLM against the router, each a program of its own.

They pin the `openai` package lower than the other tests want it, so they live in an environment of their own,
which `scripts/clients-env` makes and `scripts/test` names in HERON_CLIENTS_PYTHON.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from support.recorded_site import RecordedSite
from support.router_fleet import RouterFleet, router_fleet

SUPPORT = Path(__file__).parents[2] / "support"
PYTHON = os.environ.get("HERON_CLIENTS_PYTHON")
pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        PYTHON is None and os.environ.get("CI") != "true",
        reason='HERON_CLIENTS_PYTHON is not set; run with HERON_CLIENTS_PYTHON="$(scripts/clients-env)"',
    ),
]


@pytest.fixture
async def fleet(store: Any) -> AsyncIterator[RouterFleet]:
    """Two sites with recordings."""
    async with router_fleet(store, "a", "b", make_site=RecordedSite) as running:
        yield running


async def run(program: str, fleet: RouterFleet) -> dict[str, Any]:
    """What the program printed on its last line; its own libraries may say more before."""
    assert PYTHON is not None
    process = await asyncio.create_subprocess_exec(
        PYTHON,
        "-I",
        str(SUPPORT / program),
        fleet.url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()[-3000:]
    value = orjson.loads(out.strip().splitlines()[-1])
    assert isinstance(value, dict)
    return value


async def test_langchain(fleet: RouterFleet):
    """Whole and streamed, tools, structured output, images, Responses, embeddings."""
    said = await run("langchain_program.py", fleet)
    assert said["whole"]
    assert said["streamed"] == said["whole"]
    assert said["tool"] == said["structured"] == {"city": "Oslo"}
    assert said["picture"] is True
    assert said["responses"] == "mil propergedSpecialg exception"
    assert said["embedding"] == [0.5]
    await fleet.settled(completed=7)


async def test_litellm(fleet: RouterFleet):
    """As OpenAI, as vLLM, as Anthropic; asynchronous, streamed, tools, embeddings, an unknown model."""
    said = await run("litellm_program.py", fleet)
    assert said["whole"]
    assert said["asynchronous"] == said["streamed"] == said["hosted_vllm"] == said["whole"]
    assert said["tool"] == {"city": "Oslo"}
    assert said["anthropic"] == "mil propergedSpecialg exception"
    assert said["embedding"] == [0.5]
    assert "Models: tiny." in said["error"]
    await fleet.settled(completed=7, client_error=1)
