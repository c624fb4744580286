"""Anything that writes a valid SiteReport and answers OpenAI HTTP is a site (DESIGN §4)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI
from support.router_fleet import router_fleet
from support.wait import until

SCRIPT = Path(__file__).parents[2] / "support" / "foreign_site.py"
MESSAGES: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture
def foreign_site(redis_server: Any) -> Iterator[None]:
    """The script, in a process of its own."""
    with subprocess.Popen([sys.executable, "-I", str(SCRIPT), str(redis_server.port)]) as process:
        yield
        process.kill()


@pytest.mark.usefixtures("foreign_site")
async def test_a_foreign_program_is_routed_to(redis_store: Any):
    """It shares no code with the project, has no SiteInfo, and says nothing of its room."""
    async with router_fleet(redis_store, announce=False) as fleet:
        await until(lambda: "foreign" in fleet.router.view.snapshot.sites, what="the site is known")
        async with AsyncOpenAI(base_url=f"{fleet.url}/v1", api_key="x", max_retries=0) as client:
            assert [model.id async for model in client.models.list()] == ["foreign-model"]
            whole = await client.chat.completions.create(model="foreign-model", messages=MESSAGES)
            assert whole.choices[0].message.content == "Hello there"
            stream = await client.chat.completions.create(
                model="foreign-model", messages=MESSAGES, stream=True
            )
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            assert text == "Hello there"
        await fleet.settled(completed=2)
        assert fleet.router.view.snapshot.models["foreign-model"][0].headroom_requests is None


def test_the_script_shares_no_code_with_the_project():
    """Nothing but the standard library."""
    source = SCRIPT.read_text()
    imports = {
        line.split()[1].partition(".")[0] for line in source.splitlines() if line.startswith("import ")
    }
    assert imports <= set(sys.stdlib_module_names)
    assert "from " not in [line[:5] for line in source.splitlines()]
