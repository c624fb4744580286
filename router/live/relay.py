"""One site's event stream onto the client's connection, as it arrives.

`relay_first` holds status and headers back until the first event with output, since vLLM says 503 inside a
200, and a chat's role before anything else: until then nothing has been promised, and another site may try.

Rule: no task, timer or await per chunk; `on_data` runs inside the socket's own callback.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from gateway.upstream import UpstreamError, UpstreamResponse
from router.live.answers import own_headers, site_answer_headers
from router.live.exchange import Exchange
from router.policy.continuation import Continuation
from router.policy.event_scan import StreamScanner
from router.policy.parsed_continuation import ParsedContinuation

logger = logging.getLogger(__name__)

COMMENT = b":\n\n"
"""An event stream's comment: nothing to a client."""
MIN_PARSE_PAUSE_SECONDS = 0.1
PARSE_PAUSES = 2.0
"""Parsers read the whole answer at each question: they are given so many times longer to rest."""
MAX_HELD_BYTES = 64 * 1024
"""Of events without output before the first with some; a stream that has more of them begins all the same."""


class InterruptedRelayError(Exception):
    """The watch ended it: `stalled`, `deadline`, or `over` (whole, though its connection did not end)."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class OverError(Exception):
    """Nothing that could follow matters."""


def first_relay(
    exchange: Exchange, response: UpstreamResponse, scanner: StreamScanner, clock: Callable[[], float]
) -> Callable[[bytes], None]:
    """What passes the first site's stream on, piece by piece; it raises once nothing more matters."""
    request = exchange.request
    exchange.scanner = scanner
    exchange.progress = 0
    exchange.quiet_since = clock()
    feed, write, outlet = scanner.feed, request.write, request.outlet
    held: list[bytes] = []
    held_bytes = 0

    def begin(out: bytes) -> None:
        exchange.begin_stream(clock())
        if exchange.on_opening is not None:
            exchange.on_opening(out)
        request.empty_piece = COMMENT
        request.on_pause = exchange.pause
        request.on_resume = exchange.resume
        headers = site_answer_headers(response.headers) + own_headers(exchange)
        exchange.status = response.status
        request.start(response.status, headers)
        write(out)

    def on_data(data: bytes) -> None:
        nonlocal held_bytes
        try:
            out = feed(data)
        except Exception as error:
            raise _nonsense(exchange, error) from error
        if exchange.is_committed:
            write(out)
        elif out and scanner.events:
            held.append(out)
            held_bytes += len(out)
            if scanner.has_begun or held_bytes > MAX_HELD_BYTES:
                begin(b"".join(held))
                held.clear()
        if scanner.ending is not None and scanner.ending != "complete":
            raise OverError
        if outlet is not None and outlet.has_failed:  # its client was told so, and sees nothing more
            raise OverError

    return on_data


def first_ending(scanner: StreamScanner, error: Exception | None) -> str:
    """ "complete", or a label of how the stream broke; `error` ended its relay.

    Raises:
        Exception: `error` is not about the stream.
    """
    return _ending(scanner.ending, _reason(error))


async def relay_first(
    exchange: Exchange, response: UpstreamResponse, scanner: StreamScanner, clock: Callable[[], float]
) -> str:
    """Pass the first site's stream on; returns as `first_ending`.

    On return `exchange.is_committed` says whether the client has seen anything.
    """
    reason = await _run(response, first_relay(exchange, response, scanner, clock))
    return _ending(scanner.ending, reason)


async def relay_continuation(
    exchange: Exchange, response: UpstreamResponse, continuation: Continuation, owed: str, now: float
) -> str:
    """Pass a continuation on, as part of the client's stream; returns as `relay_first`."""
    placement = exchange.placement
    assert placement is not None
    exchange.scanner = continuation
    exchange.progress = 0
    exchange.quiet_since = now
    write = exchange.request.write
    write(continuation.begin(owed))
    if continuation.is_over:
        return _ending(continuation.ending, "over")

    def on_data(data: bytes) -> None:
        try:
            out = continuation.feed(data)
        except Exception as error:
            raise _nonsense(exchange, error) from error
        write(out)
        if continuation.tokens and exchange.is_between_sites:
            exchange.is_between_sites = False
            placement.begun()
        if continuation.is_over and (continuation.ending != "complete" or continuation.is_stopped_here):
            raise OverError
        if exchange.is_paused:
            response.pause()

    reason = await _run(response, on_data)
    return _ending(continuation.ending, reason)


async def relay_parsed(
    exchange: Exchange,
    response: UpstreamResponse,
    continuation: ParsedContinuation,
    ask: Callable[[bytes], Awaitable[bytes]],
    clock: Callable[[], float],
) -> tuple[str, BaseException | None]:
    """The same for a continuation by the site's parsers, which `ask` asks; (as `relay_first`, why they did
    not go on, if that ended it).

    One question is under way at a time; the ids that come meanwhile go with the next.
    """
    exchange.scanner = continuation
    exchange.progress = 0
    exchange.quiet_since = clock()
    news, urgent = asyncio.Event(), asyncio.Event()
    telling = asyncio.create_task(_tell(exchange, continuation, ask, clock, news, urgent))

    def told(done: asyncio.Task[None]) -> None:
        if not done.cancelled() and done.exception() is not None:
            response.stop(InterruptedRelayError("parser_failed"))

    telling.add_done_callback(told)

    def on_data(data: bytes) -> None:
        try:
            out = continuation.feed(data)
        except Exception as error:
            raise _nonsense(exchange, error) from error
        if out:
            exchange.request.write(out)
        news.set()
        if continuation.has_finished:
            urgent.set()
        if continuation.is_over and continuation.ending != "complete":
            raise OverError
        if exchange.is_paused:
            response.pause()

    failure: BaseException | None = None
    try:
        reason = await _run(response, on_data)
        if not continuation.has_finished or continuation.ending not in (None, "complete"):
            telling.cancel()  # ids that were not told are not in the record: the next site makes them anew
        await asyncio.wait([telling])
        if not telling.cancelled() and reason in ("parser_failed", "ended", "over"):
            failure = telling.exception()
    finally:
        telling.cancel()  # nothing is awaited here: compiled, that would swallow a cancellation
    return _ending(continuation.ending, reason), failure


async def _tell(
    exchange: Exchange,
    continuation: ParsedContinuation,
    ask: Callable[[bytes], Awaitable[bytes]],
    clock: Callable[[], float],
    news: asyncio.Event,
    urgent: asyncio.Event,
) -> None:
    """Ask and write until all is told."""
    placement = exchange.placement
    assert placement is not None
    while not continuation.is_over and not continuation.is_told:
        news.clear()
        question = continuation.question
        if question is None:
            await news.wait()
            continue
        asked_at = clock()
        out = continuation.note(await ask(question))
        exchange.request.write(out)
        if continuation.tokens and exchange.is_between_sites:
            exchange.is_between_sites = False
            placement.begun()
        pause = max(MIN_PARSE_PAUSE_SECONDS, PARSE_PAUSES * (clock() - asked_at))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await urgent.wait()


def _nonsense(exchange: Exchange, error: Exception) -> UpstreamError:
    """What a site's stream says cannot even be read: its fault, not the request's."""
    logger.error("a site's stream makes no sense: please report this", exc_info=error, extra=exchange.about)
    return UpstreamError("protocol", f"{exchange.site_id}: {error!r}")


async def _run(response: UpstreamResponse, on_data: Callable[[bytes], None]) -> str:
    try:
        await response.relay(on_data)
    except (UpstreamError, InterruptedRelayError, OverError) as error:
        return _reason(error)
    return _reason(None)


def _reason(error: Exception | None) -> str:
    if error is None:
        return "ended"
    if isinstance(error, (UpstreamError, InterruptedRelayError)):
        return error.kind
    if isinstance(error, OverError):
        return "over"
    raise error


def _ending(ending: str | None, reason: str) -> str:
    """What the stream itself said comes before how its connection went."""
    return ending if ending is not None else reason
