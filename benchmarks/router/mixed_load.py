"""Clients that do what clients do, well and badly, and check every answer. For the soak.

Rule: every request ends up under one heading, `kind: how it ended`; what may not be ends in WRONG.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine

from benchmarks.router.load import ANSWER_TOKENS, API_KEY, body
from gateway.upstream import Origin, UpstreamError, UpstreamPool, UpstreamResponse

STREAM_TOKENS = 20
LEFT_STREAM_TOKENS = 500
PROMPT_BYTES = 1 << 20
MAX_ANSWER_BYTES = 1 << 20
ANSWER_SECONDS = 60.0
PAUSE_SECONDS = 0.05
"""Mean, between two requests of one client."""
HEADERS = [(b"content-type", b"application/json"), (b"authorization", b"Bearer " + API_KEY.encode())]
CHAT = "/v1/chat/completions"
STATED = frozenset({429, 502, 503, 504})
"""Statuses of a stated error."""


class _LeftError(Exception):
    """The client has seen enough."""


class MixedLoad:
    """So many clients, each with one request at a time."""

    def __init__(self, port: int, *, clients: int, rng: random.Random) -> None:
        self._origin = Origin.of("http", "127.0.0.1", port)
        self._clients = clients
        self._rng = rng
        self._whole = body()
        self._stream = body(stream_tokens=STREAM_TOKENS)
        self._long_stream = body(stream_tokens=LEFT_STREAM_TOKENS)
        self._large = body(prompt_bytes=PROMPT_BYTES)
        self.outcomes: Counter[str] = Counter()

    async def run(self, seconds: float) -> None:
        """Until so many seconds have passed and every request is over."""
        until = asyncio.get_running_loop().time() + seconds
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._clients):
                tasks.create_task(self._client(random.Random(self._rng.getrandbits(64)), until))

    async def _client(self, rng: random.Random, until: float) -> None:
        kinds: list[tuple[str, int, Callable[[UpstreamPool, random.Random], Coroutine[None, None, str]]]] = [
            ("whole", 50, self._ask_whole),
            ("stream", 25, self._ask_stream),
            ("stream left by its client", 12, self._leave_stream),
            ("prompt of 1 MB", 3, self._ask_large),
            ("no JSON", 5, self._ask_badly),
            ("no such model", 5, self._ask_unknown),
        ]
        weights = [weight for _, weight, _ in kinds]
        loop = asyncio.get_running_loop()
        pool = UpstreamPool()
        try:
            while loop.time() < until:
                name, _, ask = rng.choices(kinds, weights)[0]
                try:
                    async with asyncio.timeout(ANSWER_SECONDS):
                        outcome = await ask(pool, rng)
                except TimeoutError:
                    outcome = f"no end within {ANSWER_SECONDS:g} s: WRONG"
                except UpstreamError as error:
                    outcome = f"{error.kind}: WRONG"
                self.outcomes[f"{name}: {outcome}"] += 1
                await asyncio.sleep(rng.expovariate(1 / PAUSE_SECONDS))
        finally:
            await pool.aclose()

    async def _send(self, pool: UpstreamPool, content: bytes) -> UpstreamResponse:
        return await pool.send(
            self._origin, "POST", CHAT, HEADERS, content, first_byte_timeout_seconds=ANSWER_SECONDS
        )

    async def _ask(self, pool: UpstreamPool, content: bytes, wanted: int = 200) -> str:
        response = await self._send(pool, content)
        try:
            answer = await response.read(MAX_ANSWER_BYTES)
        finally:
            response.close()
        if response.status != wanted:
            return _stated(response.status, answer)
        is_right = answer.count(b"~") == ANSWER_TOKENS if wanted == 200 else b'"error"' in answer
        return "right" if is_right else "WRONG"

    async def _ask_whole(self, pool: UpstreamPool, _rng: random.Random) -> str:
        return await self._ask(pool, self._whole)

    async def _ask_large(self, pool: UpstreamPool, _rng: random.Random) -> str:
        return await self._ask(pool, self._large)

    async def _ask_badly(self, pool: UpstreamPool, _rng: random.Random) -> str:
        return await self._ask(pool, self._whole[:-9], wanted=400)

    async def _ask_unknown(self, pool: UpstreamPool, _rng: random.Random) -> str:
        return await self._ask(pool, self._whole.replace(b'"bench"', b'"other"'), wanted=404)

    async def _ask_stream(self, pool: UpstreamPool, _rng: random.Random) -> str:
        response = await self._send(pool, self._stream)
        try:
            answer = await response.read(MAX_ANSWER_BYTES)
        finally:
            response.close()
        if response.status != 200:
            return _stated(response.status, answer)
        if b'"error"' in answer:
            return "stated error in the stream"
        is_right = (
            answer.count(b"~") == STREAM_TOKENS
            and answer.endswith(b"data: [DONE]\n\n")
            and answer.count(b'"role"') == 1
            and answer.count(b'"finish_reason":"length"') == 1
            and b"token_ids" not in answer
        )
        return "right" if is_right else "WRONG"

    async def _leave_stream(self, pool: UpstreamPool, rng: random.Random) -> str:
        left = rng.randrange(30)
        response = await self._send(pool, self._long_stream)

        def take(data: bytes) -> None:
            nonlocal left
            left -= data.count(b"data: ")
            if left <= 0:
                raise _LeftError

        try:
            if response.status != 200:
                return _stated(response.status, await response.read(MAX_ANSWER_BYTES))
            await response.relay(take)
        except _LeftError:
            return "left"
        finally:
            response.close()
        return "ended before: WRONG"


def _stated(status: int, answer: bytes) -> str:
    return f"stated error {status}" if status in STATED and b'"error"' in answer else f"{status}: WRONG"
