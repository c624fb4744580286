"""The shell of live sources, with a scripted link: back-off, faults, watchers, an end that ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.wait import until

from power_feed.sources.interface import FaultKind
from power_feed.sources.live import Listener, Live, retry_seconds
from power_feed.sources.signals import CurtailmentRule, Scaling, SourceFaultError


class ScriptedLink:
    """Each connection runs the next of its scripts; the last one again and again."""

    description = "scripted"

    def __init__(self, *scripts: Callable[[Listener], Awaitable[None]]) -> None:
        self._scripts = scripts
        self.connections = 0

    async def listen(self, listener: Listener) -> None:
        script = self._scripts[min(self.connections, len(self._scripts) - 1)]
        self.connections += 1
        await script(listener)


class Notes:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def changed(self) -> None:
        self.said.append("changed")

    def connected(self) -> None:
        self.said.append("connected")

    def failed(self, kind: FaultKind) -> None:
        self.said.append(kind)


def live(link: ScriptedLink, **keys: Any) -> Live:
    defaults: dict[str, Any] = {
        "kind": "scripted",
        "scaling": Scaling(unit="W", nameplate_watts=1000.0),
        "measures": "available",
        "curtailment": None,
        "period_seconds": 1.0,
        "max_retry_seconds": 0.001,
        "clock": lambda: 100.0,
    }
    return Live(link, **(defaults | keys))


async def hear_one(listener: Listener) -> None:
    listener.connected()
    listener.heard(5.0)
    await asyncio.sleep(3600)


async def refuse(_listener: Listener) -> None:
    raise SourceFaultError("refused", "no")


async def explode(_listener: Listener) -> None:
    raise struct_error()


def struct_error() -> Exception:
    return ValueError("unpack requires a buffer of 4 bytes")


async def test_it_connects_until_it_is_connected_and_tells_its_watcher() -> None:
    """Refusals and a library's surprise are counted by kind; then a value."""
    subject = live(ScriptedLink(refuse, explode, refuse, hear_one))
    notes = Notes()
    subject.watch(notes)
    task = asyncio.create_task(subject.run())
    await until(lambda: subject.measurement(0.0).watts == 5.0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert notes.said == ["refused", "internal", "refused", "connected", "changed"]
    assert subject.status.faults == {"refused": 2, "internal": 1}
    assert subject.status.connections == 1
    assert subject.status.value_at_unix_seconds == 100.0


async def test_a_library_that_swallows_the_cancellation_does_not_keep_it_alive() -> None:
    """asyncua and aiomqtt do: the end of the task was once taken for the end of a connection."""

    async def swallow(listener: Listener) -> None:
        listener.connected()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise ConnectionError("Connection is closed") from None

    link = ScriptedLink(swallow)
    subject = live(link)
    task = asyncio.create_task(subject.run())
    await until(lambda: subject.status.is_connected)
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled()
    assert link.connections == 1


async def test_a_lost_signal_is_unknown_even_where_nothing_means_free() -> None:
    """`not_empty`: a field that is empty says free; a field that cannot be read says nothing."""

    async def script(listener: Listener) -> None:
        listener.connected()
        listener.heard_curtailment(None)
        listener.heard(5.0)
        await heard.wait()
        listener.lose_curtailment(SourceFaultError("protocol", "garbage"))
        await asyncio.sleep(3600)

    heard = asyncio.Event()
    rule = CurtailmentRule(curtailed_if="not_empty")
    subject = live(ScriptedLink(script), measures="produced", curtailment=rule)
    task = asyncio.create_task(subject.run())
    await until(lambda: subject.measurement(0.0).watts == 5.0)
    heard.set()
    await until(lambda: subject.measurement(0.0).watts is None)
    task.cancel()
    assert subject.status.faults == {"protocol": 1}


async def test_an_end_without_a_reason_is_the_other_sides() -> None:
    """A link that returns."""

    async def end(listener: Listener) -> None:
        listener.connected()

    subject = live(ScriptedLink(end, hear_one))
    task = asyncio.create_task(subject.run())
    await until(lambda: subject.measurement(0.0).watts == 5.0)
    task.cancel()
    assert subject.status.faults == {"connect": 1}
    assert subject.status.connections == 2


def test_back_off_doubles_to_its_limit_and_is_spread() -> None:
    """Half a second, one, two … ten; each between half of that and all of it."""
    rng = random.Random(1)
    for failures, longest in ((1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0), (6, 10.0), (10_000, 10.0)):
        waits = [retry_seconds(failures, 10.0, rng) for _ in range(100)]
        assert all(longest / 2 <= wait <= longest for wait in waits)
        assert max(waits) - min(waits) > longest / 4
    assert retry_seconds(1, 0.1, rng) <= 0.1


@pytest.mark.parametrize("period_seconds", [0.1, 1.0, 900.0])
def test_a_short_silence_is_no_reason_to_connect_anew(period_seconds: float) -> None:
    """Three periods, but at least ten seconds."""
    subject = live(ScriptedLink(refuse), period_seconds=period_seconds)
    assert subject._silent_seconds == max(10.0, 3 * period_seconds)
