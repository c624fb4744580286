"""The router as a process of its own: starts without Redis, serves, and ends well on SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import orjson
from support.router_fleet import chat
from support.stub_site import Behaviour, StubSite
from support.wait import until

from cli.ports import free_ports

MAIN = (
    "import sys, pathlib, uvloop; from router import app, config;"
    "uvloop.run(app.serve(*config.load(pathlib.Path(sys.argv[1]))))"
)


async def test_sigterm_ends_it_after_what_is_under_way(redis_server: Any, redis_store: Any, tmp_path: Path):
    """Not ready, no new connections, the stream whole, exit 0."""
    port, operations = free_ports(2)
    file = tmp_path / "fleet.toml"
    file.write_text(
        f'[fleet]\nredis_url = "{redis_server.url}"\n'
        f"[router]\nport = {port}\noperations_port = {operations}\nshutdown_grace_seconds = 15\n"
    )
    site = StubSite("a")
    await site.start()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", MAIN, str(file))
    async with httpx.AsyncClient(timeout=20) as client:
        try:
            ready = asyncio.Event()

            async def wait_until_ready() -> None:
                while not ready.is_set():
                    await redis_store.publish_site_report("a", site.report(), time.time())
                    try:
                        response = await client.get(f"http://127.0.0.1:{operations}/readyz", timeout=1)
                    except httpx.TransportError:
                        continue
                    if response.status_code == 200:
                        ready.set()

            async with asyncio.timeout(20):
                await wait_until_ready()
            gate = asyncio.Event()
            site.script.append(Behaviour(gate=gate))
            url = f"http://127.0.0.1:{port}/v1/chat/completions"
            async with client.stream("POST", url, content=orjson.dumps(chat(stream=True))) as response:
                pieces = response.aiter_raw()
                data = await anext(pieces)
                process.send_signal(signal.SIGTERM)
                refused = asyncio.Event()

                async def wait_until_refused() -> None:
                    while not refused.is_set():
                        try:
                            _, writer = await asyncio.open_connection("127.0.0.1", port)
                            writer.close()
                        except ConnectionRefusedError:
                            refused.set()
                        except ConnectionResetError:
                            continue  # it was in the backlog when the listener closed

                async with asyncio.timeout(10):
                    await wait_until_refused()
                not_ready = await client.get(f"http://127.0.0.1:{operations}/readyz")
                assert not_ready.json()["reason"] == "shutting down"
                gate.set()
                async for piece in pieces:
                    data += piece
            assert data.endswith(b"data: [DONE]\n\n")
            async with asyncio.timeout(15):
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            await until(lambda: site.running == 0, what="the site is idle")
            await site.stop()
