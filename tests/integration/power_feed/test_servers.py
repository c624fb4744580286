"""Switching a server: against a controller that speaks Redfish, and by Wake-on-LAN on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from support.golden_records import golden_value
from support.raw_server import raw_server
from support.redfish_controller import SYSTEM, Controller
from support.wait import until, until_it_says

from cli.ports import free_ports
from fleet.memory_store import MemoryStore
from fleet.records import SiteInfo, SitePower, SiteReport
from power_feed.app import FeedService
from power_feed.config import FeedConfig
from power_feed.server_switch import ServerSwitch, SwitchCommand, SwitchRule, SwitchView
from power_feed.server_tasks import ServerTasks
from power_feed.servers.interface import ServerDriverError
from power_feed.servers.redfish import RedfishServer
from power_feed.servers.wake_on_lan import WakeOnLanServer, magic_packet

EMULATOR = os.environ.get("HERON_SUSHY_EMULATOR") or shutil.which("sushy-emulator")
EMULATED_ID = "27946b59-9e44-4fa7-8e91-f3527a1ef094"


@pytest.fixture
def controller() -> Iterator[Controller]:
    subject = Controller()
    yield subject
    subject.close()


def redfish(url: str) -> RedfishServer:
    return RedfishServer(url, username="heron", password="secret", is_verified=True)


async def test_redfish_says_and_sets_the_power_state(controller: Controller) -> None:
    """The standard's two calls, with a hard switch."""
    server = redfish(controller.url)
    assert await server.is_on() is True
    await server.switch(on=False)
    assert await server.is_on() is False
    await server.switch(on=True)
    assert await server.is_on() is True
    posts = [one for one in controller.asked if one[0] == "POST"]
    assert [json.loads(body)["ResetType"] for _, _, body in posts] == ["ForceOff", "On"]
    assert {path for _, path, _ in posts} == {f"{SYSTEM}/Actions/ComputerSystem.Reset"}
    controller.state = "Unknown"
    assert await server.is_on() is None
    await server.aclose()


async def test_a_controller_that_refuses_or_is_away_says_what_to_do(controller: Controller) -> None:
    """Wrong password; nobody there."""
    server = redfish(controller.url)
    controller.status = 401
    with pytest.raises(ServerDriverError, match="check username"):
        await server.is_on()
    controller.status = 500
    with pytest.raises(ServerDriverError, match="status 500"):
        await server.switch(on=True)
    await server.aclose()
    away = redfish("http://127.0.0.1:1/redfish/v1/Systems/1")
    with pytest.raises(ServerDriverError, match="is the controller up"):
        await away.is_on()
    await away.aclose()


@pytest.fixture
async def emulator(tmp_path: Path) -> AsyncIterator[str]:
    """OpenStack's emulated controller (sushy-tools), with a server that is only pretended."""
    if EMULATOR is None:
        missing = "no sushy-emulator: scripts/test installs it, or name it in HERON_SUSHY_EMULATOR"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    [port] = free_ports(1)
    system = {"uuid": EMULATED_ID, "name": "coast-1", "power_state": "On", "nics": []}
    path = tmp_path / "emulator.conf"
    path.write_text(
        f"SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\nSUSHY_EMULATOR_LISTEN_PORT = {port}\n"
        f"SUSHY_EMULATOR_FAKE_DRIVER = True\nSUSHY_EMULATOR_FAKE_SYSTEMS = [{system!r}]\n"
        f"SUSHY_EMULATOR_STATE_DIR = {str(tmp_path)!r}\n"
    )
    process = await asyncio.create_subprocess_exec(
        EMULATOR, "--config", str(path), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}/redfish/v1/Systems/{EMULATED_ID}"

    async def answers() -> bool:
        async with httpx.AsyncClient() as client:
            try:
                return (await client.get(url)).status_code == 200
            except httpx.HTTPError:
                return False

    try:
        await until_it_says(answers, seconds=60, what="the emulator's start")
        yield url
    finally:
        process.terminate()
        await process.wait()


async def test_a_redfish_controller_of_another_maker_is_switched(emulator: str) -> None:
    """Not our own stub: what it takes is what the standard says."""
    server = redfish(emulator)
    assert await server.is_on() is True
    for on in (False, True):
        await server.switch(on=on)

        async def has_switched(wanted: bool = on) -> bool:
            return await server.is_on() is wanted

        await until_it_says(has_switched, seconds=60)
    await server.aclose()


class NetworkCard:
    """Hears the packets that are sent to it, on loopback."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])

    def __enter__(self) -> NetworkCard:
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _hear(self) -> None:
        self.packets.append(self._socket.recv(1024))


def wake_on_lan(port: int, *off_command: str, off_seconds: float = 0.0) -> WakeOnLanServer:
    return WakeOnLanServer(
        "00:1a:2B:3c:4d:5e",
        broadcast="127.0.0.1",
        port=port,
        off_command=off_command or ("true",),
        off_seconds=off_seconds,
    )


async def test_a_server_counts_as_drawing_until_its_power_is_gone(tmp_path: Path) -> None:
    """The command comes back before it cuts the power, as the documented one does."""
    gone = tmp_path / "gone"
    server = wake_on_lan(9, "sh", "-c", f"(sleep 0.2; touch {gone}) >/dev/null 2>&1 &", off_seconds=2.0)
    switching = asyncio.create_task(server.switch(on=False))
    await until(gone.exists, seconds=60)
    assert await server.is_on() is None
    await switching
    assert await server.is_on() is False


async def test_wake_on_lan_sends_the_magic_packet() -> None:
    """Six times 0xFF and sixteen times the address; what is no address is refused."""
    with NetworkCard() as card:
        server = wake_on_lan(card.port)
        await server.switch(on=True)
        await until(lambda: len(card.packets) == 3, seconds=60)
        assert set(card.packets) == {b"\xff" * 6 + bytes.fromhex("001a2b3c4d5e") * 16}
    assert await server.is_on() is None
    with pytest.raises(ValueError, match="six pairs"):
        magic_packet("00:1a")


async def test_a_server_that_wakes_by_packet_is_stopped_by_a_command() -> None:
    """It is off once the command has ended with 0; one that fails says so."""
    server = wake_on_lan(9)
    await server.switch(on=False)
    assert await server.is_on() is False
    for command, says in (
        (["false"], "ended with 1"),
        (["sh", "-c", "exit 255"], "come back before it cuts the power"),
        (["no-such-program-here"], "No such file"),
    ):
        broken = wake_on_lan(9, *command)
        with pytest.raises(ServerDriverError, match=says):
            await broken.switch(on=False)
        assert await broken.is_on() is None


async def test_the_tasks_switch_off_what_has_no_grant_and_on_what_has_one(controller: Controller) -> None:
    """Through the rule; a controller that is away is counted and tried again."""
    commands: list[SwitchCommand] = []
    errors: list[str] = []
    watts = [0.0]
    rule = SwitchRule(min_off_seconds=0.0, retry_seconds=0.5)
    tasks = ServerTasks(
        {"coast": (redfish(controller.url), ServerSwitch(rule=rule))},
        lambda _site: SwitchView(granted_watts=watts[0], is_on=None, ride_through_seconds=0.2),
        on_command=lambda _site, command: commands.append(command),
        on_error=errors.append,
    )
    controller.status = 500
    running = [asyncio.create_task(work()) for work in tasks.loops().values()]
    await until(lambda: errors, seconds=60)
    controller.status = 200
    await until(lambda: tasks.is_off("coast"), seconds=60)
    assert controller.state == "Off"
    watts[0] = 2000.0
    await until(lambda: controller.state == "On", seconds=60)
    assert not tasks.is_off("coast")
    assert set(commands) == {"off", "on"}
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await tasks.aclose()
    assert not tasks.is_off("another")


async def test_a_stop_in_the_moment_of_a_switch_is_not_lost() -> None:
    """The state is asked anew because the server was switched, and the feed stops at once after."""
    driver = SlowDriver()
    tasks = ServerTasks(
        {"coast": (driver, ServerSwitch(rule=SwitchRule()))},
        lambda _site: None,
        on_command=lambda _site, _command: None,
        on_error=lambda _site: None,
    )
    asking = asyncio.create_task(tasks.loops()["state of server coast"]())
    await until(lambda: driver.questions == 1)
    await asyncio.sleep(0.01)  # it waits for two seconds, or for a switch
    tasks._servers["coast"].is_stale.set()
    asking.cancel()
    driver.may_answer.set()
    await asyncio.wait([asking], timeout=1.0)
    assert asking.cancelled()


class SlowDriver:
    """Answers its second question when it is let, by what was so when it was asked; all else at once."""

    def __init__(self) -> None:
        self.is_server_on = True
        self.questions = 0
        self.may_answer = asyncio.Event()
        self.orders: list[bool] = []

    async def is_on(self) -> bool:
        self.questions += 1
        seen = self.is_server_on
        if self.questions == 2:
            await self.may_answer.wait()
        return seen

    async def switch(self, *, on: bool) -> None:
        self.is_server_on = on
        self.orders.append(on)

    async def aclose(self) -> None:
        pass


async def test_a_slow_controller_holds_up_no_decision() -> None:
    """Off comes while it is asked; what it was asked before it was switched is not believed."""
    driver, watts = SlowDriver(), [2000.0]
    tasks = ServerTasks(
        {"coast": (driver, ServerSwitch(rule=SwitchRule(retry_seconds=60.0)))},
        lambda _site: SwitchView(granted_watts=watts[0], is_on=None, ride_through_seconds=0.1),
        on_command=lambda _site, _command: None,
        on_error=lambda _site: None,
    )
    running = [asyncio.create_task(work()) for work in tasks.loops().values()]
    await until(lambda: driver.questions == 2, seconds=60, what="the second question, which stays open")
    watts[0] = 0.0
    await until(lambda: driver.orders, seconds=60, what="the order")
    assert driver.questions == 2
    assert not tasks.is_off("coast")
    driver.may_answer.set()  # on, as it was when that was asked
    await until(lambda: tasks.is_off("coast"), seconds=60, what="the word of a later one")
    assert driver.questions > 2
    assert driver.orders == [False]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def test_a_lost_packet_is_sent_again_until_the_server_is_heard() -> None:
    """Nobody acknowledges one; a report does."""
    heard: list[float] = []
    looks: list[str] = []
    rule = SwitchRule(min_off_seconds=0.0, retry_seconds=0.3)

    def view(site_id: str) -> SwitchView:
        looks.append(site_id)
        return SwitchView(granted_watts=2000.0, is_on=None, heard_at=heard[-1] if heard else None)

    with NetworkCard() as card:
        tasks = ServerTasks(
            {"coast": (wake_on_lan(card.port), ServerSwitch(rule=rule))},
            view,
            on_command=lambda _site, _command: None,
            on_error=lambda _site: None,
        )
        running = [asyncio.create_task(work()) for work in tasks.loops().values()]
        await until(lambda: len(card.packets) >= 9, seconds=60, what="three times three packets")
        heard.append(asyncio.get_running_loop().time())
        looked, sent = len(looks), len(card.packets)
        await until(lambda: len(looks) >= looked + 8, seconds=60, what="eight more looks")
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        assert len(card.packets) == sent


async def test_a_feed_that_is_restarted_wakes_a_server_that_is_off() -> None:
    """Wake-on-LAN cannot tell: a grant and silence are enough."""
    with NetworkCard() as card:
        coast = {
            "site_id": "coast",
            "server_idle_watts": 100.0,
            "max_site_watts": 900.0,
            "server": {
                "kind": "wake_on_lan",
                "mac": "00:1a:2b:3c:4d:5e",
                "broadcast": "127.0.0.1",
                "port": card.port,
                "off_command": ["false"],
            },
        }
        farm = {
            "farm_id": "coast-farm",
            "nameplate_watts": 3000.0,
            "source": {"kind": "schedule", "points": [[0, 0.7]]},
            "sites": [coast],
        }
        config = FeedConfig.model_validate({"port": 0, "interval_seconds": 0.1, "farms": [farm]})
        feed = FeedService(config, MemoryStore(clock=time.monotonic))
        await feed.start()
        try:
            await until(lambda: len(card.packets) >= 3, seconds=90, what="the packets")
            page = feed.exposition()
            assert b'heron_feed_server_commands_total{command="on",site="coast"} 1.0' in page
            assert re.search(rb'heron_feed_granted_watts{site="coast"} [1-9]', page)
        finally:
            await feed.stop()


async def test_a_feed_switches_a_server_with_the_wind(controller: Controller) -> None:
    """No wind: off, and shown so. Wind again: on, and granted to while it starts and says nothing."""
    site = {
        "site_id": "coast",
        "server_idle_watts": 100.0,
        "max_site_watts": 900.0,
        "server": {"kind": "redfish", "system_url": controller.url, "min_off_seconds": 0},
    }
    farm = {
        "farm_id": "coast-farm",
        "nameplate_watts": 1000.0,
        "source": {"kind": "schedule", "points": [[0, 0.5], [2, 0.0], [12, 0.5]]},
        "quality": {"max_ramp_ratio_per_second": 10},
        "sites": [site],
    }
    config = FeedConfig.model_validate({"port": 0, "interval_seconds": 0.1, "farms": [farm]})
    feed = FeedService(config, MemoryStore(clock=time.monotonic))
    await feed.start()
    try:
        await until(lambda: controller.state == "Off", seconds=60)
        await until(lambda: b'heron_feed_server_off{site="coast"} 1.0' in feed.exposition(), seconds=60)
        await until(lambda: controller.state == "On", seconds=60)
        await until(lambda: b'heron_feed_granted_watts{site="coast"} 500.0' in feed.exposition(), seconds=60)
        assert b'heron_feed_server_commands_total{command="off",site="coast"}' in feed.exposition()
    finally:
        await feed.stop()


@pytest.mark.parametrize("idle_watts", [100.0, None], ids=["known", "unknown"])
async def test_a_feed_whose_source_never_speaks_switches_off(
    controller: Controller, monkeypatch: pytest.MonkeyPatch, idle_watts: float | None
) -> None:
    """No power is known, and it draws idle; firm power covers that only where it is known."""
    monkeypatch.setattr("power_feed.farm.MAX_SILENT_PERIOD_SECONDS", 0.1)
    async with raw_server(None) as port:
        site = {
            "site_id": "coast",
            "server_idle_watts": idle_watts,
            "max_site_watts": 900.0,
            "safe_floor_watts": 50.0,
            "server": {"kind": "redfish", "system_url": controller.url, "min_off_seconds": 0},
        }
        farm = {
            "farm_id": "coast-farm",
            "nameplate_watts": 1000.0,
            "source": {"kind": "http", "url": f"http://127.0.0.1:{port}/x", "json_path": "a", "unit": "W"},
            "sites": [site],
        }
        config = FeedConfig.model_validate({"port": 0, "interval_seconds": 0.1, "farms": [farm]})
        feed = FeedService(config, MemoryStore(clock=time.monotonic))
        await feed.start()
        try:
            await until(lambda: controller.state == "Off", seconds=60)
        finally:
            await feed.stop()


async def test_a_feed_switches_by_the_age_that_a_report_gives_the_ride_through(
    controller: Controller,
) -> None:
    """Of a quarter of an hour, all but gone when the wind is: the server does not stay on for as long."""
    site = {
        "site_id": "coast",
        "server_idle_watts": 100.0,
        "max_site_watts": 900.0,
        "server": {"kind": "redfish", "system_url": controller.url},
    }
    farm = {
        "farm_id": "coast-farm",
        "nameplate_watts": 1000.0,
        "source": {"kind": "schedule", "points": [[0, 0.0]]},
        "sites": [site],
    }
    config = FeedConfig.model_validate({"port": 0, "interval_seconds": 0.1, "farms": [farm]})
    store, sequence = MemoryStore(clock=time.monotonic), int(time.time() * 1000)
    info = SiteInfo.model_validate(
        golden_value("SiteInfo") | {"site_id": "coast", "ride_through_seconds": 900.0}, strict=False
    )
    await store.publish_site_info("coast", info.to_json())
    feed = FeedService(config, store)

    async def report(episode_seconds: float | None) -> None:
        nonlocal sequence
        sequence += 1
        record = SiteReport(
            agent_id="agent",
            sequence=sequence,
            site_id="coast",
            observed_at_unix_seconds=time.time(),
            ingress_url="http://127.0.0.1:1",
            state="draining",
            power=SitePower(episode_seconds=episode_seconds),
        )
        await store.publish_site_report("coast", record.to_json(), time.time())

    async def is_off_by(age: float) -> bool:
        await report(age)
        return controller.state == "Off"

    await feed.start()
    try:
        await report(None)
        await until(lambda: b'heron_feed_granted_watts{site="coast"} 0.0' in feed.exposition(), seconds=60)
        assert controller.state == "On"
        await until_it_says(lambda: is_off_by(899.9), seconds=60, what="the switch")
    finally:
        await feed.stop()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n" + b"[" * 200_000,
        b"HTTP/1.1 500 No\r\ncontent-type: text/plain; charset=hex\r\ncontent-length: 1\r\n\r\nx",
        b"HTTP/1.1 302 Found\r\nlocation: x:y\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
    ],
    ids=["deep", "odd charset", "odd redirect", "never whole"],
)
async def test_a_controller_that_answers_nonsense_is_one_that_fails(
    monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    """Neither ends the feed nor holds up an order for ever."""
    monkeypatch.setattr("power_feed.servers.redfish.TIMEOUT_SECONDS", 0.5)
    async with raw_server(answer) as port:
        server = redfish(f"http://127.0.0.1:{port}/redfish/v1/Systems/1")
        with pytest.raises(ServerDriverError):
            await server.is_on()
        await server.aclose()
