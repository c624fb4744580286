"""A site's own meter: read over HTTP, believed while it is fresh, and never less than the GPUs."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.fake_drivers import FakeGpus
from support.json_server import JsonServer, json_server
from support.raw_server import raw_server
from support.wait import until

from fleet.config import ConfigError
from site_agent import config as site_config
from site_agent import correction, meter_check
from site_agent.meter_options import MeterOptions
from site_agent.site_meter import MAX_ANSWER_BYTES, HttpMeter, MeterError
from tests.integration.site_agent.test_agent import running_agent
from tests.integration.site_agent.test_power_loop import MODEL, FakeCap, running_loop

PATH = "PowerControl.0.PowerConsumedWatts"


def redfish(watts: Any) -> dict[str, Any]:
    """As a management controller answers `/redfish/v1/Chassis/1/Power`."""
    return {"@odata.type": "#Power.v1_5_0.Power", "PowerControl": [{"PowerConsumedWatts": watts}]}


def options(server: JsonServer, **values: Any) -> MeterOptions:
    quick = {"period_seconds": 0.1, "timeout_seconds": 0.5, "max_age_seconds": 0.6}
    return MeterOptions.model_validate({"url": server.url, "path": PATH, **quick, **values})


@asynccontextmanager
async def running_meter(of: MeterOptions) -> AsyncIterator[HttpMeter]:
    meter = HttpMeter(of)
    running = asyncio.create_task(meter.run())
    yield meter
    running.cancel()
    await meter.aclose()


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_a_meter_is_followed_lost_and_found_again() -> None:
    """While it says nothing new, the last value counts for `max_age_seconds` and no longer."""
    async with json_server() as server:
        server.say(redfish(2100))
        async with running_meter(options(server)) as meter:
            assert meter.watts(now()) is None, "nothing was read yet"
            await until(lambda: meter.watts(now()) == 2100.0)
            server.say(redfish(2500))
            await until(lambda: meter.watts(now()) == 2500.0)
            await server.stop()
            await until(lambda: meter.watts(now()) is None)
            assert meter.failures > 0
            server.say(redfish(900))
            await server.start()
            await until(lambda: meter.watts(now()) == 900.0)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"status": 401}, "check username and password_file"),
        ({"status": 500}, "status 500"),
        ({"body": b"<html>"}, "no JSON"),
        ({"body": b"[" + b" " * MAX_ANSWER_BYTES + b"]"}, "no JSON of at most"),
        ({"body": b'{"PowerControl": []}'}, "nothing at '0'"),
        ({"delay_seconds": 5.0}, "no answer within 0.5 s"),
    ],
)
async def test_an_answer_that_is_none_says_what_to_do(answer: dict[str, Any], said: str) -> None:
    """And ends in time, whatever the other side does."""
    async with json_server() as server:
        for name, value in answer.items():
            setattr(server, name, value)
        meter = HttpMeter(options(server))
        with pytest.raises(MeterError, match=said):
            await meter.read()
        await meter.aclose()


async def test_name_and_password_come_from_their_file(tmp_path: Path) -> None:
    """Read at start; one that is not there is an error at start."""
    secret = tmp_path / "bmc-password"
    secret.write_text("s3cret\n")
    async with json_server() as server:
        server.say(redfish(700))
        meter = HttpMeter(options(server, username="heron", password_file=secret))
        assert await meter.read() == 700.0
        await meter.aclose()
        wanted = "Basic " + base64.b64encode(b"heron:s3cret").decode()
        assert server.requests[0].headers["authorization"] == wanted
        with pytest.raises(ConfigError, match="password_file"):
            HttpMeter(options(server, username="heron", password_file=tmp_path / "none"))


def test_the_password_file_is_beside_the_configuration(tmp_path: Path) -> None:
    """Relative paths are relative to that file; the lag is waited for before a model is judged."""
    file = tmp_path / "fleet.toml"
    file.write_text(
        '[[sites]]\nsite_id = "north"\nfarm_id = "f"\nstate_dir = "state"\n[sites.meter]\nlag_seconds = 2.5\n'
        f'url = "https://10.0.0.9/x"\npath = "{PATH}"\nusername = "heron"\npassword_file = "bmc"\n'
    )
    _, site = site_config.load(file, "north", {})
    assert site.meter is not None
    assert site.meter.password_file == tmp_path / "bmc"
    file.write_text(file.read_text().split("[sites.meter]")[0])
    _, without = site_config.load(file, "north", {})
    assert site.governor_rule().settle_seconds - without.governor_rule().settle_seconds == 2.5


async def test_the_meter_is_the_draw_and_the_gpus_are_its_least() -> None:
    """Lost, the GPUs count again; one that says less than the GPUs is not believed."""

    class Said:
        value: float | None = 2222.0

        def watts(self, _now: float) -> float | None:
            return self.value

    async with running_loop(gpus=FakeGpus(900.0)) as rig:
        meter = Said()
        rig.loop._site_meter = meter
        await until(lambda: rig.loop.draw(now())[:2] == (2222.0, "meter"))
        meter.value = 500.0
        await until(lambda: rig.loop.draw(now())[:2] == (900.0, "meter"))
        meter.value = None
        assert rig.loop.draw(now())[:2] == (pytest.approx(1.1 * (900.0 + 600.0)), "gpu")


async def test_what_the_meter_taught_is_kept_and_told_when_it_falls_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By GPUs that do not see the overhead, then by the model: the draw that is reported, and the cap."""
    monkeypatch.setattr(correction, "CORRECTION_DECAY_SECONDS", 1.0)
    worst = MODEL.worst_watts(MODEL.uniform(2), MODEL.full_clock_mhz)

    class Said:
        value: float | None = None

        def watts(self, _now: float) -> float | None:
            return self.value

    async with running_loop(gpus=FakeGpus(560.0), cap=FakeCap(watts=3 * worst)) as rig:
        await rig.all_ready()
        meter = Said()
        rig.loop._site_meter = meter
        await until(lambda: rig.loop.governor.clock_mhz == MODEL.full_clock_mhz)
        meter.value = 1.2 * worst
        await until(lambda: rig.loop.governor.correction_ratio > 1.19)
        meter.value = None
        await until(lambda: rig.loop.draw(now()).source == "gpu")
        by_gpus = MODEL.power.site_watts(560.0)
        assert rig.loop.draw(now()).watts == pytest.approx(1.2 * by_gpus, rel=0.01)
        rig.gpus.watts = None
        await until(lambda: rig.loop.draw(now()).source == "modelled")
        modelled = MODEL.modelled_watts([0, 0], MODEL.full_clock_mhz)
        await until(lambda: rig.loop.status is not None and rig.loop.status.draw_source == "modelled")
        assert rig.loop.status is not None
        assert rig.loop.status.draw_watts == pytest.approx(1.2 * modelled, rel=0.01)
        await asyncio.sleep(2.0)  # twice as long as what was learnt takes to fade
        assert rig.loop.governor.correction_ratio > 1.19


async def test_a_whole_site_with_a_meter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Report, metrics and energy go by it; when it falls silent they say so."""
    async with json_server() as server:
        server.say(redfish(4000))
        meter = options(server).model_dump()
        async with running_agent(tmp_path, monkeypatch, meter=meter) as site:
            await site.until_report({"state": "serving"})
            await site.until_metric('heron_site_power_draw_watts{site="north",source="meter"}', 4000.0)
            assert (await site.report())["power"]["draw_source"] == "meter"
            before = await site.metric("heron_site_energy_joules_total")
            began_at = now()
            await site.until_metric("heron_site_energy_joules_total", before + 8000.0)
            seconds = now() - began_at
            spent = await site.metric("heron_site_energy_joules_total") - before
            assert spent == pytest.approx(4000.0 * seconds, abs=2 * 4000.0), "by steps of a second"
            await server.stop()
            await site.until_metric("heron_site_meter_failures_total", 1)
            await site.until_metric('heron_site_power_draw_watts{site="north",source="gpu"}', 1.0)


@pytest.mark.parametrize(
    ("watts", "gpu_watts", "status", "said"),
    [
        (2000, 900.0, "pass", "2000 W now"),
        (2000, None, "pass", "2000 W now"),
        (2, 900.0, "fail", "the GPUs alone draw 900 W"),
        (0, 900.0, "fail", "cannot be"),
    ],
)
async def test_the_doctor_asks_the_meter(
    watts: float, gpu_watts: float | None, status: str, said: str
) -> None:
    """And holds it against the GPUs; a failure says what to do."""
    async with json_server() as server:
        server.say(redfish(watts))
        [found] = await meter_check.examine(options(server), gpu_watts)
    assert (found.status, bool(found.action)) == (status, status == "fail")
    assert said in found.message
    assert await meter_check.examine(None, gpu_watts) == []


async def test_an_answer_that_httpx_chokes_on_is_no_value() -> None:
    """A redirect to nowhere that is not even followed."""
    answer = b"HTTP/1.1 302 Found\r\nlocation: x:y\r\ncontent-length: 0\r\n\r\n"
    async with raw_server(answer) as port:
        of = MeterOptions.model_validate(
            {"url": f"http://127.0.0.1:{port}/", "path": PATH, "period_seconds": 0.1}
        )
        async with running_meter(of) as meter:
            await until(lambda: meter.failures >= 2)
