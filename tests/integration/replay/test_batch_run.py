"""The run of a batch against a server on a real socket that fails in every way."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from support import openai_stub
from support.openai_stub import Body, OpenAIStub, serving
from support.wait import until

from cli.ports import free_ports
from replay.batch import pace, run
from replay.batch.lines import BatchRequest
from replay.batch.run import BatchPlan, BatchRun, KeyRefusedError, Tally, UnreachableError
from replay.client import Endpoint


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No second is waited where nobody says how long."""
    monkeypatch.setattr(pace, "FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(pace, "MAX_DELAY_SECONDS", 0.05)


def request(number: int) -> BatchRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": f"r-{number}"}], "max_tokens": 3}
    return BatchRequest(custom_id=f"r-{number}", url="/v1/chat/completions", body=body)


class Batch:
    """A run of so many requests; its lines by id."""

    def __init__(self, url: str, count: int, **plan: Any) -> None:
        self.lines: dict[str, Any] = {}
        self.stop, self.urgent = asyncio.Event(), asyncio.Event()
        given = {"tier": "flex", "concurrency": 4, "within_seconds": 60.0, "timeout_seconds": 60.0} | plan
        self.run = BatchRun(
            BatchPlan(endpoint=Endpoint.parse(url), **given),
            iter([request(number) for number in range(count)]),
            lambda outcome: self._take(json.loads(outcome.line)),
            rng=Random(1),
        )

    def _take(self, line: dict[str, Any]) -> None:
        assert self.lines.setdefault(line["custom_id"], line) is line

    async def go(self) -> Tally:
        return await self.run.run(self.stop, self.urgent)


def first_then(first: str, times: int, then: str = "complete") -> Callable[[Body], str]:
    """Each request meets `first` so often."""
    met: Counter[str] = Counter()

    def choose(body: Body) -> str:
        who = body["messages"][0]["content"]
        met[who] += 1
        return first if met[who] <= times else then

    return choose


@pytest.mark.parametrize("behaviour", ["status_500", "status_503", "status_429", "cut_before_head"])
async def test_what_may_pass_is_tried_again(behaviour: str) -> None:
    """A server that fails, refuses without saying until when, or hangs up: answered in the end."""
    async with serving(first_then(behaviour, 2)) as stub:
        batch = Batch(stub.url, 6)
        tally = await batch.go()
    assert (tally.completed, tally.failed, tally.in_flight) == (6, 0, 0)
    assert stub.behaviours == {behaviour: 12, "complete": 6}
    assert 6 < tally.retries <= 12  # a pooled connection that turns out closed is replaced by the pool itself
    assert (tally.prompt_tokens, tally.output_tokens) == (6, 18)
    assert all(body["service_tier"] == "flex" for body in stub.bodies)


@pytest.mark.parametrize(
    ("behaviour", "tries", "status", "code"),
    [
        ("status_400", 1, 400, None),
        ("status_500", pace.MAX_TRIES, 500, None),
        ("cut_before_head", pace.MAX_TRIES, None, "connection_error"),
        ("garbage_answer", 1, None, "answer_not_json"),
    ],
)
async def test_what_does_not_pass_is_written(
    behaviour: str, tries: int, status: int | None, code: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server said last, or that it said nothing."""
    if behaviour == "garbage_answer":
        monkeypatch.setattr(openai_stub, "_write_whole", _garbage)
    async with serving(lambda _: behaviour) as stub:
        batch = Batch(stub.url, 2)
        tally = await batch.go()
    assert (tally.completed, tally.failed) == (0, 2)
    assert stub.behaviours[behaviour] == 2 * tries
    for line in batch.lines.values():
        assert (line["response"] or {}).get("status_code") == status
        assert (line["error"] or {}).get("code") == code


def _garbage(writer: asyncio.StreamWriter, _body: Body) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nsound")


async def test_an_answer_that_takes_too_long_is_a_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI's word for it."""
    monkeypatch.setattr(run, "MAX_TRIES", 1)
    async with serving(lambda _: "hang") as stub:
        batch = Batch(stub.url, 1, timeout_seconds=0.1)
        tally = await batch.go()
    assert tally.failed == 1
    assert batch.lines["r-0"]["error"]["code"] == "request_timeout"


async def test_a_router_that_is_away_is_waited_for() -> None:
    """Once it was there: no request fails for it."""
    (port,) = free_ports(1)
    stub = OpenAIStub(lambda _: "complete")
    writers: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await stub.handle(reader, writer)

    server = await asyncio.start_server(handle, "127.0.0.1", port)
    batch = Batch(f"http://127.0.0.1:{port}", 400, concurrency=1)
    going = asyncio.create_task(batch.go())
    await until(lambda: len(batch.lines) >= 3, what="some answers")
    server.close()
    for writer in writers:
        writer.transport.abort()
    await until(lambda: batch.run.tally.waiting_for == "unreachable", what="it waits")
    await until(lambda: batch.run.tally.retries >= 6, what="more tries than are hopeless at first")
    before = len(batch.lines)
    server = await asyncio.start_server(handle, "127.0.0.1", port)
    tally = await going
    server.close()
    assert before < 400
    assert (tally.completed, tally.failed) == (400, 0)
    assert tally.waited_seconds["unreachable"] > 0


async def test_nobody_at_the_address_ends_it() -> None:
    """With words that say what to look at; nothing is written."""
    (port,) = free_ports(1)
    batch = Batch(f"http://127.0.0.1:{port}", 9)
    with pytest.raises(UnreachableError, match="is --base-url right, and does the router run"):
        await batch.go()
    assert batch.lines == {}


async def test_a_key_that_is_refused_meanwhile_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was answered before stands; what is under way is given up."""
    monkeypatch.setitem(openai_stub._STATUS, "status_401", 401)
    async with serving(
        lambda body: "complete" if body["messages"][0]["content"] < "r-3" else "status_401"
    ) as stub:
        batch = Batch(stub.url, 9, concurrency=1)
        with pytest.raises(KeyRefusedError, match=r"the router refuses the key \(401 c401\): stated"):
            await batch.go()
    assert sorted(batch.lines) == ["r-0", "r-1", "r-2"]


async def test_a_file_that_cannot_be_written_any_more_ends_it() -> None:
    """The error is the caller's to tell; no connection stays open."""
    async with serving(lambda _: "complete") as stub:
        batch = Batch(stub.url, 9)

        def full(_line: dict[str, Any]) -> None:
            raise OSError(28, "No space left on device", "out.jsonl")

        batch._take = full  # type: ignore[method-assign]
        with pytest.raises(OSError, match="No space left"):
            await batch.go()
        assert batch.run._pool.open_connections == 0


async def test_a_stop_lets_what_is_under_way_end() -> None:
    """Within the grace; nothing more is sent."""
    gate = asyncio.Event()
    async with serving(lambda _: "complete") as stub:
        serve_one = stub._serve_one

        async def gated(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
            await gate.wait()
            return await serve_one(reader, writer)

        stub._serve_one = gated  # type: ignore[method-assign]
        batch = Batch(stub.url, 9)
        going = asyncio.create_task(batch.go())
        await until(lambda: batch.run.tally.in_flight == 4, what="four under way")
        batch.stop.set()
        await until(lambda: batch.run._is_stopping)
        gate.set()
        tally = await going
    assert (tally.completed, len(batch.lines)) == (4, 4)
    assert tally.in_flight == 0


async def test_the_time_is_over_for_all_that_is_left() -> None:
    """What is under way, what waits, and what was not read yet; in the order of the file."""
    async with serving(lambda _: "hang") as stub:
        batch = Batch(stub.url, 9, within_seconds=0.2)
        tally = await batch.go()
        await until(lambda: stub.clients_gone == 4, what="the server was told")
    assert (tally.expired, tally.done, tally.in_flight) == (9, 9, 0)
    assert list(batch.lines) == [f"r-{number}" for number in range(9)]
