"""A real browser without a driver: Chromium over its debugging pipe (two descriptors, JSON between NULs)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from support.programs import need

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
ANSWER_SECONDS = 30.0
POLL_SECONDS = 0.05
LAUNCH = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for end, number in zip(ends, (3, 4)):
    os.dup2(end, number)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""The browser's ends of the pipes become its descriptors 3 and 4."""


def find_browser() -> str:
    """$HERON_BROWSER, or the first one on the PATH; without one the test skips, in CI it fails."""
    named = os.environ.get("HERON_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    return named or need(NAMES[0], NAMES[0])


class Page:
    """One tab."""

    def __init__(self, browser: _Pipe, session: str) -> None:
        self._browser = browser
        self._session = session
        self.faults: list[str] = []
        """What its console, its policy or its scripts complained of."""
        browser.listeners[session] = self._note

    def _note(self, method: str, values: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.faults.append(json.dumps(values["exceptionDetails"])[:500])
        if method == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
            self.faults.append(f"{values['entry']['text']} {values['entry'].get('url', '')}")

    async def call(self, method: str, **values: Any) -> dict[str, Any]:
        return await self._browser.call(method, values, self._session)

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)

    async def value(self, expression: str) -> Any:
        """Of a JavaScript expression; a promise is waited for."""
        answer = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, expression: str, *, seconds: float = 20.0) -> Any:
        """Wait until it is true; what is not there yet is not."""
        guarded = f"(() => {{ try {{ return {expression} }} catch {{ return false }} }})()"
        try:
            async with asyncio.timeout(seconds):
                while not (value := await self.value(guarded)):  # noqa: ASYNC110
                    await asyncio.sleep(POLL_SECONDS)
                return value
        except TimeoutError:
            text = await self.value("document.body.innerText")
            raise AssertionError(f"not within {seconds:g} s: {expression}\n{text}") from None

    async def size(self, width: int, height: int, *, scale: float = 1.0) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )

    async def dark(self, is_dark: bool = True) -> None:
        scheme = "dark" if is_dark else "light"
        await self.call(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
        )

    async def press(self, key: str, code: int, text: str = "") -> None:
        """A key, down and up."""
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code, "text": text}
        await self.call("Input.dispatchKeyEvent", type="keyDown", **common)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    async def screenshot(self, path: Path, *, whole: bool = False) -> None:
        answer = await self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))


class _Pipe:
    """Calls and answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.WriteTransport) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.listeners: dict[str, Any] = {}

    async def read(self) -> None:
        while True:
            message = json.loads((await self._reader.readuntil(b"\0"))[:-1])
            asked = self._asked.pop(message.get("id", 0), None)
            if asked is not None and not asked.done():
                asked.set_result(message)
            elif "method" in message and (listener := self.listeners.get(message.get("sessionId", ""))):
                listener(message["method"], message.get("params", {}))

    async def call(self, method: str, values: dict[str, Any], session: str = "") -> dict[str, Any]:
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        message: dict[str, Any] = {"id": number, "method": method, "params": values}
        if session:
            message["sessionId"] = session
        self._writer.write(json.dumps(message).encode() + b"\0")
        async with asyncio.timeout(ANSWER_SECONDS):
            found = await answer
        assert "error" not in found, f"{method}: {found['error']}"
        return found["result"]


@contextlib.asynccontextmanager
async def browser_page(directory: Path) -> AsyncIterator[Page]:
    """A tab of a browser of its own, whose profile is in `directory`; gone at the end."""
    command = find_browser()
    to_browser, own_write = os.pipe()
    own_read, from_browser = os.pipe()
    arguments = [
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
        *("--disable-background-networking", "--disable-extensions", "--disable-sync", "--hide-scrollbars"),
        *("--remote-debugging-pipe", f"--user-data-dir={directory / 'profile'}", "about:blank"),
    ]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", LAUNCH, str(to_browser), str(from_browser), command, *arguments),
        pass_fds=(to_browser, from_browser),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(to_browser)
    os.close(from_browser)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 28)
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(own_read, "rb", buffering=0)
    )
    writer, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(own_write, "wb", buffering=0))
    pipe = _Pipe(reader, writer)
    reading = asyncio.create_task(pipe.read())
    try:
        target = await pipe.call("Target.createTarget", {"url": "about:blank"})
        session = await pipe.call("Target.attachToTarget", {"targetId": target["targetId"], "flatten": True})
        page = Page(pipe, session["sessionId"])
        for domain in ("Page", "Runtime", "Log"):
            await page.call(f"{domain}.enable")
        yield page
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        writer.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        await process.wait()
