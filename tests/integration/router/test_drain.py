"""A site that drains: what it has ends there or goes on elsewhere, and what is new goes elsewhere."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from support.router_fleet import chat, router_fleet
from support.stub_site import Behaviour
from support.wait import until


@pytest.mark.parametrize("is_streamed", [True, False])
@pytest.mark.parametrize("is_cut", [False, True], ids=["in time", "cut at the end of the drain"])
async def test_a_site_that_drains(store: Any, is_streamed: bool, is_cut: bool):
    """One answer, whole, and every count is back at zero at both sites."""
    async with router_fleet(store, "a", "b") as fleet:
        a, b = fleet.site("a"), fleet.site("b")
        gate = asyncio.Event()
        await fleet.set_state("b", "dark")
        a.default = Behaviour(gate=gate)
        asking = asyncio.create_task(fleet.post(chat(stream=is_streamed)))
        await until(lambda: a.running == 1, what="the request runs")
        if is_streamed:
            await until(lambda: any(x.is_committed for x in fleet.router.forwarder.active), what="begun")
        await fleet.set_state("b", "serving")
        await fleet.set_state("a", "draining")
        new = await fleet.post(chat())
        assert (new.status_code, new.headers["x-heron-site"]) == (200, "b")
        if is_cut:
            a.cut()
        else:
            gate.set()
        answer = await asking
        assert answer.status_code == 200
        assert b"error" not in answer.content
        assert answer.content.endswith(b"data: [DONE]\n\n") == is_streamed
        assert [len(site.inference) for site in (a, b)] == [1, 2 if is_cut else 1]
        if is_cut:
            assert b.inference[1].headers["x-heron-resume"] == "1"
        totals = await fleet.settled(completed=2)
        assert totals["resumed"] == (is_cut and is_streamed)
        assert totals["retried"] == (is_cut and not is_streamed)
        assert all(site.breaker.state == "closed" for site in fleet.router.view.registry.entries.values())


async def test_a_router_says_that_it_will_stop_before_it_does(store: Any, caplog: pytest.LogCaptureFixture):
    """So that what balances over several sends nothing more when it refuses connections."""
    caplog.set_level("INFO")
    async with router_fleet(store, "a", shutdown_delay_seconds=1.0) as fleet:
        stopping = asyncio.create_task(fleet.router.stop())
        await until(lambda: "stopping in 1 s" in caplog.text, what="it said so")
        async with httpx.AsyncClient() as client:
            ready = await client.get(f"{fleet.operations_url}/readyz")
            assert (ready.status_code, ready.json()["reason"]) == (503, "shutting down")
            assert (await client.head(f"{fleet.operations_url}/healthz")).status_code == 200
        assert (await fleet.post(chat())).status_code == 200
        await stopping
        with pytest.raises(httpx.ConnectError):
            await httpx.AsyncClient().get(f"{fleet.url}/health")
    assert "of 1 requests since the start 0 ended broken" in caplog.text
