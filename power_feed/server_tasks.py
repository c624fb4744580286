"""Switches the servers of this feed: asks the rule, tells the driver. One task per server.

Rule: a switch that does not answer is counted and said, and tried again; nothing else waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace

from power_feed.server_switch import (
    LOOK_SECONDS,
    NO_SWITCH,
    ServerState,
    ServerSwitch,
    SwitchCommand,
    SwitchView,
)
from power_feed.servers.interface import ServerDriver, ServerDriverError

logger = logging.getLogger(__name__)

STATE_SECONDS = 2.0
"""Between two questions for the power state, and after each command."""


@dataclass(slots=True)
class _Server:
    driver: ServerDriver
    switch: ServerSwitch
    is_on: bool | None = None
    asked_at: float = float("-inf")
    is_failing: bool = False
    last_command: SwitchCommand | None = None


class ServerTasks:
    """All servers that have a switch."""

    def __init__(
        self,
        drivers: Mapping[str, tuple[ServerDriver, ServerSwitch]],
        view: Callable[[str], SwitchView | None],
        *,
        on_command: Callable[[str, SwitchCommand], None],
        on_error: Callable[[str], None],
    ) -> None:
        """`view(site)` says what is known of a site, its power state aside; None: too little to decide yet.
        The others count.
        """
        self._servers = {site_id: _Server(driver, switch) for site_id, (driver, switch) in drivers.items()}
        self._view = view
        self._on_command = on_command
        self._on_error = on_error

    def is_off(self, site_id: str) -> bool:
        """Known to draw nothing; never so without a switch."""
        server = self._servers.get(site_id)
        return server is not None and server.switch.is_off

    def state(self, site_id: str, *, heard_at: float | None, is_listening: bool, now: float) -> ServerState:
        """For the allocator; nothing is said of a site without a switch."""
        server = self._servers.get(site_id)
        if server is None:
            return NO_SWITCH
        view = SwitchView(granted_watts=0.0, is_on=server.is_on, heard_at=heard_at, is_listening=is_listening)
        return server.switch.state(view, now)

    def start(self) -> list[tuple[str, Coroutine[None, None, None]]]:
        """One coroutine per server, with a name, that runs for ever."""
        return [
            (f"server {site_id}", self._run(site_id, server)) for site_id, server in self._servers.items()
        ]

    async def aclose(self) -> None:
        """Let go of the drivers; the servers stay as they are."""
        for server in self._servers.values():
            await server.driver.aclose()

    async def _run(self, site_id: str, server: _Server) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                if loop.time() - server.asked_at >= STATE_SECONDS:
                    server.asked_at = loop.time()
                    server.is_on = await server.driver.is_on()
                view = self._view(site_id)
                command = None
                if view is not None:
                    command = server.switch.decide(replace(view, is_on=server.is_on), loop.time())
                if command is not None:
                    self._on_command(site_id, command)
                    level = logging.DEBUG if command == server.last_command else logging.WARNING
                    server.last_command = command
                    logger.log(level, "server of site %s: switched %s", site_id, command)
                    await server.driver.switch(on=command == "on")
                    server.asked_at = float("-inf")
                server.is_failing = False
            except ServerDriverError as error:
                self._on_error(site_id)
                server.is_on = None
                if not server.is_failing:
                    logger.warning("server of site %s cannot be switched: %s", site_id, error)
                server.is_failing = True
            await asyncio.sleep(LOOK_SECONDS)
