"""Sites whose streams are damaged in any byte: the client's ends all the same, and nothing breaks inside."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from support import toy_engine
from support.recorded_site import EVENTS, RecordedSite, Reply, recorded
from support.router_fleet import RouterFleet, chat, router_fleet
from support.stub_site import Behaviour, StubSite

CASES = 25
BODY = chat(prompt="hello", input="hi", stream=True, stream_options={"include_usage": True})
MARKS = (b"\n\n", b"\r", b"\0", b"\xff", b"data: ", b"[DONE]")
PIECES = (*MARKS, b'"', b"{", b"}", b"]", b"null", b"-1", b"\\u")


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, gone, doubled, or others among them."""
    for _ in range(rng.randint(1, 4)):
        at, length = rng.randrange(len(data)), rng.randrange(12)
        put = rng.choice((b"", rng.randbytes(length), rng.choice(PIECES), data[at : at + length] * 2))
        data = data[:at] + put + data[at + length :]
    return data


class DamagedSite(StubSite):
    """Its streams, continuations too, come damaged, and in pieces that end anywhere."""

    rng: random.Random

    async def _stream(
        self,
        writer: asyncio.StreamWriter,
        behaviour: Behaviour,
        path: str,
        raw: bytes,
    ) -> bool:
        data = damaged(b"".join(toy_engine.answer(path, raw)), self.rng)
        while data:
            size = self.rng.randint(1, 400)
            writer.write(b"%x\r\n%b\r\n" % (len(data[:size]), data[:size]))
            data = data[size:]
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


async def ask_often(fleet: RouterFleet, path: str, body: dict[str, Any], caplog: Any) -> None:
    for _ in range(CASES):
        response = await fleet.post(body, path)
        assert response.status_code in (200, 400, 500, 502, 503), response.text
        if response.status_code == 200:
            assert response.content.endswith(b"\n\n"), response.content[-200:]
        await fleet.announce()
        for entry in fleet.router.view.registry.entries.values():
            entry.breaker._close()
    await fleet.settled()
    assert not [one.message for one in caplog.records if "inside the router" in one.message], caplog.text


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_a_damaged_stream_that_may_go_on_elsewhere(store: Any, path: str, seed: int, caplog: Any):
    """Whole, continued, or with a stated error; every count returns to zero."""
    rng = random.Random(f"{path} {seed}")
    options: dict[str, Any] = {"resume_wait_seconds": 0.2, "hold_seconds": 0.2}
    async with router_fleet(store, "a", "b", "c", make_site=DamagedSite, **options) as fleet:
        for site in fleet.sites:
            assert isinstance(site, DamagedSite)
            site.rng = rng
        await ask_often(fleet, path, BODY | {"return_token_ids": seed == 1}, caplog)


@pytest.mark.parametrize("name", ["messages", "messages_tool", "responses"])
async def test_a_damaged_stream_that_is_not_continued(store: Any, name: str, caplog: Any):
    """Anthropic's and the Responses API: passed on, asked for anew, or with a stated error."""
    rng = random.Random(name)
    whole = recorded(f"{name}.sse")
    async with router_fleet(store, "a", "b", make_site=RecordedSite, hold_seconds=0.2) as fleet:
        for site in fleet.sites:
            assert isinstance(site, RecordedSite)
            site.override = lambda _asked: Reply(content_type=EVENTS, body=damaged(whole, rng))
        await ask_often(fleet, f"/v1/{name.partition('_')[0]}", BODY | {"model": "tiny"}, caplog)
