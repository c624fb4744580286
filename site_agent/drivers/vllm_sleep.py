"""vLLM's sleep and wake, which exist in its development mode only.

Sleeping frees GPU memory, not watts: it is for changing the layout quickly, never for saving power. That mode
opens vLLM's control routes on the engine's loopback port to every local user, without a key; so it is used
only where `[sites.engine] sleep = true` asks for it. The ingress lets none of those routes through.
"""

from __future__ import annotations

import orjson

from gateway.upstream import Origin, UpstreamError
from site_agent.drivers.interface import DriverError
from site_agent.drivers.probe import Prober

SLEEP_SECONDS = 60.0
"""Weights of a large model go to the host's memory and come back."""
LEVEL = 1
"""Weights to the host's memory, KV cache forgotten."""


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
