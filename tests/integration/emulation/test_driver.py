"""The driver of the fake hardware, as an agent uses it, against the real process."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from support.wait import until

from fleet.profile import LLAMA_70B_H100_TP4 as PROFILE
from fleet.profile import SitePowerModel
from site_agent.drivers import emulated
from site_agent.drivers.emulated_settings import POWER_LOG_NAME
from site_agent.drivers.interface import DriverContext, DriverError, InstanceSpec
from site_agent.drivers.options import EmulatedOptions, VllmOptions

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "baba"}], "max_tokens": 3}


class Registry:
    """Remembers which processes live."""

    def __init__(self) -> None:
        self.pids: list[int] = []

    def add(self, label: str, pid: int) -> None:
        """See ProcessRegistry."""
        assert label
        self.pids.append(pid)

    def remove(self, pid: int) -> None:
        """See ProcessRegistry."""
        self.pids.remove(pid)


class Site:
    """A driver and what it was given."""

    def __init__(self, state_dir: Path, **options: Any) -> None:
        self.registry = Registry()
        self.state_dir = state_dir
        self.specs = tuple(
            InstanceSpec(
                instance_id=f"north-{index}", index=index, port=0, model="llama-3.1-70b", gpu_indices=()
            )
            for index in range(2)
        )
        values = {
            "kind": "emulated",
            "instances": 2,
            "start_seconds": 0.0,
            "power_lag_seconds": 0.0,
        } | options
        self.context = DriverContext(
            site_id="north",
            state_dir=state_dir,
            specs=self.specs,
            options=EmulatedOptions.model_validate(values),
            profile=PROFILE,
            power_model=SitePowerModel(host_idle_watts=600.0),
            processes=self.registry,
        )
        drivers = emulated.create(self.context)
        self.engines, self.gpus = drivers.engines, drivers.gpus

    async def start(self, index: int = 0) -> str:
        """Start one engine; its URL once it is ready."""
        origin = await self.engines.start(self.specs[index])
        async with asyncio.timeout(30):
            while not await self.engines.is_ready(self.specs[index].instance_id):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        return origin

    async def fault(self, kind: str) -> None:
        """Script a fault over the control API that the file in the state directory names."""
        control = orjson.loads((self.state_dir / emulated.CONTROL_FILE_NAME).read_bytes())
        assert control["fake"] is True
        async with httpx.AsyncClient(base_url=control["control_url"]) as raw:
            answer = await raw.post("/engines/north-0/fault", json={"kind": kind})
            assert answer.status_code == 200


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A driver that is open."""
    made = Site(tmp_path)
    await made.engines.open()
    yield made
    await made.engines.aclose()
    assert made.registry.pids == []


async def test_engine_starts_serves_and_stops(site: Site) -> None:
    """Through the origin that `start` returned; stopping twice is fine."""
    assert not await site.engines.is_ready("north-0")
    origin = await site.start()
    async with httpx.AsyncClient(base_url=origin) as raw:
        answer = await raw.post("/v1/chat/completions", json=CHAT)
    assert answer.json()["usage"]["completion_tokens"] == 3
    await site.engines.stop("north-0")
    await site.engines.stop("north-0", kill=True)
    assert not await site.engines.is_ready("north-0")
    assert site.engines.exit_reason("north-0") is None
    with pytest.raises(httpx.ConnectError):
        await httpx.AsyncClient().get(f"{origin}/health")


async def test_watts_follow_engines_and_clocks_are_set(site: Site) -> None:
    """Only GPUs, no overhead; the log in the state directory has the site's."""
    assert site.gpus.is_fake
    assert site.gpus.can_set_clock
    watts = await site.gpus.power_watts()
    assert watts == pytest.approx(2 * PROFILE.stopped_watts, rel=0.03)
    await site.start()
    await site.gpus.set_clock("north-0", 800)
    await site.gpus.set_clock("north-0", None)
    watts = await site.gpus.power_watts()
    assert watts == pytest.approx(PROFILE.stopped_watts + PROFILE.idle_watts, rel=0.03)
    with pytest.raises(DriverError, match="takes 800 to 1980"):
        await site.gpus.set_clock("north-0", 5000)
    assert (site.state_dir / POWER_LOG_NAME).read_text().startswith("unix_seconds,site_watts,")


async def test_capabilities_are_those_of_the_engines(site: Site) -> None:
    """Token ids for exact resume, the profile's length."""
    capabilities = site.engines.capabilities()
    assert capabilities.token_ids
    assert not capabilities.sleep
    assert capabilities.max_model_len == PROFILE.max_model_len
    assert "/v1/chat/completions" in capabilities.paths


async def test_crashed_engine_is_told_apart_and_starts_again(site: Site) -> None:
    """The reason is known after the failed probe."""
    await site.start()
    assert site.engines.exit_reason("north-0") is None
    await site.fault("crash")
    assert not await site.engines.is_ready("north-0")
    assert "killed" in (site.engines.exit_reason("north-0") or "")
    await site.start()
    assert site.engines.exit_reason("north-0") is None


async def test_killed_process_is_noticed_and_started_anew_with_its_clocks(site: Site) -> None:
    """All its engines have ended; the next start brings the process back."""
    await site.start(0)
    await site.start(1)
    await site.gpus.set_clock("north-1", 800)
    (pid,) = site.registry.pids
    os.kill(pid, signal.SIGKILL)
    await until(lambda: site.engines.exit_reason("north-1") is not None, what="the news")
    assert "code -9" in (site.engines.exit_reason("north-0") or "")
    assert site.registry.pids == []
    assert await site.gpus.power_watts() is None
    assert not await site.engines.is_ready("north-0")
    with pytest.raises(DriverError, match="does not run"):
        await site.gpus.set_clock("north-0", 800)
    await site.start(0)
    assert await site.gpus.power_watts() is not None
    assert site.engines.exit_reason("north-1") is not None
    control = orjson.loads((site.state_dir / emulated.CONTROL_FILE_NAME).read_bytes())["control_url"]
    async with httpx.AsyncClient(base_url=control) as raw, asyncio.timeout(30):
        while {gpu["clock_mhz"] for gpu in (await raw.get("/host")).json()["gpus"]} != {800}:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_start_that_is_taken_back_leaves_no_process_half_started(site: Site) -> None:
    """As the governor does when power falls just then; the next start has it."""
    (pid,) = site.registry.pids
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not site.registry.pids, what="the end of the process")
    start = asyncio.create_task(site.engines.start(site.specs[0]))
    await until(lambda: bool(site.registry.pids), what="the next process, which has not said its port yet")
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    await site.start(0)
    assert await site.gpus.power_watts() is not None
    assert len(site.registry.pids) == 1


async def test_closing_while_the_process_comes_up_leaves_none(tmp_path: Path) -> None:
    """The fixture's rule, at the worst moment."""
    site = Site(tmp_path)
    opening = asyncio.create_task(site.engines.open())
    await until(lambda: bool(site.registry.pids), what="the process")
    (pid,) = site.registry.pids
    await site.engines.aclose()
    with pytest.raises(DriverError, match="closed"):
        await opening
    assert site.registry.pids == []
    assert not Path(f"/proc/{pid}").exists()


async def test_hanging_process_gives_unknown_watts_in_time(site: Site) -> None:
    """None, never 0; and closing does not wait for it for ever."""
    (pid,) = site.registry.pids
    os.kill(pid, signal.SIGSTOP)
    assert await site.gpus.power_watts() is None
    assert not await site.engines.is_ready("north-0")
    await site.engines.aclose()
    assert site.registry.pids == []


async def test_taken_port_has_its_own_reason(tmp_path: Path) -> None:
    """And names the port."""
    site = Site(tmp_path)
    await site.engines.open()
    try:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            spec = InstanceSpec(
                instance_id="north-0", index=0, port=port, model="llama-3.1-70b", gpu_indices=()
            )
            with pytest.raises(DriverError, match=str(port)) as caught:
                await site.engines.start(spec)
        assert caught.value.reason == "port_in_use"
    finally:
        await site.engines.aclose()


async def test_process_that_cannot_run_says_why(tmp_path: Path) -> None:
    """The end of its log is in the error."""
    site = Site(tmp_path, power_log=tmp_path / "absent" / "power.csv")
    with pytest.raises(DriverError, match="No such file or directory") as caught:
        await site.engines.open()
    assert caught.value.reason == "exited"
    await site.engines.aclose()
    with pytest.raises(DriverError, match="closed"):
        await site.engines.open()


def test_wrong_kind_and_missing_profile_are_refused(tmp_path: Path) -> None:
    """Before anything is started."""
    context = Site(tmp_path).context
    values = {name: getattr(context, name) for name in DriverContext.__slots__}
    with pytest.raises(DriverError, match="profile is missing"):
        emulated.create(DriverContext(**(values | {"profile": None})))
    options = VllmOptions(kind="vllm", model="m")
    with pytest.raises(DriverError, match="not 'emulated'"):
        emulated.create(DriverContext(**(values | {"options": options})))
