"""A real process of fake hardware (`python -m site_agent.emulation`) for tests."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

MODEL = "llama-3.1-70b"
PROFILE = "llama-3.1-70b/h100/tp4"
START_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeHardware:
    """The process and its control API."""

    process: asyncio.subprocess.Process
    control_url: str
    control: httpx.AsyncClient

    async def start_engine(self, instance_id: str = "north-0") -> str:
        """Start one engine and return its base URL once it is ready."""
        answer = await self.control.post(f"/engines/{instance_id}/start")
        assert answer.status_code == 200, answer.text
        url = f"http://127.0.0.1:{answer.json()['port']}"
        async with asyncio.timeout(START_SECONDS):
            while await self.state(instance_id) != "ready":  # noqa: ASYNC110 -- another process's
                await asyncio.sleep(0.005)
        return url

    async def stop_engine(self, instance_id: str = "north-0") -> None:
        """Stop one engine."""
        answer = await self.control.post(f"/engines/{instance_id}/stop")
        assert answer.status_code == 200, answer.text

    async def fault(self, kind: str, instance_id: str = "north-0") -> None:
        """Script a fault."""
        answer = await self.control.post(f"/engines/{instance_id}/fault", json={"kind": kind})
        assert answer.status_code == 200, answer.text

    async def describe(self) -> dict[str, Any]:
        """`GET /host`."""
        return dict((await self.control.get("/host")).json())

    async def engine(self, instance_id: str = "north-0") -> dict[str, Any]:
        """What `GET /host` says of one engine."""
        engines = (await self.describe())["engines"]
        return dict(next(engine for engine in engines if engine["instance_id"] == instance_id))

    async def state(self, instance_id: str = "north-0") -> str:
        """One engine's state."""
        return str((await self.engine(instance_id))["state"])

    async def until_running(self, count: int, instance_id: str = "north-0") -> None:
        """Wait until so many requests are in an engine's batch."""
        async with asyncio.timeout(START_SECONDS):
            while (await self.engine(instance_id))["running"] != count:  # noqa: ASYNC110 -- as above
                await asyncio.sleep(0.005)


def settings(**changes: Any) -> dict[str, Any]:
    """One engine of four GPUs that starts at once; `engines` may be a number."""
    values: dict[str, Any] = {
        "site_id": "north",
        "model": MODEL,
        "profile": PROFILE,
        "start_seconds": 0.0,
        "engines": 1,
    } | changes
    if isinstance(values["engines"], int):
        values["engines"] = [
            {"instance_id": f"north-{index}", "gpu_indices": [index * 4 + gpu for gpu in range(4)]}
            for index in range(values["engines"])
        ]
    return values


@contextlib.asynccontextmanager
async def fake_hardware(**changes: Any) -> AsyncIterator[FakeHardware]:
    """Run the process; it ends with its standard input, at the latest when the test does."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "site_agent.emulation", "--config", "-"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(orjson.dumps(settings(**changes)) + b"\n")
        async with asyncio.timeout(START_SECONDS):
            line = await process.stdout.readline()
        url = f"http://127.0.0.1:{orjson.loads(line)['control_port']}"
        async with httpx.AsyncClient(base_url=url, timeout=START_SECONDS) as control:
            yield FakeHardware(process=process, control_url=url, control=control)
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(START_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            raise
