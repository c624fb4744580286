"""How the agent ends where it has not come up yet, or fails itself."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path

import pytest
from support.scripted_store import ScriptedStore
from support.wait import until

from site_agent import app, drivers
from site_agent.drivers.emulated import EmulatedHardware
from site_agent.drivers.interface import DriverContext, Drivers
from site_agent.processes import Processes, WatchdogError
from tests.integration.site_agent.test_agent import running_agent, site_config


@pytest.mark.parametrize("hangs", ["create", "open"])
async def test_sigterm_is_heard_while_drivers_hang(
    hangs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As nvmlInit may: that is said, and holds up no end."""
    reached, released = threading.Event(), threading.Event()
    create = drivers.create

    def never(context: DriverContext) -> Drivers:
        reached.set()
        released.wait(60)
        return create(context)

    async def never_open(_self: EmulatedHardware) -> None:
        reached.set()
        await asyncio.Event().wait()

    if hangs == "create":
        monkeypatch.setattr(drivers, "create", never)
    else:
        monkeypatch.setattr(EmulatedHardware, "open", never_open)
    monkeypatch.setattr(app, "SLOW_DRIVERS_SECONDS", 0.1)
    fleet, site = site_config(tmp_path, "http://127.0.0.1:9")
    serving = asyncio.create_task(app.serve(fleet, site, store=ScriptedStore()))  # type: ignore[arg-type]
    try:
        await until(reached.is_set)
        if hangs == "create":
            await until(lambda: any("nvidia-smi" in line for line in caplog.messages), what="it is said")
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(serving, 20)
        assert sum("nvidia-smi" in line for line in caplog.messages) == (hangs == "create")
    finally:
        released.set()


async def test_an_agent_that_fails_itself_kills_its_engines_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody governs them any more: they get no grace, and do not wait for anything."""
    ends: list[tuple[str, bool]] = []
    close, close_agent = EmulatedHardware.aclose, app.SiteAgent.aclose

    async def noted(self: EmulatedHardware, *, kill: bool = False) -> None:
        ends.append(("engines", kill))
        await close(self, kill=kill)

    async def noted_agent(self: app.SiteAgent) -> None:
        ends.append(("agent", False))
        await close_agent(self)

    is_gone = threading.Event()
    beat = Processes.beat

    def fail(self: Processes) -> None:
        if is_gone.is_set():
            raise WatchdogError("gone")
        beat(self)

    monkeypatch.setattr(Processes, "beat", fail)
    monkeypatch.setattr(EmulatedHardware, "aclose", noted)
    monkeypatch.setattr(app.SiteAgent, "aclose", noted_agent)
    with pytest.raises(ExceptionGroup) as error:  # noqa: PT012 -- the agent fails while it is looked at
        async with running_agent(tmp_path, monkeypatch) as site:
            await site.until_report({"state": "serving"})
            is_gone.set()
            await until(lambda: len(ends) >= 2)
    assert error.value.subgroup(WatchdogError) is not None
    assert ends[:2] == [("engines", True), ("agent", False)]
