"""`heron router` as a process of its own, with stub sites that report to a real Redis every second."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from cli.ports import free_ports
from fleet.store import StoreError
from support.heron_command import HERON
from support.stub_site import StubSite
from support.wait import until

REPORT_SECONDS = 0.3


def is_alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class RouterProcess:
    """A running router; ask it over its ports."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, operations_port: int) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.operations = httpx.AsyncClient(base_url=f"http://127.0.0.1:{operations_port}", timeout=10)

    async def ledger(self) -> dict[str, int]:
        return (await self.operations.get("/heron/v1/ledger")).json()

    async def fleet(self) -> dict[str, Any]:
        return (await self.operations.get("/heron/v1/fleet")).json()

    async def workers(self) -> list[dict[str, Any]]:
        return (await self.fleet())["workers"]

    async def metrics(self) -> dict[str, float]:
        """Series as they stand on the page → value."""
        page = (await self.operations.get("/metrics")).text
        lines = [line for line in page.splitlines() if line and not line.startswith("#")]
        assert len(lines) == len({line.rpartition(" ")[0] for line in lines}), "a series twice"
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}

    async def settled(self) -> dict[str, int]:
        """The ledger once nothing is in flight."""
        ledger = await self.ledger()
        async with asyncio.timeout(10):
            while ledger["in_flight"]:
                ledger = await self.ledger()
        return ledger

    async def until_ready(self, workers: int) -> None:
        """Every worker serves, and a site is known."""
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(httpx.TransportError):
                    response = await self.operations.get("/readyz")
                    if response.status_code == 200 and (
                        workers == 1 or sum(one["is_ready"] for one in await self.workers()) == workers
                    ):
                        return
                assert self.process.returncode is None, "the router ended while it started"
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def router_process(
    redis_server: Any,
    redis_store: Any,
    tmp_path: Path,
    *sites: StubSite,
    workers: int,
    options: str = "",
    fleet: str = "",
) -> AsyncIterator[RouterProcess]:
    """Started, ready, and gone at the end, its workers too."""
    port, operations = free_ports(2)
    file = tmp_path / "fleet.toml"
    file.write_text(
        f'[fleet]\nredis_url = "{redis_server.url}"\n{fleet}\n'
        f"[router]\nport = {port}\noperations_port = {operations}\nworkers = {workers}\n{options}\n"
    )
    for site in sites:
        await site.start()
        await redis_store.publish_site_info(site.site_id, site.info())

    async def report() -> None:
        while True:
            for site in sites:
                with contextlib.suppress(StoreError):  # a test has stopped it
                    await redis_store.publish_site_report(site.site_id, site.report(), time.time())
            await asyncio.sleep(REPORT_SECONDS)

    reporting = asyncio.create_task(report())
    log = (tmp_path / "router.log").open("wb")
    process = await asyncio.create_subprocess_exec(*HERON, "router", "--config", str(file), stderr=log)
    router = RouterProcess(process, port, operations)
    pids: list[int] = []
    try:
        await router.until_ready(workers)
        if workers > 1:
            pids = [one["pid"] for one in await router.workers()]
        yield router
    finally:
        if process.returncode is None:
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()
        await until(lambda: not any(map(is_alive, pids)), what="no worker stays behind")
        await router.operations.aclose()
        reporting.cancel()
        await asyncio.gather(reporting, return_exceptions=True)
        for site in sites:
            await site.stop()
        log.close()
        sys.stdout.write((tmp_path / "router.log").read_text())
