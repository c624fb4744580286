"""Engines that somebody else runs: real servers that the agent did not start, and must not touch."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support.fake_hardware import MODEL, PROFILE, fake_hardware
from support.openai_stub import serving
from support.rendering_engine import rendering_engine

from fleet.profile import PROFILES
from gateway.client_request import ClientRequest, HotHandler
from gateway.server import HttpServer
from site_agent.drivers import external
from site_agent.drivers.interface import DriverContext, InstanceSpec
from site_agent.drivers.options import ExternalOptions
from tests.integration.site_agent.test_agent import running_agent

FAR_BELOW_IDLE = 500.0
ENGINE = {"kind": "external", "model": MODEL, "profile": PROFILE, "gpu_driver": "none"}


def options(*urls: str, **values: Any) -> ExternalOptions:
    return ExternalOptions.model_validate({"kind": "external", "model": MODEL, "urls": urls} | values)


def driver(made: ExternalOptions, state_dir: Path) -> external.ExternalEngines:
    class NoProcesses:
        def add(self, label: str, pid: int) -> None:
            raise AssertionError(f"{label} {pid}: an external engine has no process of ours")

        remove = add  # type: ignore[assignment]

    specs = tuple(
        InstanceSpec(instance_id=f"north-{index}", index=index, port=0, model=made.model, gpu_indices=())
        for index in range(made.instances)
    )
    context = DriverContext(
        site_id="north",
        state_dir=state_dir,
        specs=specs,
        options=made,
        profile=None,
        power_model=external_power_model(),
        processes=NoProcesses(),
    )
    engines = external.create(context).engines
    assert isinstance(engines, external.ExternalEngines)
    return engines


def external_power_model() -> Any:
    from fleet.profile import SitePowerModel

    return SitePowerModel()


async def test_a_site_over_engines_of_another_serves_drains_and_leaves_them_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without power requests are refused, and the engines live on; with power they are admitted to."""
    async with AsyncExitStack() as stack:
        hardware = await stack.enter_async_context(fake_hardware(engines=2))
        urls = [await hardware.start_engine(f"north-{index}") for index in range(2)]
        site = await stack.enter_async_context(
            running_agent(tmp_path, monkeypatch, engine={**ENGINE, "urls": urls}, safe_floor_watts=0.0)
        )
        report = await site.until_report({"state": "serving", "ready": 2})
        assert report["power"]["draw_source"] == "modelled"
        idle = PROFILES[PROFILE].idle_watts
        assert report["power"]["draw_watts"] == pytest.approx(1.1 * (600 + 2 * idle), abs=1)
        body = {"model": MODEL, "prompt": "one two", "max_tokens": 4, "return_token_ids": True}
        answer = await site.client.post("/v1/completions", json=body)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["choices"][0]["token_ids"]) == 4

        site.grant(FAR_BELOW_IDLE)
        await site.until_report({"ready": 0})
        refused = await site.client.post("/v1/completions", json=body)
        assert (refused.status_code, refused.headers["x-heron-pushback"]) == (503, "power")
        assert [await hardware.state(f"north-{index}") for index in range(2)] == ["ready", "ready"]

        site.grant(9000.0)
        await site.until_report({"state": "serving", "ready": 2})
    assert not list((tmp_path / "north" / "pids").glob("*.json"))


async def test_an_engine_that_goes_is_given_up_and_taken_back_when_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one serves meanwhile."""
    restart = {"backoff_seconds": 0.1, "max_backoff_seconds": 0.2, "probe_seconds": 0.1, "probe_failures": 2}
    async with AsyncExitStack() as stack:
        hardware = await stack.enter_async_context(fake_hardware(engines=2))
        urls = [await hardware.start_engine(f"north-{index}") for index in range(2)]
        site = await stack.enter_async_context(
            running_agent(
                tmp_path,
                monkeypatch,
                engine={**ENGINE, "urls": urls, "start_timeout_seconds": 0.5},
                restart=restart,
                safe_floor_watts=0.0,
            )
        )
        await site.until_report({"ready": 2})
        await hardware.stop_engine("north-0")
        await site.until_report({"state": "serving", "ready": 1})
        port = int(urls[0].rpartition(":")[2])
        started = await hardware.control.post("/engines/north-0/start", json={"port": port})
        assert started.status_code == 200, started.text
        await site.until_report({"ready": 2})


async def test_capabilities_are_what_every_engine_says(tmp_path: Path) -> None:
    """Known once one was seen; exact resume only where the engines return token ids."""
    async with fake_hardware() as hardware, serving(lambda _body: "ok") as stub:
        one = driver(options(await hardware.start_engine()), tmp_path)
        assert not one.capabilities().token_ids
        assert not await one.is_ready("north-0"), "it is not admitted to yet"
        await one.start(spec := one_spec())
        await ready(one, spec)
        assert one.capabilities().max_model_len == PROFILES[PROFILE].max_model_len
        assert "/v1/chat/completions" in one.capabilities().paths
        await one.aclose()

        silent = driver(options(stub.url, engine_api_key="secret"), tmp_path)
        await silent.start(spec)
        await ready(silent, spec)
        assert not silent.capabilities().token_ids
        assert silent.capabilities().max_model_len is None
        assert all(headers["authorization"] == "bearer secret" for headers in stub.headers)
        await silent.stop("north-0")
        assert not await silent.is_ready("north-0")
        await silent.aclose()


@pytest.mark.parametrize(
    ("natives", "known"),
    [
        (("in_place", "in_place"), "in_place"),
        (("merged", "merged"), "merged"),
        (("in_place", "merged"), None),
    ],
)
async def test_what_becomes_of_inline_system_messages_is_said_where_all_engines_do_the_same(
    tmp_path: Path, natives: tuple[str, ...], known: str | None
) -> None:
    """A request may come to any of them."""
    engines = [rendering_engine("in_place", native=native, model=MODEL) for native in natives]
    for engine in engines:
        await engine.start()
    made = driver(options(*(f"http://127.0.0.1:{engine.port}" for engine in engines)), tmp_path)
    for index in range(len(engines)):
        spec = replace(one_spec(), instance_id=f"north-{index}", index=index)
        await made.start(spec)
        await ready(made, spec)
    assert made.capabilities().inline_system == known
    await made.aclose()
    for engine in engines:
        await engine.stop(0)


async def test_an_engine_of_another_model_is_refused_with_both_names(tmp_path: Path) -> None:
    """The message says what to set."""
    async with fake_hardware() as hardware:
        engines = driver(options(await hardware.start_engine(), model="mixtral"), tmp_path)
        await engines.start(one_spec())
        assert not await engines.is_ready("north-0")
        reason = engines.exit_reason("north-0")
        assert reason is not None
        assert MODEL in reason
        assert "'mixtral'" in reason
        await engines.aclose()


async def test_an_engine_that_was_cut_off_is_taken_back_when_it_works_or_has_nothing_to_do(
    tmp_path: Path,
) -> None:
    """One that hangs says that it is healthy, and that requests run; its counters stand still."""
    page = {"running": 2.0, "tokens": 100.0}

    def route(_method: str, path: str) -> HotHandler:
        async def answer(request: ClientRequest) -> None:
            body = b'{"data": [{"id": "%s"}]}' % MODEL.encode()
            if path == "/metrics":
                lines = (
                    "vllm:num_requests_running %(running)s",
                    "vllm:generation_tokens_total %(tokens)s",
                    "",
                )
                body = ("\n".join(lines) % page).encode()
            request.respond(200, (), body)

        return answer

    server = HttpServer(hot=route)
    await server.start()
    one, spec = driver(options(f"http://127.0.0.1:{server.port}"), tmp_path), one_spec()
    await one.start(spec)
    assert await one.is_ready(spec.instance_id), "never cut off: its health is enough"
    for change in ({"tokens": 101.0}, {"running": 0.0}):
        page |= {"running": 2.0}
        await one.stop(spec.instance_id, kill=True)
        await one.start(spec)
        assert [await one.is_ready(spec.instance_id) for _ in range(3)] == [False] * 3
        page |= change
        assert await one.is_ready(spec.instance_id)
    await one.aclose()
    await server.stop(0)


def one_spec() -> InstanceSpec:
    return InstanceSpec(instance_id="north-0", index=0, port=0, model=MODEL, gpu_indices=())


async def ready(engines: external.ExternalEngines, spec: InstanceSpec) -> None:
    async with asyncio.timeout(20):
        while not await engines.is_ready(spec.instance_id):  # noqa: ASYNC110 -- another process's
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "values",
    [
        {"urls": []},
        {"urls": ["http://a:1/v1"]},
        {"urls": ["http://a:1", "http://a:1"]},
        {"urls": ["http://a:1"], "instances": 2},
    ],
)
def test_urls_that_cannot_be_meant_are_refused(values: dict[str, Any]) -> None:
    """No path, none twice, and as many as instances."""
    with pytest.raises(ValidationError):
        ExternalOptions.model_validate({"kind": "external", "model": "m"} | values)
