"""Redfish (DMTF DSP0266): a server's management controller, which has power when the server has none.

Two calls of the standard are enough: `GET <system>` for `PowerState`, and `POST <system>/Actions/
ComputerSystem.Reset` with `On` or `ForceOff`. docs/decisions/0016 says why there is no library between.
"""

from __future__ import annotations

import asyncio
import json

import httpx

from fleet.loops import errors_as
from power_feed.servers.interface import ServerDriverError

TIMEOUT_SECONDS = 5.0
MAX_ANSWER_BYTES = 1 << 20
STATES = {"On": True, "PoweringOff": True, "PoweringOn": True, "Paused": True, "Off": False}
"""On its way down it still draws, and on its way up already."""


class RedfishServer:
    """One ComputerSystem resource. Implements `ServerDriver`."""

    def __init__(
        self, system_url: str, *, username: str | None, password: str | None, is_verified: bool
    ) -> None:
        """`system_url`: of the ComputerSystem, e.g. `https://bmc/redfish/v1/Systems/1`."""
        self._url = system_url.rstrip("/")
        self._client = httpx.AsyncClient(
            auth=None if username is None else httpx.BasicAuth(username, password or ""),
            timeout=TIMEOUT_SECONDS,
            verify=is_verified,
            trust_env=False,
            headers={"accept": "application/json", "odata-version": "4.0"},
        )

    async def is_on(self) -> bool | None:
        """`PowerState`; None where the controller does not know it itself.

        Raises:
            ServerDriverError: no answer, or none that is a ComputerSystem.
        """
        answer = await self._ask("GET", self._url)
        try:
            state = json.loads(answer).get("PowerState")
        except (ValueError, AttributeError, RecursionError):
            raise ServerDriverError(f"{self._url}: no ComputerSystem: check system_url") from None
        return STATES.get(state) if isinstance(state, str) else None

    async def switch(self, *, on: bool) -> None:
        """`ComputerSystem.Reset`.

        Raises:
            ServerDriverError: no answer, or refused.
        """
        body = {"ResetType": "On" if on else "ForceOff"}
        await self._ask("POST", f"{self._url}/Actions/ComputerSystem.Reset", body)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _ask(self, method: str, url: str, body: dict[str, str] | None = None) -> bytes:
        with errors_as(ServerDriverError, f"{url}: is the controller up?"):
            async with (
                asyncio.timeout(TIMEOUT_SECONDS),  # of the whole: an answer may come a byte at a time
                self._client.stream(method, url, json=body) as answer,
            ):
                content = b""
                async for part in answer.aiter_bytes():
                    content += part
                    if len(content) > MAX_ANSWER_BYTES:
                        raise ServerDriverError(f"{url}: an answer of more than {MAX_ANSWER_BYTES} bytes")
        status = answer.status_code
        if status in (401, 403):
            raise ServerDriverError(f"{url}: status {status}: check username and password_file")
        if status >= 400:
            raise ServerDriverError(f"{url}: status {status}: {content[:200].decode(errors='replace')}")
        return content
