"""vLLM's sleep and wake, which exist in its development mode only.

Sleeping frees GPU memory, not watts: it is for changing the layout quickly, never for saving power. So
far nothing orders it (docs/decisions/0019); an engine that somebody else sends to sleep is woken. That mode
opens vLLM's control routes on the engine's loopback port to every local user, without a key; so it is used
only where `[sites.engine] sleep = true` asks for it. The ingress lets none of those routes through.
"""

from __future__ import annotations

import asyncio
import logging

import orjson

from gateway.upstream import Origin, UpstreamError
from site_agent.drivers.interface import DriverError
from site_agent.drivers.probe import Prober

logger = logging.getLogger(__name__)

SLEEP_SECONDS = 60.0
"""Weights of a large model go to the host's memory and come back."""
LEVEL = 1
"""Weights to the host's memory, KV cache forgotten."""


class Sleepers:
    """Which engines sleep by our order; the others are woken, once each, in the background."""

    def __init__(self, prober: Prober) -> None:
        self._prober = prober
        self._ordered: set[str] = set()
        self._wakes: dict[str, asyncio.Task[None]] = {}

    async def sleep(self, instance_id: str, origin: Origin) -> None:
        """See `sleep`."""
        self._ordered.add(instance_id)
        try:
            await sleep(self._prober, origin, instance_id)
        except DriverError:
            self._ordered.discard(instance_id)
            raise

    async def wake(self, instance_id: str, origin: Origin) -> None:
        """See `wake`."""
        await wake(self._prober, origin, instance_id)
        self._ordered.discard(instance_id)

    async def is_awake(self, instance_id: str, origin: Origin) -> bool:
        """Awake, or on its way: an engine that somebody else sent to sleep is no hung engine.

        False for one that sleeps by our order, and for one that could not be woken.
        """
        task = self._wakes.get(instance_id)
        if task is not None and not task.done():
            return True
        if not await is_asleep(self._prober, origin):
            self._wakes.pop(instance_id, None)
            return True
        if instance_id in self._ordered or (task is not None and _has_failed(task)):
            return False
        logger.warning("an engine sleeps that nobody sent to sleep", extra={"instance": instance_id})
        self._wakes[instance_id] = asyncio.create_task(wake(self._prober, origin, instance_id))
        return True

    def stopped(self, instance_id: str) -> None:
        """Its engine is gone."""
        self._ordered.discard(instance_id)
        task = self._wakes.pop(instance_id, None)
        if task is not None:
            task.add_done_callback(_has_failed)
            task.cancel()


def _has_failed(task: asyncio.Task[None]) -> bool:
    return task.cancelled() or task.exception() is not None


async def sleep(prober: Prober, origin: Origin, instance_id: str) -> None:
    """Put an engine to sleep that has nothing to do; what it still does is finished first (`mode=wait`).

    Raises:
        DriverError: it did not.
    """
    await _order(prober, origin, f"/sleep?level={LEVEL}&mode=wait", instance_id)
    if not await is_asleep(prober, origin):
        raise DriverError("failed", f"{instance_id}: vLLM said that it sleeps, and does not")


async def wake(prober: Prober, origin: Origin, instance_id: str) -> None:
    """Wake it.

    Raises:
        DriverError: it did not.
    """
    await _order(prober, origin, "/wake_up", instance_id)
    if await is_asleep(prober, origin):
        raise DriverError("failed", f"{instance_id}: vLLM said that it woke, and still sleeps")


async def is_asleep(prober: Prober, origin: Origin) -> bool:
    """Its own word: `/health` says 200 while it sleeps. False where it has no such mode."""
    try:
        status, body = await prober.get(origin, "/is_sleeping")
        return status == 200 and orjson.loads(body).get("is_sleeping") is True
    except (UpstreamError, orjson.JSONDecodeError, AttributeError):
        return False


async def _order(prober: Prober, origin: Origin, path: str, instance_id: str) -> None:
    try:
        status, body = await prober.post(origin, path, b"{}", SLEEP_SECONDS)
    except UpstreamError as error:
        raise DriverError("timeout", f"{instance_id}: {path}: {error}") from None
    if status == 404:
        raise DriverError("failed", f"{instance_id}: no sleep mode here: set engine.sleep = true")
    if status != 200:
        raise DriverError("failed", f"{instance_id}: {path}: status {status}: {body[:200]!r}")
