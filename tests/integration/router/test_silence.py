"""Sites that the network has swallowed: nothing comes back, not even a refusal."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from support import toy_engine
from support.full_listener import FullListener
from support.router_fleet import chat, router_fleet
from support.stub_site import Behaviour, stop_after
from support.wait import until

from router.live import lookout


async def test_a_connection_that_does_not_come_in_time_is_a_failure(store: Any):
    """The request goes to another site; the breaker counts it as any dead site's."""
    async with router_fleet(store, "a", "b", connect_timeout_seconds=0.3) as fleet:
        a, b = fleet.sites
        await a.stop()
        with FullListener(a.port):
            b.headroom = 0
            await fleet.announce()
            asking = asyncio.create_task(fleet.post(chat()))
            entry = fleet.router.view.registry.entries["a"]
            await until(lambda: entry.requests == 1, what="it was sent to the site that is gone")
            b.headroom = 40
            await fleet.announce()
            assert (await asking).status_code == 200
            assert entry.results["failed"] == 1
            assert len(b.inference) == 1
            totals = await fleet.settled(completed=1)
            assert totals["retried"] == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("is_pooled", [False, True])
async def test_what_waits_at_a_silent_site_is_cut_and_goes_elsewhere(
    store: Any, monkeypatch: pytest.MonkeyPatch, stream: bool, is_pooled: bool
):
    """Its report has expired and nobody answers there: minutes of waiting would be in vain."""
    monkeypatch.setattr(lookout, "EXPIRED_SECONDS", 0.5)
    async with router_fleet(store, "a", "b", connect_timeout_seconds=0.3) as fleet:
        a, b = fleet.sites
        b.headroom = 0
        await fleet.announce()
        for _ in range(is_pooled):
            assert (await fleet.post(chat())).status_code == 200
        a.script.append(stop_after(1, "hang") if stream else Behaviour(hang=True))
        asking = asyncio.create_task(fleet.post(chat(stream=stream)))
        await until(lambda: a.running == 1, what="the request is there")
        a.stop_listening()
        with FullListener(a.port):
            b.headroom = 40
            await fleet.announce(b)
            answer = await asking
        assert answer.status_code == 200
        assert (len(a.inference), len(b.inference)) == (1 + is_pooled, 1)
        if stream:
            raw = orjson.dumps(chat(stream=True))
            assert answer.content == b"".join(toy_engine.answer("/v1/chat/completions", raw))
        totals = await fleet.settled(completed=1 + is_pooled)
        assert totals["retried"] == 1


@pytest.mark.parametrize("is_refusing", [False, True])
async def test_what_waits_at_a_site_that_can_be_reached_goes_on(
    store: Any, monkeypatch: pytest.MonkeyPatch, is_refusing: bool
):
    """Its link to Redis may be down, or it takes no more while it finishes what it has."""
    monkeypatch.setattr(lookout, "EXPIRED_SECONDS", 0.2)
    monkeypatch.setattr(lookout, "ASK_SECONDS", 0.1)
    asked = []
    ask = lookout.Lookout._ask

    async def counted(self: lookout.Lookout, *args: Any) -> None:
        await ask(self, *args)
        asked.append(1)

    monkeypatch.setattr(lookout.Lookout, "_ask", counted)
    async with router_fleet(store, "a", "b", connect_timeout_seconds=0.3) as fleet:
        a, b = fleet.sites
        b.headroom = 0
        await fleet.announce()
        gate = asyncio.Event()
        a.script.append(Behaviour(gate=gate))
        asking = asyncio.create_task(fleet.post(chat()))
        await until(lambda: a.running == 1, what="the request is there")
        if is_refusing:
            a.stop_listening()
        await until(lambda: len(asked) >= 3, what="it was asked and has answered")
        gate.set()
        assert (await asking).status_code == 200
        totals = await fleet.settled(completed=1)
        assert totals["retried"] == 0
