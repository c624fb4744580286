"""`heron doctor` on sites with one thing wrong each."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from support.fake_hardware import MODEL, PROFILE, fake_hardware
from support.redis_server import RedisServer

from cli import doctor as command
from cli.main import main
from fleet.config import FleetConfig
from fleet.profile import PROFILES
from fleet.records import PowerReading
from gateway.client_request import ClientRequest, HotHandler
from gateway.server import HttpServer
from site_agent import doctor, leftovers
from site_agent.config import SiteConfig
from site_agent.drivers import nvml
from site_agent.drivers.fake_nvml import FakeNvml
from site_agent.promises import Finding

VLLM = {"kind": "vllm", "model": "m", "instances": 2}


class Feed:
    """Answers `/v1/power/north` as the test says."""

    def __init__(self) -> None:
        self.reading: dict[str, Any] | None = {
            "schema_version": PowerReading.model_fields["schema_version"].default,
            "feed_id": "f",
            "sequence": 1,
            "site_id": "north",
            "farm_id": "north-farm",
            "observed_at_unix_seconds": time.time(),
            "period_seconds": 1.0,
            "available_power_watts": 9000.0,
            "granted_power_watts": 8000.0,
            "nameplate_capacity_watts": 10_000.0,
            "quality": "good",
            "source": "test",
            "forecast": [],
        }
        self.server = HttpServer(hot=self._route)

    def _route(self, _method: str, _path: str) -> HotHandler:
        return self._answer

    async def _answer(self, request: ClientRequest) -> None:
        if self.reading is None:
            request.respond(404, (), b'{"error": {"message": "no such site"}}')
        else:
            request.respond(200, (), json.dumps(self.reading).encode())


def site(tmp_path: Path, **values: Any) -> SiteConfig:
    defaults: dict[str, Any] = {
        "site_id": "north",
        "farm_id": "north-farm",
        "state_dir": tmp_path / "north",
        "safe_floor_watts": 1600.0,
        "firm_power_source": "grid",
        "feed_url": "http://127.0.0.1:9",
    }
    return SiteConfig.model_validate(defaults | values)


def fleet(**values: Any) -> FleetConfig:
    return FleetConfig.model_validate({"redis_url": "redis://127.0.0.1:9/0"} | values)


async def look(config: SiteConfig, of: FleetConfig | None = None, **values: Any) -> dict[str, Finding]:
    found = await doctor.examine(of or fleet(), config, **values)
    assert all(one.action for one in found if one.status == "fail"), "a failure says what to do"
    return {one.check: one for one in found}


async def test_a_site_without_feed_and_redis_fails_for_the_feed_only(tmp_path: Path) -> None:
    """A site runs without Redis, not without power readings."""
    found = await look(site(tmp_path))
    assert (found["power feed"].status, found["Redis"].status) == ("fail", "warn")
    assert {one.status for name, one in found.items() if name != "power feed"} <= {"pass", "warn"}
    assert not (tmp_path / "north").exists(), "looking changes nothing"


@pytest.mark.parametrize(
    ("change", "check", "status"),
    [
        ({}, "power feed", "pass"),
        ({"quality": "suspect"}, "power feed", "warn"),
        ({"observed_at_unix_seconds": -3600.0}, "clock against the feed", "fail"),
        ({"observed_at_unix_seconds": 10.0}, "clock against the feed", "warn"),
        ({"feed_id": 7}, "power feed", "fail"),
        (None, "power feed", "fail"),
    ],
)
async def test_the_feed_is_asked_for_this_site(
    change: dict[str, Any] | None, check: str, status: str, tmp_path: Path
) -> None:
    """Reachable, knows the site, says something good, and its clock agrees (times are from now)."""
    feed = Feed()
    if change is not None and "observed_at_unix_seconds" in change:
        change = {"observed_at_unix_seconds": time.time() + change["observed_at_unix_seconds"]}
    if change is None:
        feed.reading = None
    else:
        assert feed.reading is not None
        feed.reading |= {"observed_at_unix_seconds": time.time()} | change
    await feed.server.start()
    found = await look(site(tmp_path, feed_url=f"http://127.0.0.1:{feed.server.port}"))
    await feed.server.stop(0)
    assert found[check].status == status, found


async def test_redis_is_asked_for_its_time(tmp_path: Path) -> None:
    """It answers, and its clock agrees."""
    redis = RedisServer(tmp_path)
    redis.start()
    try:
        found = await look(site(tmp_path), fleet(redis_url=redis.url))
    finally:
        redis.stop()
    assert (found["Redis"].status, found["clock against Redis"].status) == ("pass", "pass")


@pytest.mark.parametrize(
    ("token", "host", "status"),
    [
        (None, "127.0.0.1", "pass"),
        (None, "10.0.0.1", "fail"),
        ("short", "10.0.0.1", "warn"),
        ("x" * 32, "10.0.0.1", "pass"),
    ],
)
async def test_a_site_token_that_is_missing_or_weak_is_said(
    token: str | None, host: str, status: str, tmp_path: Path
) -> None:
    """On loopback none is needed."""
    found = await look(site(tmp_path, host=host), fleet(site_token=token))
    assert found["site token"].status == status


async def test_ports_that_are_taken_are_named(tmp_path: Path) -> None:
    """Which setting, which port, what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = await look(site(tmp_path, operations_port=port))
    assert (found["ports"].status, f"operations_port 127.0.0.1:{port}" in found["ports"].message) == (
        "fail",
        True,
    )
    assert found["ports"].action == "stop what has it, or change operations_port"


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid"])
async def test_a_host_that_is_not_this_machine_is_not_taken_for_a_taken_port(
    host: str, tmp_path: Path
) -> None:
    """There the address is wrong, and nothing has to be stopped."""
    found = await look(site(tmp_path, operations_host=host, operations_port=9101))
    assert (found["ports"].status, found["ports"].action) == (
        "fail",
        "change operations_host: it must be an address of this machine",
    )


@pytest.mark.parametrize(
    ("driver", "status", "action"),
    [
        ("auto", "warn", "the draw is modelled without it"),
        ("nvml", "fail", "the agent will not start"),
        ("nvml-read-only", "fail", "the agent will not start"),
    ],
)
async def test_what_a_missing_nvml_means_depends_on_the_driver_asked_for(
    driver: str, status: str, action: str, tmp_path: Path
) -> None:
    """Who asked for NVML gets no agent without it."""
    engine = {**VLLM, "gpu_driver": driver}
    found = await look(site(tmp_path, engine=engine), nvml_library=FakeNvml(has_driver=False))
    assert (found["GPUs"].status, found["GPUs"].action.partition(":")[0]) == (status, action)


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({**VLLM, "command": ["/no/such/vllm"]}, "no command"),
        ({**VLLM, "command": ["true"], "model_path": "/no/such/model"}, "no directory"),
        ({"kind": "external", "model": "m", "urls": ["http://127.0.0.1:9"]}, "does not answer"),
    ],
)
async def test_engines_that_cannot_run_fail(engine: dict[str, Any], message: str, tmp_path: Path) -> None:
    """vLLM, the model, or an engine of somebody else."""
    found = await look(site(tmp_path, engine={**engine, "gpu_driver": "none"}))
    assert found["engines"].status == "fail"
    assert message in found["engines"].message


async def test_external_engines_are_asked_for_their_model(tmp_path: Path) -> None:
    """Healthy and right, or healthy and another."""
    async with fake_hardware() as hardware:
        engine = {
            "kind": "external",
            "model": MODEL,
            "profile": PROFILE,
            "urls": [await hardware.start_engine()],
        }
        right = await look(site(tmp_path, engine=engine))
        wrong = await look(site(tmp_path, engine={**engine, "model": "mixtral"}))
    assert (right["engines"].status, wrong["engines"].status) == ("pass", "fail")
    assert MODEL in wrong["engines"].message


@pytest.mark.parametrize(
    ("library", "options", "check", "status"),
    [
        (FakeNvml(), {}, "GPUs", "pass"),
        (FakeNvml(), {}, "GPU clocks", "pass"),
        (FakeNvml(is_permitted=False), {}, "GPU clocks", "warn"),
        (FakeNvml(has_instant_power=False), {}, "GPU power", "warn"),
        (FakeNvml(has_instant_power=False), {}, "ladder", "fail"),
        (FakeNvml(count=8), {}, "spare GPUs", "pass"),
        (FakeNvml(count=1), {}, "GPUs", "fail"),
        (FakeNvml(has_driver=False), {}, "GPUs", "warn"),
        (FakeNvml(has_driver=False), {"gpu_driver": "nvml"}, "GPUs", "fail"),
        (FakeNvml(), {"gpus_per_instance": 0}, "GPUs", "warn"),
    ],
)
async def test_gpus_driver_count_and_permission(
    library: FakeNvml,
    options: dict[str, Any],
    check: str,
    status: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the fake of NVML, on which nothing is changed, and which is closed again."""
    monkeypatch.setattr(nvml, "may_administer", lambda: library.is_permitted)
    found = await look(site(tmp_path, engine={**VLLM, **options}), nvml_library=library)
    assert found[check].status == status, found
    assert (library.orders, library.is_open) == (0, False)


async def test_a_lost_gpu_is_a_finding_never_a_traceback(tmp_path: Path) -> None:
    """A failure where an instance uses it, a warning where none does."""
    for lost, check, status in ((2, "spare GPUs", "warn"), (0, "GPUs", "fail")):
        library = FakeNvml(count=3)
        library.devices[lost].is_lost = True
        found = await look(site(tmp_path, engine=VLLM), nvml_library=library)
        assert (found[check].status, library.is_open) == (status, False), found


async def test_spare_gpus_count_in_the_idle_draw(tmp_path: Path) -> None:
    """Six that no instance uses, at what an H100 without an engine draws."""
    engine = {**VLLM, "profile": PROFILE, "gpus_per_instance": 4}
    config = site(tmp_path, engine=engine, safe_floor_watts=9000.0)
    seen = [doctor.Gpus(findings=(), spare_gpus=spare) for spare in (0, 6)]
    none, six = (doctor.numbers_of(config, gpus).server_idle_watts for gpus in seen)
    assert six - none == pytest.approx(6 * PROFILES[PROFILE].stopped_watts / 4 * 1.1)


def test_who_may_lock_clocks_is_read_from_the_process_status(tmp_path: Path) -> None:
    """CAP_SYS_ADMIN; nothing is tried on a GPU."""
    status = tmp_path / "status"
    for effective, may in (("000001ffffffffff", True), ("00000000a80425fb", False), ("", False)):
        status.write_text(f"Name:\tx\nCapEff:\t{effective}\n")
        assert nvml.may_administer(status) is may
    assert not nvml.may_administer(tmp_path / "none")


async def test_a_state_directory_that_cannot_be_used_and_what_an_earlier_agent_left(tmp_path: Path) -> None:
    """Leftovers are named; the next start stops them."""
    (tmp_path / "north" / "pids").mkdir(parents=True)
    (tmp_path / "north" / "pids" / "north-0.json").write_text("{}")
    found = await look(site(tmp_path))
    assert (found["state directory"].status, "north-0" in found["state directory"].message) == ("warn", True)
    if os.geteuid() != 0:
        (tmp_path / "north").chmod(0o500)
        assert (await look(site(tmp_path)))["state directory"].status == "fail"


async def test_beside_a_running_agent_nothing_is_touched(tmp_path: Path) -> None:
    """Neither ports nor clocks; the agent is asked as a router would."""
    library = FakeNvml()
    agent = HttpServer(hot=lambda _method, _path: _refuse_token)
    await agent.start()
    with leftovers.take_lock(tmp_path / "north"):
        library.devices[0].locked = (345, 800)
        found = await look(site(tmp_path, engine=VLLM, port=agent.port), nvml_library=library)
    await agent.stop(0)
    assert library.devices[0].locked == (345, 800)
    assert library.orders == 0
    assert found["GPUs"].status == "pass"
    assert found["ports"].message.startswith("not tried")
    assert (found["agent"].status, "token" in found["agent"].message) == ("fail", True)


REPORT = {
    "schema_version": "1.1",
    "agent_id": "a",
    "sequence": 1,
    "site_id": "north",
    "observed_at_unix_seconds": 1.0,
    "ingress_url": "http://127.0.0.1:9",
    "state": "dark",
    "models": [],
}


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (b"<html>", "fail", "something else answers there"),
        (b"[]", "fail", "something else answers there"),
        (json.dumps(REPORT | {"site_id": "south"}).encode(), "fail", "something else answers there"),
        (json.dumps(REPORT | {"state": "faulted"}).encode(), "fail", "see its log"),
        (json.dumps(REPORT).encode(), "pass", ""),
    ],
)
async def test_what_answers_at_the_agents_address_must_be_this_site(
    answer: bytes, status: str, said: str, tmp_path: Path
) -> None:
    """Another program, or another site, is said; never a traceback."""

    async def respond(request: ClientRequest) -> None:
        request.respond(200, (), answer)

    agent = HttpServer(hot=lambda _method, _path: respond)
    await agent.start()
    with leftovers.take_lock(tmp_path / "north"):
        found = await look(site(tmp_path, port=agent.port))
    await agent.stop(0)
    assert (found["agent"].status, said in found["agent"].action) == (status, True), found["agent"]


async def _refuse_token(request: ClientRequest) -> None:
    request.respond(401, (), b"{}")


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.toml"
    path.write_text(
        f'[fleet]\nredis_url = "redis://127.0.0.1:9/0"\n[[sites]]\nsite_id = "north"\nfarm_id = "f"\n'
        f'state_dir = "{tmp_path}/north"\nfeed_url = "http://127.0.0.1:9"\n'
    )
    return path


def test_the_command_prints_lines_or_json_and_its_exit_code_says_whether_anything_fails(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """1 with a failure, 0 with none, 2 for a configuration that is none."""
    assert main(["doctor", "--config", str(config_file)]) == 1
    lines = capsys.readouterr().out
    assert "FAIL power feed" in lines
    assert "do: start heron power-feed" in lines
    assert main(["doctor", "--config", str(config_file), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert {one["status"] for one in told["findings"]} == {"pass", "warn", "fail"}
    assert main(["doctor", "--config", str(config_file), "--site", "south"]) == 2
    well = command.as_lines("north", [Finding(check="c", status="pass", message="m")])
    assert well.endswith("1 well, 0 to look at, 0 failing")
