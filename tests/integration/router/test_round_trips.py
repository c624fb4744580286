"""Policies know how far away sites are."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from support.router_fleet import chat, router_fleet

from router.live.round_trips import note_round_trips


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="this system does not say it")
async def test_a_site_that_was_sent_something_is_measured(store: Any):
    """One that was not stays unknown."""
    async with router_fleet(store, "a", "b") as fleet:
        await fleet.announce()
        assert (await fleet.client.post("/v1/chat/completions", json=chat())).status_code == 200
        router = fleet.router
        note_round_trips(router._plane.pool, router.view.registry)
        loads = router.view.registry.loads["m"]
        asked = {site.site_id: bool(site.seen) for site in fleet.sites}
        assert {site_id: load.round_trip_seconds is not None for site_id, load in loads.items()} == asked
        assert sum(asked.values()) == 1
