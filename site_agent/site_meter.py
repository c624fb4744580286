"""Reads the site's own power meter over HTTP, beside the power loop, which never waits for it.

Rule: a value counts only while it is fresh and can be: finite and above 0, as the machine that asks draws
power itself. All else is a failure, counted and said; the draw is then the GPUs', or modelled.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Any, Protocol

import httpx
import orjson

from fleet.config import ConfigError
from fleet.loops import errors_as
from site_agent.meter_options import WATTS, MeterOptions

logger = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 1 << 20
MAX_SITE_WATTS = 1e9
MAX_PASSWORD_BYTES = 1024


class MeterError(Exception):
    """No value; the message says why, and what to do."""


class SiteMeter(Protocol):
    """What the power loop needs of a meter."""

    def watts(self, now: float) -> float | None:
        """The whole site's, overhead and host included; None: nothing fresh."""
        ...


class HttpMeter:
    """`[sites.meter]`. Implements `SiteMeter`."""

    def __init__(self, options: MeterOptions) -> None:
        """Opens no connection.

        Raises:
            ConfigError: the password cannot be read.
        """
        self.failures = 0
        self._options = options
        self._watts: float | None = None
        self._read_at = -math.inf
        self._client = httpx.AsyncClient(
            auth=_auth(options),
            timeout=options.timeout_seconds,
            verify=options.verify_tls,
            trust_env=False,
            headers={"accept": "application/json"},
        )

    async def run(self) -> None:
        """Runs as long as the agent does."""
        loop = asyncio.get_running_loop()
        why: str | None = None
        while True:
            began_at = loop.time()
            try:
                self._watts = await self.read()
                self._read_at = loop.time()
                if why is not None:
                    logger.info("the site's meter answers again")
                why = None
            except MeterError as error:
                self.failures += 1
                if str(error) != why:
                    logger.warning("the site's meter: %s", error)
                why = str(error)
            await asyncio.sleep(max(0.0, self._options.period_seconds - (loop.time() - began_at)))

    def watts(self, now: float) -> float | None:
        """See `SiteMeter`; `now` is the loop's time."""
        return self._watts if now - self._read_at <= self._options.max_age_seconds else None

    def age_seconds(self, now: float) -> float:
        """Since the last value; infinite before the first."""
        return now - self._read_at

    async def read(self) -> float:
        """Ask once.

        Raises:
            MeterError: no answer in time, or none with a number that can be.
        """
        url = self._options.url
        try:
            async with asyncio.timeout(self._options.timeout_seconds):
                with errors_as(MeterError, url):
                    status, body = await self._ask()
        except TimeoutError:
            raise MeterError(f"{url}: no answer within {self._options.timeout_seconds:g} s") from None
        if status in (401, 403):
            raise MeterError(f"{url}: status {status}: check username and password_file")
        if status != 200:
            raise MeterError(f"{url}: status {status}")
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise MeterError(f"{url}: no JSON of at most {MAX_ANSWER_BYTES} bytes") from None
        return watts_in(document, self._options)

    async def aclose(self) -> None:
        """Idempotent."""
        await self._client.aclose()

    async def _ask(self) -> tuple[int, bytes]:
        body = b""
        async with self._client.stream("GET", self._options.url) as answer:
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    return answer.status_code, b""
            return answer.status_code, body


def watts_in(document: Any, options: MeterOptions) -> float:
    """The number at `options.path`, in watts.

    Raises:
        MeterError: there is none, or none that can be.
    """
    value = document
    for part in options.path.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isascii() and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            where = f"{options.url}: path {options.path!r}: nothing at {part!r}"
            raise MeterError(f"{where}: look at what it answers")
    if isinstance(value, bool) or not isinstance(value, int | float):
        shown = repr(value[:80]) if isinstance(value, str) else f"a {type(value).__name__}"
        raise MeterError(f"path {options.path!r}: {shown} is no number")
    factor = WATTS[options.unit]
    if not 0 < value <= MAX_SITE_WATTS / factor:  # NaN is refused too
        raise MeterError(f"path {options.path!r}: {value} {options.unit} cannot be what this site draws")
    return value * factor


def _auth(options: MeterOptions) -> httpx.BasicAuth | None:
    if options.username is None or options.password_file is None:
        return None
    try:
        password = options.password_file.read_bytes()[:MAX_PASSWORD_BYTES].decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"[sites.meter] password_file: {error}") from None
    return httpx.BasicAuth(options.username, password)
