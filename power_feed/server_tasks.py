"""Switches the servers of this feed: asks the rule, tells the driver.

Rule: a switch that does not answer is counted and said, and tried again; nothing else waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

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
"""Between two questions for the power state; after each command it is asked at once."""


@dataclass(slots=True)
class _Server:
    driver: ServerDriver
    switch: ServerSwitch
    is_on: bool | None = None
    is_asked: asyncio.Event = field(default_factory=asyncio.Event)
    """Once its driver has answered, or could not."""
    is_stale: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it was switched: what is known of it is of before."""
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

    def loops(self) -> dict[str, Callable[[], Coroutine[None, None, None]]]:
        """Two per server, by name, that run for ever."""
        found: dict[str, Callable[[], Coroutine[None, None, None]]] = {}
        for site_id, server in self._servers.items():
            found[f"server {site_id}"] = partial(self._decide, site_id, server)
            found[f"state of server {site_id}"] = partial(self._ask, site_id, server)
        return found

    async def aclose(self) -> None:
        """Let go of the drivers; the servers stay as they are."""
        for server in self._servers.values():
            await server.driver.aclose()

    async def _ask(self, site_id: str, server: _Server) -> None:
        """Its power state, in a task of its own: a controller that answers slowly holds up no decision."""
        while True:
            server.is_stale.clear()
            try:
                is_on = await server.driver.is_on()
            except ServerDriverError as error:
                self._fail(site_id, server, error)
            else:
                if server.is_stale.is_set():  # switched meanwhile: that was asked too early
                    continue
                server.is_on, server.is_failing = is_on, False
            server.is_asked.set()
            with suppress(TimeoutError):  # not wait_for, which in Python 3.11 may lose a cancellation
                async with asyncio.timeout(STATE_SECONDS):
                    await server.is_stale.wait()

    async def _decide(self, site_id: str, server: _Server) -> None:
        await server.is_asked.wait()
        while True:
            view = self._view(site_id)
            command = None
            if view is not None:
                now = asyncio.get_running_loop().time()
                command = server.switch.decide(replace(view, is_on=server.is_on), now)
            if command is not None:
                self._on_command(site_id, command)
                level = logging.DEBUG if command == server.last_command else logging.WARNING
                server.last_command = command
                logger.log(level, "server of site %s: switched %s", site_id, command)
                try:
                    await server.driver.switch(on=command == "on")
                except ServerDriverError as error:
                    self._fail(site_id, server, error)
                server.is_stale.set()
            await asyncio.sleep(LOOK_SECONDS)

    def _fail(self, site_id: str, server: _Server, error: ServerDriverError) -> None:
        self._on_error(site_id)
        server.is_on = None
        if not server.is_failing:
            logger.warning("server of site %s cannot be switched: %s", site_id, error)
        server.is_failing = True
