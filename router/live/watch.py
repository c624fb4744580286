"""One sweep over all requests under way, twice a second, in place of timers on every request and chunk.

It ends streams that stall (a token moves them, an SSE comment does not), requests beyond their deadline, and
keeps clients alive whose stream is between two sites. Sites that have fallen silent are `lookout`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from fleet.loops import Loops
from gateway.upstream import UpstreamError
from router.config import RouterConfig
from router.live.exchange import Exchange
from router.live.lookout import Lookout
from router.live.relay import InterruptedRelayError
from router.policy.stream_end import KEEP_ALIVE

SWEEP_SECONDS = 0.5
HIDDEN_OUTPUT_SECONDS = 300.0
"""A stream that could not go on elsewhere may be silent for so long once its site has said anything. Tool
parsers hold a call back until it is whole (half a minute and more for a long file), and a client may have
reasoning left out: to end those as stalled would break what is well, and save nothing."""
OVER_SECONDS = 1.0
"""After a stream's terminal event its connection may take so long to end."""


async def watch(
    active: Callable[[], Iterable[Exchange]],
    config: RouterConfig,
    clock: Callable[[], float],
    lookout: Lookout,
    loops: Loops,
) -> None:
    """Sweep until cancelled; one request's trouble is no other's."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        now = clock()
        for exchange in list(active()):
            with loops.going_on("check of a request"):
                check(exchange, config, now)
        lookout.look(active, now)


def check(exchange: Exchange, config: RouterConfig, now: float) -> None:
    """Look at one request; cases in order: past its deadline, no answer, between two sites, over, stalled."""
    response, scanner = exchange.response, exchange.scanner
    if now >= exchange.deadline_at and response is not None:
        response.stop(InterruptedRelayError("deadline"))
        return
    if now >= exchange.head_by and response is not None and not response.is_head_complete:
        response.stop(UpstreamError("first_byte_timeout", f"{exchange.site_id}: no answer in time"))
        return
    is_silent = now - exchange.wrote_at >= config.sse_keep_alive_seconds
    if exchange.is_between_sites and is_silent and not exchange.is_paused:
        exchange.wrote_at = now
        exchange.request.write(KEEP_ALIVE)
    if scanner is None or response is None:
        return
    if scanner.events != exchange.progress or exchange.is_paused or not exchange.quiet_since:
        exchange.progress = scanner.events
        exchange.quiet_since = now
        return
    quiet = now - exchange.quiet_since
    if scanner.ending is not None:
        if quiet > OVER_SECONDS:
            response.stop(InterruptedRelayError("over"))
        return
    if quiet > _most_silent_seconds(exchange, config):
        response.stop(InterruptedRelayError("stalled"))


def _most_silent_seconds(exchange: Exchange, config: RouterConfig) -> float:
    """How long a stream may stand still as it is now."""
    if not exchange.scanner.events:
        return config.first_byte_timeout_seconds
    if exchange.mode == "plain":
        return max(HIDDEN_OUTPUT_SECONDS, config.stall_timeout_seconds)
    # a chat's role is no output yet: until that comes the client has nothing, and the engine may well think
    return config.stall_timeout_seconds if exchange.is_committed else config.first_byte_timeout_seconds
