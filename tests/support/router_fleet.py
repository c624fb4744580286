"""A router in this process, its sites as stubs, all over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import orjson
import pytest
from pydantic import SecretStr

from fleet.api_key import key_id
from fleet.config import FleetConfig
from fleet.records import ApiKey
from gateway.upstream import UpstreamPool
from router.app import Router
from router.config import RouterConfig
from router.live import watch
from router.live.exchange import Exchange
from support.stub_site import StubSite
from support.wait import until

TOKEN = "site-secret"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 30}
OUTCOMES = ("completed", "shed", "client_cancelled", "broken", "client_error", "failed")


def chat(**changes: Any) -> dict[str, Any]:
    """A chat request's body."""
    return CHAT | changes


def connections_in_use(pool: UpstreamPool) -> int:
    """Those that carry a request now."""
    return sum(1 for connection in pool._open if connection.response is not None)


class RouterFleet:
    """A router and its sites."""

    def __init__(self, router: Router, sites: list[StubSite], store: Any) -> None:
        self.router = router
        self.sites = sites
        self.store = store
        self.url = f"http://127.0.0.1:{router.port}"
        self.operations_url = f"http://127.0.0.1:{router.operations_port}"
        self.client = httpx.AsyncClient(base_url=self.url, timeout=30)

    def site(self, site_id: str) -> StubSite:
        return next(site for site in self.sites if site.site_id == site_id)

    async def announce(self, *sites: StubSite) -> None:
        """Every site reports, and the router has seen it."""
        for site in sites or self.sites:
            await site.announce(self.store)
        for site in sites or self.sites:
            await until(
                lambda site=site: self.sequence(site.site_id) >= site.sequence, what=f"{site.site_id} known"
            )

    async def set_state(self, site_id: str, state: str) -> None:
        """A site reports another state, and the router has seen it."""
        site = self.site(site_id)
        site.state = state
        await self.announce(site)

    def sequence(self, site_id: str) -> int:
        view = self.router.view.snapshot.sites.get(site_id)
        return -1 if view is None else view.sequence

    @property
    def totals(self) -> dict[str, int]:
        return self.router.ledger.totals()

    async def settled(self, **outcomes: int) -> dict[str, int]:
        """Wait until nothing is in flight anywhere, then check that every request was counted once."""
        await until(lambda: self.totals["in_flight"] == 0, what="nothing in flight")
        entries = self.router.view.registry.entries.values()
        assert all(entry.in_flight == 0 for entry in entries)
        for loads in self.router.view.registry.loads.values():
            assert all(load.in_flight == 0 for load in loads.values())
        assert self.router.dispatcher.held == 0
        assert not any(self.router.dispatcher.held_by_tier.values())
        if self.router.ring is not None:
            assert all(key.quota.in_flight == 0 for key in self.router.ring.credentials())
        assert not self.router.forwarder.active
        for site in self.sites:
            await until(lambda site=site: site.running == 0, what=f"nothing runs at {site.site_id}")
        pool = self.router.forwarder._pool
        await until(lambda: connections_in_use(pool) == 0, what="no connection to a site in use")
        totals = self.totals
        assert totals["lost"] == 0
        assert totals["requests"] == sum(totals[outcome] for outcome in OUTCOMES)
        if outcomes:
            assert {name: totals[name] for name in OUTCOMES if totals[name]} == outcomes
        return totals

    async def post(self, body: Any, path: str = "/v1/chat/completions", **options: Any) -> httpx.Response:
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        return await self.client.post(path, content=content, **options)

    async def stream(
        self, body: Any, path: str = "/v1/chat/completions", **options: Any
    ) -> tuple[int, bytes]:
        """Status and the whole stream; a cut raises httpx's error."""
        async with self.client.stream("POST", path, content=orjson.dumps(body), **options) as response:
            return response.status_code, b"".join([piece async for piece in response.aiter_raw()])


@contextlib.asynccontextmanager
async def router_fleet(
    store: Any,
    *site_ids: str,
    token_ids: bool = True,
    announce: bool = True,
    make_site: Callable[[str], StubSite] | None = None,
    fleet_fields: dict[str, Any] | None = None,
    seed: int = 1,
    **options: Any,
) -> AsyncIterator[RouterFleet]:
    """A running router with these stub sites. `options` go into `[router]`, `fleet_fields` into `[fleet]`.

    Two with one store need another `seed` each: a router's name in the fleet is made of it.
    """
    made = make_site or (lambda site_id: StubSite(site_id, token_ids=token_ids))
    sites = [made(site_id) for site_id in site_ids]
    for site in sites:
        await site.start()
    defaults: dict[str, Any] = {"port": 0, "operations_port": 0, "shutdown_grace_seconds": 2}
    config = RouterConfig(**(defaults | options))
    fleet_config = FleetConfig(site_token=SecretStr(TOKEN), **(fleet_fields or {}))
    router = Router(fleet_config, config, store, rng=random.Random(seed))
    await router.start()
    fleet = RouterFleet(router, sites, store)
    try:
        if router.ring is not None and announce:
            await until(lambda: router.ring is None or router.ring.read_at is not None, what="keys read")
        if announce and sites:
            for site in sites:
                await store.publish_site_info(site.site_id, site.info())
            await fleet.announce()
            await fleet.announce()  # twice: a record is fresh once its sequence has advanced
            await until(
                lambda: all(
                    view.token_ids == site.token_ids
                    for site in sites
                    for view in router.view.snapshot.models[site.model]
                ),
                what="the sites' capabilities known",
            )
        yield fleet
    finally:
        await fleet.client.aclose()
        for site in sites:
            await site.stop()
        await router.stop()


async def put_key(store: Any, key: str, *, tenant: str = "acme", **fields: Any) -> None:
    """Write a key's record as `heron keys add` does."""
    record = ApiKey(tenant=tenant, **fields)
    await store.write_api_key(key_id(key.encode()), record.to_hash())


def bearer(key: str) -> dict[str, str]:
    """The header that shows a key."""
    return {"authorization": f"Bearer {key}"}


async def first(condition: asyncio.Event) -> None:
    """Wait for an event, not for ever."""
    async with asyncio.timeout(10):
        await condition.wait()


def seconds_when_looked_at(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Gets the age of a request each time that the watch has looked at it."""
    ages: list[float] = []
    check = watch.check

    def seen(exchange: Exchange, config: RouterConfig, now: float) -> None:
        check(exchange, config, now)
        ages.append(now - exchange.received_at)

    monkeypatch.setattr(watch, "check", seen)
    return ages
