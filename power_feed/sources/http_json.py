"""HTTP: a JSON document, asked for again and again.

Rule: one request at a time, one at most every `poll_seconds`; a server that says when to come back is obeyed.
"""

from __future__ import annotations

import asyncio
import ssl
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx

from power_feed.live_config import HttpSource
from power_feed.sources.json_reading import MAX_DOCUMENT_BYTES, JsonPath, parse
from power_feed.sources.json_time import time_reader
from power_feed.sources.live import Listener
from power_feed.sources.secret_file import read_secret
from power_feed.sources.signals import SourceFaultError


class HttpLink:
    """One address."""

    def __init__(self, config: HttpSource) -> None:
        """Raises SourceFaultError: an expression is no JMESPath."""
        self._config = config
        self._path = JsonPath(config.json_path, "json_path")
        self._time_path = None if config.time_path is None else JsonPath(config.time_path, "time_path")
        self._time = time_reader(config)
        self._curtailment_path = (
            None
            if config.curtailment is None
            else JsonPath(config.curtailment.json_path, "curtailment.json_path")
        )
        parts = urlsplit(config.url)
        self._where = f"{parts.scheme}://{parts.netloc}{parts.path}"
        preset = "" if config.preset is None else f"{config.preset} "
        self.description = f"http {preset}{self._where}"

    async def listen(self, listener: Listener) -> None:
        """Ask for ever. Raises SourceFaultError at the first request that fails."""
        config = self._config
        poll_seconds = config.poll_seconds or config.period_seconds
        loop = asyncio.get_running_loop()
        async with httpx.AsyncClient(
            timeout=config.timeout_seconds, verify=self._tls(), trust_env=False, headers=self._headers()
        ) as client:
            is_known = False
            while True:
                due_at = loop.time() + poll_seconds
                body = await self._ask(client)
                if not is_known:
                    listener.connected()
                    is_known = True
                self._take(body, listener)
                await asyncio.sleep(max(0.0, due_at - loop.time()))

    async def _ask(self, client: httpx.AsyncClient) -> bytes:
        """A whole answer, within the time-out and the limit of size."""
        seconds = self._config.timeout_seconds
        try:
            async with asyncio.timeout(seconds), client.stream("GET", self._config.url) as answer:
                if answer.status_code != httpx.codes.OK:
                    raise self._refusal(answer)
                body = bytearray()
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > MAX_DOCUMENT_BYTES:
                        raise SourceFaultError(
                            "too_large",
                            f"{self._where}: more than {MAX_DOCUMENT_BYTES} bytes: ask for less in url",
                        )
                return bytes(body)
        except (TimeoutError, httpx.TimeoutException):
            raise SourceFaultError(
                "timeout", f"{self._where}: no whole answer within {seconds:g} s: lengthen timeout_seconds?"
            ) from None
        except httpx.ConnectError as error:
            is_tls = "CERTIFICATE" in str(error).upper() or "SSL" in str(error).upper()
            kind, advice = (
                ("credentials", "check ca_file and the server's certificate")
                if is_tls
                else ("connect", "is the address right, the server up?")
            )
            raise SourceFaultError(kind, f"{self._where}: {error}: {advice}") from None  # type: ignore[arg-type]
        except httpx.HTTPError as error:
            raise SourceFaultError("protocol", f"{self._where}: {type(error).__name__}: {error}") from None

    def _refusal(self, answer: httpx.Response) -> SourceFaultError:
        status = answer.status_code
        text = f"{self._where} answered {status}"
        retry = _retry_after_seconds(answer)
        if status in (401, 403, 407):
            return SourceFaultError(
                "credentials", f"{text}: check bearer_token_file and headers", retry_after_seconds=retry
            )
        if status in (404, 410):
            return SourceFaultError("missing", f"{text}: check url", retry_after_seconds=retry)
        if 300 <= status < 400:
            place = answer.headers.get("location", "elsewhere")[:200]
            return SourceFaultError("refused", f"{text}: it has moved to {place}: give that as url")
        advice = "asked too often: lengthen poll_seconds" if status == 429 else "it is tried again"
        return SourceFaultError("refused", f"{text}: {advice}", retry_after_seconds=retry)

    def _take(self, body: bytes, listener: Listener) -> None:
        try:
            document = parse(body)
            if self._curtailment_path is not None:
                listener.heard_curtailment(self._curtailment_path.find(document))
            observed_at = None
            if self._time_path is not None:
                observed_at = self._time.unix_seconds(self._time_path.find(document))
            value = self._path.find(document)
        except SourceFaultError as error:
            listener.fault(error)
            return
        listener.heard(value, observed_at=observed_at)

    def _headers(self) -> dict[str, str]:
        headers = {"accept": "application/json", "user-agent": "heron-power-feed", **self._config.headers}
        if self._config.bearer_token_file is not None:
            headers["authorization"] = f"Bearer {read_secret(self._config.bearer_token_file)}"
        return headers

    def _tls(self) -> ssl.SSLContext:
        path = self._config.ca_file
        try:
            return ssl.create_default_context(cafile=None if path is None else str(path))
        except OSError as error:
            raise SourceFaultError("credentials", f"ca_file {path}: cannot be used: {error}") from None


def _retry_after_seconds(answer: httpx.Response) -> float | None:
    """Of a number of seconds or a date; None where there is none to be understood."""
    text = answer.headers.get("retry-after", "")
    if text.isascii() and text.isdigit() and len(text) < 8:
        return float(text)
    try:
        until = parsedate_to_datetime(text)
        date = parsedate_to_datetime(answer.headers.get("date", ""))
    except (TypeError, ValueError):
        return None
    try:
        return max(0.0, (until - date).total_seconds())
    except TypeError:
        return None
