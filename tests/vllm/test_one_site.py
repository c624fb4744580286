"""One site with two real vLLM engines: power falls and returns, one crashes, the agent ends.

The tests run in order on one fleet; each leaves both engines ready, but the last two, which end the agent.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from support import conversations
from support.processes import pids_with
from support.vllm_fleet import MODEL, VllmFleet
from support.vllm_stream import Stream

from fleet.profile import SitePowerModel
from site_agent import leftovers
from site_agent.drivers import vllm
from site_agent.drivers.interface import DriverContext, InstanceSpec
from site_agent.drivers.options import VllmOptions
from tests.vllm.conftest import vllm_and_model

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not os.environ.get("HERON_VLLM_COMMAND"),
        reason="HERON_VLLM_COMMAND is not set: scripts/test-vllm installs vLLM's CPU build and runs this",
    ),
]

SITE = "north"
LONG = 1500
VERY_LONG = 6000
"""Still under way when all streams have begun, on a fast machine too."""


@pytest.fixture
def client(pair: VllmFleet) -> Iterator[openai.OpenAI]:
    """The official one, without retries of its own."""
    with openai.OpenAI(base_url=pair.base_url, api_key="none", max_retries=0, timeout=180) as made:
        yield made


class Streams:
    """Several at once, each read to its end by a thread of its own."""

    def __init__(self, client: openai.OpenAI, count: int, max_tokens: int = LONG) -> None:
        prompts = [f"Tell me about wind, {number}." for number in range(count)]
        self.streams = [Stream(client, prompt, max_tokens).read(1) for prompt in prompts]
        self.errors: list[Exception] = []
        self._threads = [threading.Thread(target=self._read, args=(one,)) for one in self.streams]
        for thread in self._threads:
            thread.start()

    def _read(self, stream: Stream) -> None:
        try:
            stream.read()
        except openai.OpenAIError as error:
            self.errors.append(error)

    def finish(self) -> list[Stream]:
        """All of them, at their end."""
        for thread in self._threads:
            thread.join()
        return self.streams


def ledger(pair: VllmFleet) -> dict[str, Any]:
    return dict(pair.json(f"{pair.router_operations}/heron/v1/ledger"))


def assert_whole(streams: list[Stream], max_tokens: int = LONG) -> None:
    """Every one came to its end, with all of its tokens."""
    assert [(one.finish_reason, one.usage.completion_tokens) for one in streams] == [
        ("length", max_tokens) for _ in streams
    ]


def test_a_power_drop_stops_one_of_two_engines_and_streams_go_on(pair: VllmFleet, client: openai.OpenAI):
    """Those of the engine that goes finish, or resume at the other; power back starts it again."""
    before = ledger(pair)
    streams = Streams(client, 4)
    pair.set_wind({SITE: 0.0})
    pair.wait_for_engines(SITE, "stopped", 1)
    assert pair.metric(SITE, "heron_site_instances", state="ready") == 1.0
    assert_whole(streams.finish())
    assert streams.errors == []
    assert Stream(client, "Who is there?", 8).read().finish_reason == "length"
    pair.set_wind({SITE: 1.0})
    pair.wait_for_engines(SITE, "ready", 2)
    after = ledger(pair)
    assert (after["lost"], after["broken"]) == (0, before["broken"])
    assert pair.metric(SITE, "heron_site_cap_exceeded_seconds_total") == 0.0


def test_power_that_returns_while_an_engine_drains_leaves_both_and_every_stream(
    pair: VllmFleet, client: openai.OpenAI
):
    """The drain is taken back, or the engine started anew once it is gone."""
    streams = Streams(client, 4)
    pair.set_wind({SITE: 0.0})
    pair.wait_until(
        lambda: pair.metric(SITE, "heron_site_instances", state="ready") != 2.0, "one drains, or is gone"
    )
    pair.set_wind({SITE: 1.0})
    assert_whole(streams.finish())
    pair.wait_for_engines(SITE, "ready", 2)
    assert ledger(pair)["lost"] == 0


def test_a_crash_in_mid_stream_is_resumed_by_the_other_engine(pair: VllmFleet, client: openai.OpenAI):
    """SIGKILL; the engine that crashed is started again."""
    resumed = ledger(pair)["resumed"]
    streams = Streams(client, 2, VERY_LONG)
    index = next(index for index in (1, 0) if is_at_work(pair, index))
    killed = pair.engine_group(SITE, index)
    pair.kill_engine(SITE, index)
    assert_whole(streams.finish(), VERY_LONG)
    assert ledger(pair)["resumed"] > resumed
    pair.wait_until(
        lambda: pair.metric(SITE, "heron_site_engine_faults_total", reason="exited"), "the fault is counted"
    )
    pair.wait_for_engines(SITE, "ready", 2)
    assert pair.engine_group(SITE, index) != killed


def is_at_work(pair: VllmFleet, index: int) -> bool:
    """By vLLM's own gauges."""
    page = httpx.get(f"{pair.engine_url(SITE, index)}/metrics", trust_env=False, timeout=30).text
    return conversations.requests_at_work(page) > 0


def test_an_agent_that_is_stopped_lets_its_streams_finish_and_leaves_no_engine(
    pair: VllmFleet, client: openai.OpenAI
):
    """SIGTERM with streams open; exit code 0."""
    groups = [pair.engine_group(SITE, index) for index in range(2)]
    streams = Streams(client, 2, 300)
    assert pair.agent(SITE).stop() == 0
    assert_whole(streams.finish(), 300)
    assert [leftovers.group_members(group) for group in groups] == [[], []]


def test_an_agent_that_is_killed_takes_its_engines_with_it(pair: VllmFleet):
    """SIGKILL: the watchdog ends them; the next agent starts its own."""
    pair.restart_agent(SITE)
    pair.wait_for_engines(SITE, "ready", 2)
    groups = [pair.engine_group(SITE, index) for index in range(2)]
    pair.agent(SITE).kill()
    pair.wait_until(
        lambda: not any(leftovers.group_members(group) for group in groups), "no engine lives", seconds=10
    )
    pair.restart_agent(SITE)
    pair.wait_for_engines(SITE, "ready", 2)


class NoRegistry:
    """The test itself ends what it starts."""

    def add(self, label: str, pid: int) -> None: ...
    def remove(self, pid: int) -> None: ...


async def test_an_engine_sleeps_and_wakes_through_development_mode(tmp_path: Path):
    """On a CPU it frees nothing, and says so; its state and its answers are those of a GPU's."""
    command, model_path = vllm_and_model()
    options = VllmOptions.model_validate(
        {
            "kind": "vllm",
            "model": MODEL,
            "command": [command],
            "model_path": str(model_path),
            "gpus_per_instance": 0,
            "sleep": True,
            "environment": {"OMP_NUM_THREADS": "1"},
        }
    )
    spec = InstanceSpec(instance_id="i0", index=0, port=0, model=MODEL, gpu_indices=())
    engines = vllm.create(
        DriverContext(
            site_id=SITE,
            state_dir=tmp_path,
            specs=(spec,),
            options=options,
            profile=None,
            power_model=SitePowerModel(),
            processes=NoRegistry(),
            environment=os.environ,
        )
    ).engines
    assert isinstance(engines, vllm.VllmEngines)

    async def until(condition: Callable[[], Any], wanted: bool) -> None:
        async with asyncio.timeout(240):
            while await condition() is not wanted:
                assert engines.exit_reason("i0") is None
                await asyncio.sleep(0.2)

    try:
        await engines.open()
        url = await engines.start(spec)
        await until(lambda: engines.is_ready("i0"), True)
        assert not engines.capabilities().sleep, "on a CPU it frees no memory"
        await engines.sleep("i0")
        assert not await engines.is_ready("i0")
        await engines.wake("i0")
        assert await engines.is_ready("i0")
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
            answer = await client.completions.create(model=MODEL, prompt="hi", max_tokens=4)
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 4
    finally:
        await engines.aclose()
    assert pids_with(str(tmp_path)) == []
