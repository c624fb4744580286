"""Sleep and wake of a vLLM in development mode, and who is woken by whom. The engine is a stand-in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from support.wait import until

from gateway.client_request import ClientRequest, HotHandler
from gateway.server import HttpServer
from gateway.upstream import Origin
from site_agent.drivers.interface import DriverError
from site_agent.drivers.probe import Prober
from site_agent.drivers.vllm_sleep import Sleepers


@dataclass(slots=True)
class DevelopmentMode:
    """`/sleep`, `/wake_up` and `/is_sleeping` as vLLM 0.32 answers them."""

    sleeps: bool = False
    may_wake: bool = True
    orders: list[str] = field(default_factory=list)
    wakes: asyncio.Event = field(default_factory=asyncio.Event)
    """A wake takes until this is set."""

    def route(self, _method: str, path: str) -> HotHandler:
        """Any path."""

        async def answer(request: ClientRequest) -> None:
            if path.startswith("/sleep"):
                self.sleeps = True
                self.orders.append("sleep")
            elif path == "/wake_up":
                self.orders.append("wake")
                await self.wakes.wait()
                self.sleeps = not self.may_wake
            body = b'{"is_sleeping": %s}' % (b"true" if self.sleeps else b"false")
            request.respond(200, (), body)

        return answer


@dataclass(slots=True)
class Rig:
    engine: DevelopmentMode
    origin: Origin
    sleepers: Sleepers

    async def is_awake(self) -> bool:
        return await self.sleepers.is_awake("i0", self.origin)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """An engine that is awake."""
    engine, prober = DevelopmentMode(), Prober()
    server = HttpServer(hot=engine.route)
    await server.start()
    made = Rig(
        engine=engine,
        origin=Origin.parse(f"http://127.0.0.1:{server.port}"),
        sleepers=Sleepers(prober),
    )
    yield made
    engine.wakes.set()
    made.sleepers.stopped("i0")
    await prober.aclose()
    await server.stop(0)


async def test_an_engine_that_somebody_else_sent_to_sleep_is_woken_not_taken_for_hung(rig: Rig) -> None:
    """Once, and it counts as awake while that goes on."""
    assert await rig.is_awake()
    rig.engine.sleeps = True
    assert await rig.is_awake()
    assert await rig.is_awake()
    await until(lambda: rig.engine.orders == ["wake"])
    rig.engine.wakes.set()
    await until(lambda: not rig.engine.sleeps)
    assert await rig.is_awake()
    assert rig.engine.orders == ["wake"]


async def test_one_that_cannot_be_woken_is_not_awake(rig: Rig) -> None:
    """So that its failed probes add up, and it is started anew."""
    rig.engine.sleeps, rig.engine.may_wake = True, False
    rig.engine.wakes.set()
    async with asyncio.timeout(10):
        while await rig.is_awake():  # noqa: ASYNC110 -- over HTTP
            await asyncio.sleep(0.02)
    assert rig.engine.orders == ["wake"]
    rig.sleepers.stopped("i0")
    assert await rig.is_awake(), "a new engine of this name is tried again"


async def test_what_sleeps_by_our_order_is_left_asleep_until_we_wake_it(rig: Rig) -> None:
    """It is not ready meanwhile."""
    await rig.sleepers.sleep("i0", rig.origin)
    assert not await rig.is_awake()
    rig.engine.wakes.set()
    await rig.sleepers.wake("i0", rig.origin)
    assert await rig.is_awake()
    assert rig.engine.orders == ["sleep", "wake"]


async def test_an_order_to_sleep_that_fails_changes_nothing(rig: Rig) -> None:
    """The engine is as awake as before."""
    nobody = Origin.parse("http://127.0.0.1:9")
    with pytest.raises(DriverError, match="/sleep"):
        await rig.sleepers.sleep("i0", nobody)
    assert await rig.is_awake()
