"""What a site is asked about token ids while a stream goes on there: their text, their meaning."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from weakref import WeakValueDictionary

import orjson

from gateway.api_paths import DERENDER_PATH, RENDER_PATH
from gateway.upstream import UpstreamError, UpstreamPool, UpstreamResponse
from router.live.exchange import Exchange
from router.live.placement import Placement
from router.live.relay import InterruptedRelayError
from router.live.request_head import site_head
from router.live.site_answers import RefusedError, grammar_of
from router.policy.parser_talk import ParsersDisagreeError
from router.policy.stop_search import StopSearch
from router.policy.told_search import ToldSearch

logger = logging.getLogger(__name__)

DETOKENIZE_TIMEOUT_SECONDS = 5.0
RENDER_TIMEOUT_SECONDS = 10.0
DERENDER_TIMEOUT_SECONDS = 20.0
"""Parsers read the whole answer anew."""
TURN_SECONDS = 60.0
"""Others may be asking; where nobody gets an answer, whoever comes later need not wait for each of them."""
MEANINGS_AT_ONCE = 4
"""Of one site: its front end has one processor for all of them, and all its streams' tokens."""
MAX_ANSWER_BYTES = 16 << 20


class SiteQuestions:
    """One per process."""

    def __init__(
        self, *, pool: UpstreamPool, authorization: bytes | None, clock: Callable[[], float]
    ) -> None:
        self._pool = pool
        self._authorization = authorization
        self._clock = clock
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def text(self, exchange: Exchange, placement: Placement, body: bytes) -> str | None:
        """The text of the ids so far; None: ids cannot be used there.

        Raises:
            UpstreamError: the site did not answer.
            TimeoutError: not in time.
            RefusedError: it is not ready to.
        """

        def sent(response: UpstreamResponse) -> None:
            exchange.response = response

        try:
            status, data = await self._ask(
                exchange, placement, "/detokenize", body, DETOKENIZE_TIMEOUT_SECONDS, sent
            )
        finally:
            exchange.response = None
        if status != 200:
            return None
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            return None
        whole = value.get("prompt") if isinstance(value, dict) else None
        return whole if isinstance(whole, str) else None

    async def count(self, exchange: Exchange, placement: Placement, search: StopSearch) -> None:
        """Let the site say which ids are the answer's; where it does not, all of them are counted."""
        try:
            while (body := search.question) is not None:
                if (text := await self.text(exchange, placement, body)) is None:
                    return
                search.note(text)
        except (UpstreamError, InterruptedRelayError, TimeoutError, RefusedError) as error:
            about = {**exchange.about, "site_id": placement.entry.site_id}
            logger.warning("tokens after a stop string are counted too: %r", error, extra=about)

    async def shorten(self, exchange: Exchange, placement: Placement, search: ToldSearch) -> None:
        """Let the site's parsers say how much of the last event told something.

        Raises:
            UpstreamError, TimeoutError, RefusedError: as `text`.
            ParsersDisagreeError: they say nothing, or as `ToldSearch.note`.
        """
        while (body := search.question) is not None:
            try:
                answer = await self.meaning(exchange, placement, body)
            except RefusedError as error:
                if error.status >= 500:
                    raise
                raise ParsersDisagreeError(f"they say {error.status}") from error
            search.note(answer)

    async def grammar(self, exchange: Exchange, placement: Placement, body: bytes) -> bytes | None:
        """`structured_outputs` of the chat `body` at that site, as JSON; empty: it has none for it; None: it
        does not say.

        Raises:
            UpstreamError, TimeoutError, RefusedError: as `text`.
        """

        def sent(response: UpstreamResponse) -> None:
            exchange.response = response

        try:
            status, data = await self._ask(
                exchange, placement, RENDER_PATH, body, RENDER_TIMEOUT_SECONDS, sent
            )
        finally:
            exchange.response = None
        return grammar_of(data) if status == 200 else None

    async def meaning(self, exchange: Exchange, placement: Placement, body: bytes) -> bytes:
        """What the site's parsers say. It is asked beside the stream of ids, which `exchange.response` stays.

        Raises:
            UpstreamError, TimeoutError: as `text`.
            RefusedError: they say nothing.
        """
        turns = self._turns.setdefault(placement.entry.site_id, asyncio.Semaphore(MEANINGS_AT_ONCE))
        async with asyncio.timeout(TURN_SECONDS):
            await turns.acquire()
        try:
            status, data = await self._ask(exchange, placement, DERENDER_PATH, body, DERENDER_TIMEOUT_SECONDS)
        finally:
            turns.release()
        if status != 200:
            raise RefusedError(status, "capacity", None)
        return data

    async def _ask(
        self,
        exchange: Exchange,
        placement: Placement,
        path: str,
        body: bytes,
        seconds: float,
        sent: Callable[[UpstreamResponse], None] | None = None,
    ) -> tuple[int, bytes]:
        """Status and body of an answer that is none of 5xx."""
        origin = placement.entry.origin
        head = site_head(
            origin.host_header,
            path,
            exchange.shared_head,
            len(body),
            authorization=self._authorization,
            is_resume=True,
        )
        began, status = self._clock(), 0
        try:
            async with asyncio.timeout(seconds):
                response = await self._pool.exchange(
                    origin, head, body, first_byte_timeout_seconds=seconds, sent=sent
                )
                try:
                    data = await response.read(MAX_ANSWER_BYTES)
                    status = response.status
                    if status >= 500:
                        raise RefusedError.from_response(response)
                    return status, data
                finally:
                    response.close()
        finally:
            if exchange.trace is not None:
                exchange.trace.asked(placement.entry.site_id, path, status, began, self._clock())
