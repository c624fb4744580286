"""The console over real sockets: its page, its files, their headers, and what they ask for."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from support.router_fleet import RouterFleet, chat, router_fleet
from support.router_process import router_process
from support.stub_site import Behaviour, StubSite
from support.wait import until

from router.live.console import MAX_WATCHERS
from router.live.console_pages import FILES

STREAM = "/heron/v1/console/stream"


async def get(fleet: RouterFleet, path: str) -> Any:
    """From the operations port."""
    return await fleet.client.get(f"{fleet.operations_url}{path}")


@contextlib.asynccontextmanager
async def watching(fleet: RouterFleet) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """The stream's messages, decoded."""
    async with fleet.client.stream("GET", f"{fleet.operations_url}{STREAM}") as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")

        async def messages() -> AsyncIterator[dict[str, Any]]:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    yield orjson.loads(line.removeprefix("data: "))

        yield messages()


async def test_the_page_and_its_files_are_served_with_strict_headers(store: Any) -> None:
    """At / and /console; every file that one names is there, and nothing else."""
    async with router_fleet(store) as fleet:
        for path in ("/", "/console"):
            answer = await get(fleet, path)
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert (await fleet.client.head(f"{fleet.operations_url}{path}")).status_code == 200
        texts = [answer.text]
        for name, kind in FILES.items():
            answer = await get(fleet, f"/console/{name}")
            assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
            assert "content-security-policy" in answer.headers
            texts.append(answer.text)
        named = set(re.findall(r"""(?:href|src)="console/([^"]+)"|from "\./([^"]+)\"""", "\n".join(texts)))
        assert {one or other for one, other in named} == set(FILES)
        for path in ("/console/index.html", "/console/../facts.py", "/console/%2e%2e%2ffacts.py"):
            assert (await get(fleet, path)).status_code == 404
        assert (await fleet.client.get("/")).status_code == 404, "never on the public port"


def test_the_page_asks_nobody_else_and_builds_no_markup_of_texts() -> None:
    """No address of another host, no inline script or style, nothing that parses a text as markup."""
    static = Path(__file__).parents[3] / "router" / "console" / "static"
    for path in static.iterdir():
        text = path.read_text()
        assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text) == [], path.name
        assert not re.search(r"(inner|outer|Adjacent)HTML|document\.write|\beval\(|new Function", text)
        assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=\"", text), path.name


async def test_the_json_tells_the_fleet_and_what_happened(store: Any) -> None:
    """Sites with what was sent there, the ledger, events with numbers."""
    async with router_fleet(store, "a", "b") as fleet:
        await fleet.post(chat())
        await fleet.set_state("b", "draining")
        fleet.router.console.tick()
        answer = await get(fleet, "/heron/v1/console")
        assert answer.headers["cache-control"] == "no-store"
        found = answer.json()
        rows = {row["site_id"]: row for row in found["state"]["rows"]}
        assert (rows["a"]["status"]["name"], rows["b"]["status"]["name"]) == ("serving", "draining")
        assert sum(row["requests"] for row in rows.values()) == 1
        assert found["state"]["traffic"]["totals"]["completed"] == 1
        assert found["state"]["router"]["router_id"] == fleet.router.router_id
        assert any(event["text"].startswith("b is draining") for event in found["events"])
        numbers = [event["number"] for event in found["events"]]
        assert numbers == sorted(set(numbers))


async def test_the_stream_begins_with_everything_and_goes_on_with_what_is_new(store: Any) -> None:
    """A watcher that leaves is noticed; the router stops while others watch."""
    async with router_fleet(store, "a") as fleet:
        console = fleet.router.console
        console.tick()
        async with watching(fleet) as messages:
            first = await anext(messages)
            assert first["trends"] is not None
            assert [row["site_id"] for row in first["state"]["rows"]] == ["a"]
            await fleet.set_state("a", "dark")
            async with asyncio.timeout(10):
                async for message in messages:
                    if any(event["text"].startswith("a is dark") for event in message["events"]):
                        break
            assert message["trends"] is None
            assert console.watchers == 1
        await until(lambda: console.watchers == 0, what="the watcher's place is free")
        async with watching(fleet) as messages:
            await anext(messages)
            async with asyncio.timeout(10):
                await fleet.router.stop()


async def test_too_many_watchers_are_told_to_come_back(store: Any) -> None:
    """503 with Retry-After; the JSON is there for them all the same."""
    async with router_fleet(store, "a") as fleet:
        fleet.router.console.watchers = MAX_WATCHERS
        answer = await get(fleet, STREAM)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert (await get(fleet, "/heron/v1/console")).status_code == 200
        fleet.router.console.watchers = 0


async def test_a_router_with_workers_shows_them_and_what_all_of_them_sent(
    redis_server: Any, redis_store: Any, tmp_path: Path
) -> None:
    """One page of the parent; counts of every worker."""
    async with router_process(redis_server, redis_store, tmp_path, StubSite("a"), workers=2) as router:
        for _ in range(4):
            async with httpx.AsyncClient(base_url=router.url, timeout=10) as client:
                assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200

        async def sent() -> Any:
            found = (await router.operations.get("/heron/v1/console")).json()["state"]
            return found if found["rows"] and found["rows"][0]["requests"] == 4 else None

        async with asyncio.timeout(20):
            while (state := await sent()) is None:  # noqa: ASYNC110 -- another process
                await asyncio.sleep(0.1)
        assert [worker["is_ready"] for worker in state["workers"]] == [True, True]
        assert state["traffic"]["totals"]["completed"] == 4
        assert state["store"]["is_up"] is True


async def test_streams_that_break_off_are_told_of_all_workers_together(
    redis_server: Any, redis_store: Any, tmp_path: Path
) -> None:
    """One line a site and second, whatever the number of workers that had them."""
    site = StubSite("a")
    async with router_process(redis_server, redis_store, tmp_path, site, workers=3) as router:
        site.script.extend(Behaviour(events=3, then="cut") for _ in range(6))

        async def stream() -> None:
            async with httpx.AsyncClient(base_url=router.url, timeout=20) as client:
                await client.post("/v1/chat/completions", json=chat(stream=True))

        await asyncio.gather(*(stream() for _ in range(6)))

        texts: list[str] = []

        async def told() -> int:
            nonlocal texts
            events = (await router.fleet())["events"]
            texts = [event["text"] for event in events if event["kind"] == "resume"]
            return sum(int(text.partition(" ")[0]) for text in texts)

        async with asyncio.timeout(20):
            while await told() < 6:  # noqa: ASYNC110 -- another process
                await asyncio.sleep(0.1)
        assert all(" broke off at a (" in text for text in texts)
        assert len(texts) <= 3


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_file_is_in_the_package(name: str) -> None:
    """The wheel carries what the page needs: it is declared as the package's data."""
    top = Path(__file__).parents[3]
    assert '"router.console" = ["static/*"]' in (top / "pyproject.toml").read_text()
    assert (top / "router" / "console" / "static" / name).is_file()
