"""Asks an engine over HTTP how it is and what it can do; used by every driver of real engines."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.api_paths import PATHS, RENDER_PATH, USUAL_PATHS
from gateway.upstream import Origin, UpstreamError, UpstreamPool
from site_agent.drivers.inline_system import ask_inline_system
from site_agent.drivers.interface import InlineSystem

logger = logging.getLogger(__name__)

PROBE_SECONDS = 5.0
"""A busy vLLM answers late, as its HTTP server shares the processor with tokenizing, and on CPUs with the
model: it is not hung. What refuses is known at once."""
DESCRIBE_SECONDS = 5.0
"""vLLM makes the description of its API when it is first asked, once: 0.7 s on an idle core (0.32)."""
MAX_ANSWER_BYTES = 8 << 20
MAX_MODEL_LEN = 1_000_000_000
"""As records have it."""
RETURN_IDS = b"return_token_ids"
"""Named in the description of an engine that resumes exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """An entry of `/v1/models`."""

    model: str
    max_model_len: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What an engine says of its API; unknown where it says nothing."""

    paths: tuple[str, ...]
    token_ids: bool | None
    is_answered: bool = True
    """False: it was too late, and this is what is usual; ask again."""
    inline_system: InlineSystem | None = None


class Prober:
    """Connections of its own, short and bounded."""

    def __init__(
        self,
        headers: Sequence[tuple[bytes, bytes]] = (),
        *,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        """`headers` go with every question; `tls`: see `UpstreamPool`."""
        self._headers = tuple(headers)
        self._pool = UpstreamPool(connect_timeout_seconds=PROBE_SECONDS, ssl_context=tls)

    async def is_healthy(self, origin: Origin) -> bool:
        """`/health`, or where there is none the list of models. False for anything but a clear yes."""
        try:
            status, _ = await self.get(origin, "/health")
            if status == 404:
                status, _ = await self.get(origin, "/v1/models")
        except UpstreamError:
            return False
        return status == 200

    async def models(self, origin: Origin) -> tuple[ModelCard, ...] | None:
        """What it serves; None: it does not say.

        Raises:
            UpstreamError: it does not answer.
        """
        status, body = await self.get(origin, "/v1/models")
        if status != 200:
            return None
        try:
            cards = orjson.loads(body)["data"]
            return tuple(ModelCard(model=str(one.get("id", "")), max_model_len=_length(one)) for one in cards)
        except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
            return None

    async def describe(self, origin: Origin, model: str) -> Description:
        """By its own description of its API, which depends on its model and arguments; then by trial."""
        try:
            status, body = await self.get(origin, "/openapi.json", DESCRIBE_SECONDS)
        except UpstreamError as error:
            logger.warning("an engine did not say which paths it serves; the usual until it does: %s", error)
            return Description(paths=USUAL_PATHS, token_ids=None, is_answered=False)
        try:
            described = orjson.loads(body) if status == 200 else {}
            paths = described.get("paths", {})
            found = tuple(path for path in PATHS if path in paths)
        except (orjson.JSONDecodeError, AttributeError, TypeError) as error:
            logger.warning("an engine did not say which paths it serves; taking the usual", exc_info=error)
            return Description(paths=USUAL_PATHS, token_ids=None)
        if not found:
            return Description(paths=USUAL_PATHS, token_ids=None)
        inline_system = await ask_inline_system(self, origin, model) if RENDER_PATH in found else None
        return Description(paths=found, token_ids=RETURN_IDS in body, inline_system=inline_system)

    async def get(self, origin: Origin, path: str, seconds: float = PROBE_SECONDS) -> tuple[int, bytes]:
        """Status and body.

        Raises:
            UpstreamError: no answer in time, or a broken one.
        """
        return await self._ask(origin, "GET", path, b"", seconds)

    async def post(self, origin: Origin, path: str, body: bytes, seconds: float) -> tuple[int, bytes]:
        """The same with a body (JSON)."""
        return await self._ask(origin, "POST", path, body, seconds)

    async def _ask(
        self, origin: Origin, method: str, path: str, body: bytes, seconds: float
    ) -> tuple[int, bytes]:
        headers = (*self._headers, (b"content-type", b"application/json")) if body else self._headers
        try:
            async with asyncio.timeout(seconds):
                response = await self._pool.send(
                    origin, method, path, headers, body, first_byte_timeout_seconds=seconds
                )
                try:
                    return response.status, await response.read(MAX_ANSWER_BYTES)
                finally:
                    response.close()
        except TimeoutError:
            raise UpstreamError("first_byte_timeout", f"{origin}: no answer within {seconds:g} s") from None

    async def aclose(self) -> None:
        """Close its connections."""
        await self._pool.aclose()


def _length(card: dict[str, Any]) -> int | None:
    length = card.get("max_model_len")
    if not isinstance(length, int) or isinstance(length, bool):
        return None
    return length if 0 < length <= MAX_MODEL_LEN else None
