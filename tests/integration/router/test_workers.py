"""A router with several workers, as real processes: even shares, one ledger, and what kills of each do."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import orjson
from support.heron_command import HERON
from support.router_fleet import chat, put_key
from support.router_process import RouterProcess, is_alive, router_process
from support.stub_site import Behaviour, StubSite
from support.wait import until, until_it_says

from cli.ports import free_ports

CONNECTIONS = 64
BODY = orjson.dumps(chat())


async def ask_in_turn(url: str, requests: int) -> list[int]:
    """Statuses of so many requests over one connection; -1: the connection broke."""
    statuses = []
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        for _ in range(requests):
            try:
                statuses.append((await client.post("/v1/chat/completions", content=BODY)).status_code)
            except httpx.TransportError:
                statuses.append(-1)
    return statuses


async def test_64_connections_make_even_shares_and_one_ledger(
    redis_server: Any, redis_store: Any, tmp_path: Path
):
    """Over 4 workers each has a quarter of the connections, and of the requests within 20 %."""
    sites = StubSite("a"), StubSite("b")
    for site in sites:
        site.headroom = 1000
    async with router_process(redis_server, redis_store, tmp_path, *sites, workers=4) as router:
        answers = await asyncio.gather(*(ask_in_turn(router.url, 10) for _ in range(CONNECTIONS)))
        statuses = [status for part in answers for status in part]
        ledger = await router.settled()
        assert statuses.count(200) == len(statuses) == CONNECTIONS * 10
        assert ledger["requests"] == ledger["completed"] == len(statuses)
        shares = [one["requests"] for one in await router.workers()]
        assert sum(shares) == len(statuses)
        assert all(abs(share - 160) <= 32 for share in shares), shares
        page = await router.metrics()
        assert page['heron_router_requests_total{model="m",outcome="completed"}'] == len(statuses)
        assert page['heron_router_e2e_seconds_count{model="m"}'] == len(statuses)
        assert sum(page[f'heron_router_site_requests_total{{site="{site}"}}'] for site in "ab") == len(
            statuses
        )
        assert page["heron_router_workers"] == 4


async def test_a_connection_per_request_makes_even_shares_too(
    redis_server: Any, redis_store: Any, tmp_path: Path
):
    """Connections that leave no count behind go round."""
    site = StubSite("a")
    site.headroom = 1000
    async with router_process(redis_server, redis_store, tmp_path, site, workers=3) as router:
        for _ in range(10):
            answers = await asyncio.gather(*(ask_in_turn(router.url, 1) for _ in range(12)))
            assert [status for part in answers for status in part] == [200] * 12
        shares = [one["requests"] for one in await router.workers()]
        assert sum(shares) == 120
        assert all(abs(share - 40) <= 8 for share in shares), shares
        await until_connections(router, 0)


async def until_connections(router: RouterProcess, count: int) -> None:
    """The parent knows of so many open connections in all."""

    async def known() -> bool:
        return sum(one["connections"] for one in await router.workers()) == count

    await until_it_says(known, what=f"{count} connections")


class Streams:
    """Streams under way, one connection each, that wait at the site's gate after their first event."""

    def __init__(self, url: str, site: StubSite) -> None:
        self.gate = asyncio.Event()
        site.default = Behaviour(gate=self.gate)
        self._url = url
        self._tasks: list[asyncio.Task[bytes]] = []

    async def start(self, count: int) -> None:
        """All of them have begun."""
        begun = [asyncio.Event() for _ in range(count)]
        self._tasks = [asyncio.create_task(self._read(one)) for one in begun]
        async with asyncio.timeout(10):
            await asyncio.gather(*(one.wait() for one in begun))

    async def finish(self) -> tuple[int, int]:
        """Open the gate; how many streams were whole, how many broke."""
        self.gate.set()
        async with asyncio.timeout(20):
            ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        whole = sum(1 for one in ended if isinstance(one, bytes) and one.endswith(b"data: [DONE]\n\n"))
        broken = sum(1 for one in ended if isinstance(one, httpx.TransportError))
        assert whole + broken == len(ended), ended
        return whole, broken

    async def _read(self, begun: asyncio.Event) -> bytes:
        data = b""
        async with (
            httpx.AsyncClient(base_url=self._url, timeout=30) as client,
            client.stream("POST", "/v1/chat/completions", content=orjson.dumps(chat(stream=True))) as answer,
        ):
            async for piece in answer.aiter_raw():
                data += piece
                begun.set()
        return data


async def test_a_killed_worker_takes_only_its_own_streams_with_it(
    redis_server: Any, redis_store: Any, tmp_path: Path
):
    """Two of six: they are counted as failed, once; a new worker serves, and no counter has gone back."""
    site = StubSite("a")
    async with router_process(redis_server, redis_store, tmp_path, site, workers=3) as router:
        await ask_in_turn(router.url, 5)
        await until_connections(router, 0)
        streams = Streams(router.url, site)
        await streams.start(6)
        before = await router.metrics()
        workers = await router.workers()
        assert [one["connections"] for one in workers] == [2, 2, 2]
        os.kill(workers[0]["pid"], signal.SIGKILL)
        await until(lambda: site.running == 4, what="the site has lost two clients")
        await router.until_ready(3)
        assert (await router.workers())[0]["pid"] != workers[0]["pid"]
        assert await streams.finish() == (4, 2)
        site.default = Behaviour()
        answers = await asyncio.gather(*(ask_in_turn(router.url, 2) for _ in range(6)))
        assert [status for part in answers for status in part] == [200] * 12

        ledger = await router.settled()
        assert ledger["requests"] == 5 + 6 + 12
        assert (ledger["completed"], ledger["failed"], ledger["lost"]) == (5 + 4 + 12, 2, 0)
        after = await router.metrics()
        assert after["heron_router_worker_restarts_total"] == 1
        assert after["heron_router_worker_lost_requests_total"] == 2
        assert after['heron_router_requests_total{model="unknown",outcome="failed"}'] == 2
        assert after["heron_router_in_flight_requests"] == 0
        fallen = {
            name: (value, after.get(name))
            for name, value in before.items()
            if "_total" in name or "_bucket" in name or name.endswith(("_count", "_sum"))
            if after.get(name, -1.0) < value
        }
        assert not fallen
        events = (await router.fleet())["events"]
        assert [event["text"] for event in events if event["kind"] == "worker"] == [
            "worker 0 ended (signal 9): it is started again"
        ]


async def test_a_killed_parent_leaves_nothing_behind(redis_server: Any, redis_store: Any, tmp_path: Path):
    """Workers with streams under way end with it, and the port is free again."""
    site = StubSite("a")
    async with router_process(redis_server, redis_store, tmp_path, site, workers=3) as router:
        streams = Streams(router.url, site)
        await streams.start(3)
        pids = [one["pid"] for one in await router.workers()]
        assert all(map(is_alive, pids))
        router.process.kill()
        await router.process.wait()
        await until(lambda: not any(map(is_alive, pids)), what="the workers end")
        assert await streams.finish() == (0, 3)
        await until(lambda: site.running == 0, what="the site is idle")
        listener = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", router.port)
        listener.close()


async def test_sigterm_ends_all_after_what_is_under_way(redis_server: Any, redis_store: Any, tmp_path: Path):
    """Also where the whole group is told, as by Ctrl-C: not ready, no new clients, streams whole, exit 0."""
    site = StubSite("a")
    options = "shutdown_grace_seconds = 15"
    async with router_process(
        redis_server, redis_store, tmp_path, site, workers=2, options=options
    ) as router:
        streams = Streams(router.url, site)
        await streams.start(4)
        pids = [one["pid"] for one in await router.workers()]
        for pid in (*pids, router.process.pid):
            os.kill(pid, signal.SIGTERM)

        async def is_shutting_down() -> bool:
            answer = (await router.operations.get("/readyz")).json()
            return answer.get("reason") == "shutting down"

        async def is_refused() -> bool:
            return await ask_in_turn(router.url, 1) == [-1]

        await until_it_says(is_shutting_down, what="not ready")
        await until_it_says(is_refused, what="no new connections")
        assert (await router.ledger())["in_flight"] == 4
        assert await streams.finish() == (4, 0)
        async with asyncio.timeout(15):
            assert await router.process.wait() == 0


async def test_who_connects_while_workers_start_is_answered_though_the_router_is_stopped(tmp_path: Path):
    """The kernel has taken the connection; it was reset when the port closed before a worker was there."""
    port, operations, nobody = free_ports(3)
    file = tmp_path / "fleet.toml"
    file.write_text(
        f'[fleet]\nredis_url = "redis://127.0.0.1:{nobody}/0"\n'
        f"[router]\nport = {port}\noperations_port = {operations}\nworkers = 2\n"
    )
    process = await asyncio.create_subprocess_exec(*HERON, "router", "--config", str(file))
    try:
        reader, writer = await _connect(port)
        writer.write(b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            answer = await reader.read()
            assert await process.wait() == 0
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200 "), answer
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """As soon as something listens."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.005)


async def test_workers_follow_the_fleet_through_their_parent(
    redis_server: Any, redis_store: Any, tmp_path: Path
):
    """A site's state reaches every worker; with Redis away the parent's polls do, once for all."""
    site = StubSite("a")
    async with router_process(
        redis_server, redis_store, tmp_path, site, workers=3, options="hold_seconds = 0"
    ) as router:
        site.state = "dark"

        async def statuses() -> set[int]:
            answers = await asyncio.gather(*(ask_in_turn(router.url, 1) for _ in range(6)))
            return {one for part in answers for one in part}

        async def all_refuse() -> bool:
            return await statuses() == {503}

        async def all_serve() -> bool:
            return await statuses() == {200}

        await until_it_says(all_refuse, what="all refuse")
        redis_server.stop()
        site.state = "serving"
        await until_it_says(all_serve, what="all serve again", seconds=60)
        polls = (await router.metrics())['heron_router_report_polls_total{result="ok"}']
        assert 0 < polls <= site.reports_asked
        redis_server.start()


async def test_workers_ask_for_the_keys_that_their_parent_reads(
    redis_server: Any, redis_store: Any, tmp_path: Path
):
    """A key that is made opens every worker, a new one too; one that is revoked opens none."""
    site = StubSite("a")
    async with router_process(
        redis_server, redis_store, tmp_path, site, workers=2, options='auth = "keys"'
    ) as router:

        async def statuses() -> set[int]:
            """Of a new connection each, so that both workers are asked."""
            found = set()
            for _ in range(4):
                async with httpx.AsyncClient(base_url=router.url, timeout=30) as client:
                    headers = {"authorization": "Bearer sk-heron-test"}
                    answer = await client.post("/v1/chat/completions", content=BODY, headers=headers)
                    found.add(answer.status_code)
            return found

        async def all_open() -> bool:
            return await statuses() == {200}

        async def all_closed() -> bool:
            return await statuses() == {401}

        assert await statuses() == {401}
        await put_key(redis_store, "sk-heron-test")
        await until_it_says(all_open, what="both workers know the key")
        os.kill((await router.workers())[0]["pid"], signal.SIGKILL)
        await until_it_says(all_open, what="what is left serves")
        await router.until_ready(2)
        assert await statuses() == {200}
        await put_key(redis_store, "sk-heron-test", revoked_at_unix_seconds=1.0)
        await until_it_says(all_closed, what="both workers have heard")
        assert (await router.metrics())["heron_router_auth_open"] == 0
