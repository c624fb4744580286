"""The vLLM driver: what it starts, and what it says when that goes wrong.

Process handling is tried with a stand-in `vllm`, a shell or Python script that serves nothing but `/health`.
Real vLLM is in tests/vllm.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support.wait import until

from fleet.profile import SitePowerModel
from gateway.api_paths import USUAL_PATHS
from site_agent import drivers, leftovers
from site_agent.drivers import probe, vllm, vllm_command
from site_agent.drivers.interface import DriverContext, DriverError, InstanceSpec
from site_agent.drivers.options import EmulatedOptions, VllmOptions
from site_agent.governor_options import GovernorOptions

STAND_IN_ENGINE = """#!/bin/sh
''''exec "{python}" "$0" "$@" # for Python a string, for sh an exec; a #! line cannot hold a path with a space
'''
import http.server, subprocess, sys
if {has_child}:
    subprocess.Popen(["sleep", "600"])
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{{"data": [{{"max_model_len": 2048}}], "paths": {{"/sleep": {{}}, "/v1/embeddings": {{}}}},'
        body += b' "return_token_ids": 1}}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Health).serve_forever()
"""


class Registry:
    """Remembers which groups live."""

    def __init__(self) -> None:
        self.groups: dict[int, str] = {}

    def add(self, label: str, pid: int) -> None:
        """See ProcessRegistry."""
        self.groups[pid] = label

    def remove(self, pid: int) -> None:
        """See ProcessRegistry."""
        del self.groups[pid]


def spec(*gpu_indices: int, port: int = 0) -> InstanceSpec:
    return InstanceSpec(instance_id="north-0", index=0, port=port, model="llama", gpu_indices=gpu_indices)


def options(**values: Any) -> VllmOptions:
    return VllmOptions.model_validate(
        {"kind": "vllm", "model": "llama", "model_path": "meta-llama/Llama-3.1-8B-Instruct"} | values
    )


class Site:
    """The driver and what it was given."""

    def __init__(self, directory: Path, script: str | None = None, **values: Any) -> None:
        self.registry = Registry()
        self.log_path = directory / "north-0.log"
        command = directory / "vllm"
        if script is not None:
            command.write_text(script)
            command.chmod(0o755)
        context = DriverContext(
            site_id="north",
            state_dir=directory,
            specs=(spec(),),
            options=options(**{"command": [str(command)], "gpus_per_instance": 0} | values),
            profile=None,
            power_model=SitePowerModel(host_idle_watts=600.0),
            processes=self.registry,
            environment={"PATH": "/usr/bin:/bin"},
        )
        self.drivers = drivers.create(context)
        self.engines = self.drivers.engines


@pytest.fixture
async def make_site(tmp_path: Path) -> AsyncIterator[Callable[..., Site]]:
    """Makes a site; afterwards no process of it is left."""
    made: list[Site] = []

    def make(script: str | None = None, **values: Any) -> Site:
        made.append(Site(tmp_path, script, **values))
        return made[-1]

    yield make
    for site in made:
        await site.engines.aclose()
        await site.engines.aclose()
        await site.drivers.gpus.aclose()
        assert site.registry.groups == {}


def stand_in(*, has_child: bool = False) -> str:
    return STAND_IN_ENGINE.format(python=sys.executable, has_child=has_child)


async def ready(site: Site) -> str:
    origin = await site.engines.start(spec())
    async with asyncio.timeout(30):
        while not await site.engines.is_ready("north-0"):
            assert site.engines.exit_reason("north-0") is None
    return origin


# Arguments and environment


def test_arguments_on_one_gpu():
    """Name, loopback, the admission's batch limit; what the operator adds comes last."""
    made = vllm_command.build_arguments(
        spec(0), options(arguments=["--max-model-len", "8192"], max_concurrency=32), 8123
    )
    assert made == (
        *("vllm", "serve", "meta-llama/Llama-3.1-8B-Instruct"),
        *("--host", "127.0.0.1", "--port", "8123", "--served-model-name", "llama"),
        *("--max-num-seqs", "32", "--disable-uvicorn-access-log", "--max-model-len", "8192"),
    )


def test_an_engine_of_another_degree_has_its_own_batch_limit():
    """That which admission fills it to."""
    of = options(max_concurrency=16, other_tensor_parallel_degrees=(2, 4), other_max_concurrency=(64, 128))
    for degree, limit in ((1, "16"), (2, "64"), (4, "128"), (0, "16")):
        made = vllm_command.build_arguments(replace(spec(0, 1), tensor_parallel_degree=degree), of, 8123)
        assert made[made.index("--max-num-seqs") + 1] == limit
    of = options(max_concurrency=16, other_tensor_parallel_degrees=(2, 4))
    made = vllm_command.build_arguments(replace(spec(0, 1), tensor_parallel_degree=2), of, 8123)
    assert made[made.index("--max-num-seqs") + 1] == "16"


def test_an_engines_grace_is_what_the_governor_counts_on():
    """Unless somebody sets one of them."""
    assert options().stop_grace_seconds <= GovernorOptions().stop_seconds


def test_a_build_that_tells_what_ids_mean_is_asked_to():
    """vLLM 0.32 has it, off unless asked for; an older one would not start."""
    assert vllm_command.SCALE_OUT in vllm_command.build_arguments(
        spec(0), options(), 8123, flags={"--host", vllm_command.SCALE_OUT}
    )
    assert vllm_command.SCALE_OUT not in vllm_command.build_arguments(
        spec(0), options(), 8123, flags={"--host"}
    )


def test_several_gpus_make_one_tensor_parallel_engine():
    """All the GPUs of an instance serve one model."""
    made = vllm_command.build_arguments(spec(4, 5, 6, 7), options(gpus_per_instance=4), 8123)
    assert made[made.index("--tensor-parallel-size") + 1] == "4"


def test_the_cpu_build_is_not_compiled_for():
    """Without GPUs: eager."""
    made = vllm_command.build_arguments(spec(), options(gpus_per_instance=0), 8123)
    assert "--enforce-eager" in made
    assert "--tensor-parallel-size" not in made


def test_environment_on_gpus():
    """Its GPUs, no statistics sent, nothing of Heron's, no development routes."""
    inherited = {
        "PATH": "/bin",
        "HERON_SITE_TOKEN": "secret",
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_API_KEY": "secret",
        "PYTHONPATH": "/of/the/agent",
        "VIRTUAL_ENV": "/of/the/agent",
    }
    made = vllm_command.build_environment(spec(2, 3), options(environment={"NCCL_DEBUG": "WARN"}), inherited)
    assert made == {
        "PATH": "/bin",
        "VLLM_NO_USAGE_STATS": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "2,3",
        "NCCL_DEBUG": "WARN",
    }


def test_gpus_are_counted_among_those_the_agent_may_see():
    """Two agents of one machine share its GPUs by CUDA_VISIBLE_DEVICES."""
    made = vllm_command.build_environment(spec(2, 3), options(), {"CUDA_VISIBLE_DEVICES": "4, 5,6,GPU-7"})
    assert made["CUDA_VISIBLE_DEVICES"] == "6,GPU-7"


def test_too_few_visible_gpus_are_refused():
    """With what to change."""
    with pytest.raises(DriverError, match=r"the agent sees 2: .*lower instances") as caught:
        vllm_command.build_environment(spec(2), options(), {"CUDA_VISIBLE_DEVICES": "0,1"})
    assert caught.value.reason == "missing_gpu"


def test_environment_on_a_cpu_with_a_local_model(tmp_path: Path):
    """No hub is asked; cache and cores come from the options."""
    made = vllm_command.build_environment(
        spec(), options(model_path=str(tmp_path), cpu_kv_cache_gib=4, cpu_threads_bind="0-3"), {}
    )
    assert made == {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "4",
        "VLLM_CPU_OMP_THREADS_BIND": "0-3",
    }


@pytest.mark.parametrize(
    ("inherited", "own", "keeps"),
    [
        ({}, {}, False),
        ({"VLLM_ENABLE_RESPONSES_API_STORE": "1"}, {}, True),
        ({}, {"VLLM_ENABLE_RESPONSES_API_STORE": "1"}, True),
        ({"VLLM_ENABLE_RESPONSES_API_STORE": "1"}, {"VLLM_ENABLE_RESPONSES_API_STORE": "0"}, False),
        ({"VLLM_ENABLE_RESPONSES_API_STORE": "yes"}, {}, False),
    ],
)
def test_whether_engines_keep_responses_is_in_their_environment(
    inherited: dict[str, str], own: dict[str, str], keeps: bool
):
    """The agent's, and over it the operator's for them."""
    assert vllm_command.keeps_responses(options(environment=own), inherited) is keeps


@pytest.mark.parametrize(
    "argument", ["--port=1", "--host", "--api-key=x", "--served_model_name=y", "--ssl-keyfile=k"]
)
def test_arguments_that_heron_sets_are_refused(argument: str):
    """Where the file is read, not when the engine starts."""
    with pytest.raises(ValidationError, match="Heron sets or needs it"):
        options(arguments=[argument])


def test_development_mode_is_refused():
    """Its routes have no protection."""
    with pytest.raises(ValidationError, match="VLLM_SERVER_DEV_MODE cannot be given"):
        options(environment={"VLLM_SERVER_DEV_MODE": "1"})


@pytest.mark.parametrize(
    ("tail", "status", "hint"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory.", 1, "give it more GPUs"),
        ("ValueError: No available memory for the cache blocks.", 1, "no room for the KV cache"),
        (
            "Free memory on device cuda:0 (10.0/79.2 GiB) is less than desired GPU memory utilization",
            1,
            "something else holds the GPU's memory",
        ),
        (
            "To serve at least one request with the model's max seq len (131072), (40.0 GiB ",
            1,
            "no room for the KV cache",
        ),
        (
            "ValueError: Available memory on node 0 (13.8/16.34 GiB) on kv cache allocation is less than",
            1,
            "cpu_kv_cache_gib",
        ),
        ("vllm: error: unrecognized arguments: --no-such", 2, "does not know an argument"),
        ("RuntimeError: Cannot find any model weights with `/m`", 1, "check model_path"),
        ("OSError: [Errno 98] Address already in use", 1, "the port is in use"),
        ("RuntimeError: No CUDA GPUs are available", 1, "no usable GPU"),
        ("OSError: Repo id must be in the form 'repo_name'", 1, "check model_path"),
        ("INFO: serving", -9, "killed by signal 9 (perhaps out of the machine's memory"),
    ],
)
def test_an_exit_is_explained_by_the_logs_tail(tail: str, status: int, hint: str):
    """What to do, where the log is, and its last lines."""
    reason = vllm_command.explain_exit("north-0", status, tail, Path("state/north-0.log"))
    assert hint in reason
    assert "state/north-0.log" in reason
    assert tail in reason


# Errors that need no start


async def test_missing_command(make_site: Callable[..., Site]):
    """Says how to get one."""
    with pytest.raises(DriverError, match=r"there is no command .*scripts/vllm-env") as caught:
        await make_site().engines.open()
    assert caught.value.reason == "not_installed"


@pytest.mark.parametrize(("has_directory", "text"), [(False, "no directory"), (True, "no config.json")])
async def test_bad_model_path(make_site: Callable[..., Site], tmp_path: Path, has_directory: bool, text: str):
    """Found before an engine takes half a minute to find it."""
    path = tmp_path / "model"
    if has_directory:
        path.mkdir()
    with pytest.raises(DriverError, match=text) as caught:
        await make_site("#!/bin/sh\n", model_path=str(path)).engines.open()
    assert caught.value.reason == "bad_model"


async def test_port_in_use(make_site: Callable[..., Site]):
    """Refused at once, with the key to change."""
    site = make_site(stand_in())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(DriverError, match=r"cannot be had.*first_port") as caught:
            await site.engines.start(spec(port=taken.getsockname()[1]))
    assert caught.value.reason == "port_in_use"
    assert site.registry.groups == {}


def test_options_of_another_kind_are_refused(make_site: Callable[..., Site], tmp_path: Path):
    """The registry's mistake, said plainly."""
    context = DriverContext(
        site_id="north",
        state_dir=tmp_path,
        specs=(),
        options=EmulatedOptions(kind="emulated"),
        profile=None,
        power_model=SitePowerModel(host_idle_watts=600.0),
        processes=Registry(),
    )
    with pytest.raises(DriverError, match="not 'vllm'"):
        vllm.create(context)


# Processes, with the stand-in


async def test_engine_starts_and_stops(make_site: Callable[..., Site]):
    """Ready by /health; its group is noted for as long as it lives; length and inference paths are learnt."""
    site = make_site(stand_in())
    await site.engines.open()
    assert site.engines.capabilities().max_model_len is None
    assert site.engines.capabilities().paths == USUAL_PATHS
    origin = await ready(site)
    assert origin.startswith("http://127.0.0.1:")
    assert list(site.registry.groups.values()) == ["north-0"]
    capabilities = site.engines.capabilities()
    assert (capabilities.token_ids, capabilities.sleep, capabilities.max_model_len) == (True, False, 2048)
    assert capabilities.paths == ("/v1/embeddings",)
    await site.engines.stop("north-0")
    await site.engines.stop("north-0", kill=True)
    assert site.registry.groups == {}
    assert not await site.engines.is_ready("north-0")
    assert site.engines.exit_reason("north-0") is None


@pytest.mark.parametrize("kill", [False, True])
async def test_stop_ends_the_whole_group(make_site: Callable[..., Site], kill: bool):
    """Also what SIGTERM to the leader leaves behind: it could hold a GPU."""
    site = make_site(stand_in(has_child=True), stop_grace_seconds=0.1)
    await ready(site)
    (group,) = site.registry.groups
    assert len(leftovers.group_members(group)) == 2
    await site.engines.stop("north-0", kill=kill)
    assert leftovers.group_members(group) == []


async def test_engine_that_ignores_sigterm_is_killed(make_site: Callable[..., Site], tmp_path: Path):
    """After the grace."""
    site = make_site('#!/bin/sh\ntrap "" TERM\necho up\nwhile :; do sleep 1; done\n', stop_grace_seconds=0.1)
    await site.engines.start(spec())
    (group,) = site.registry.groups
    await until(lambda: "up" in site.log_path.read_text(), what="the script runs")
    await site.engines.stop("north-0")
    assert leftovers.group_members(group) == []


async def test_a_close_that_kills_gives_no_grace(make_site: Callable[..., Site]):
    """As an agent that fails itself asks for."""
    site = make_site('#!/bin/sh\ntrap "" TERM\necho up\nwhile :; do sleep 1; done\n', stop_grace_seconds=60)
    await site.engines.start(spec())
    (group,) = site.registry.groups
    await until(lambda: "up" in site.log_path.read_text(), what="the script runs")
    async with asyncio.timeout(20):
        await site.engines.aclose(kill=True)
    assert leftovers.group_members(group) == []


async def test_early_end_is_told_with_the_logs_tail(make_site: Callable[..., Site]):
    """And the instance can be started again."""
    site = make_site('#!/bin/sh\necho "torch.OutOfMemoryError: CUDA out of memory" >&2\nexit 3\n')
    await site.engines.start(spec())
    await until(lambda: site.engines.exit_reason("north-0"), what="the end is noticed")
    reason = site.engines.exit_reason("north-0")
    assert reason is not None
    assert "ended with status 3 (out of memory" in reason
    assert "CUDA out of memory" in reason
    assert not await site.engines.is_ready("north-0")
    await site.engines.start(spec())
    assert len(site.registry.groups) == 1


def test_the_cause_is_found_above_what_the_parent_process_says_after_it():
    """vLLM's API server adds pages of its own to its engine's error."""
    log = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n" + "  at somewhere\n" * 2000
    reason = vllm_command.explain_exit("north-0", 1, log + "See root cause above.", Path("north-0.log"))
    assert "give it more GPUs" in reason
    assert "Tried to allocate 2 GiB" in reason
    assert len(reason) < 6000


async def test_an_argument_that_the_build_does_not_know_is_said_before_a_start(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """By the build's own help."""
    monkeypatch.setenv("HOME", str(tmp_path))
    flags = "--host --port --served-model-name --max-num-seqs --disable-uvicorn-access-log --dtype --enforce"
    site = make_site(f"#!/bin/sh\necho '{flags}'\n", arguments=["--max-num-sequences", "4"])
    with pytest.raises(DriverError, match="did you mean --max-num-seqs") as caught:
        await site.engines.open()
    assert caught.value.reason == "bad_option"


async def test_a_crash_is_told(make_site: Callable[..., Site]):
    """Once ready, killed by somebody else."""
    site = make_site(stand_in())
    await ready(site)
    (group,) = site.registry.groups
    os.killpg(group, signal.SIGKILL)
    await until(lambda: site.engines.exit_reason("north-0"), what="the end is noticed")
    assert "killed by signal 9" in (site.engines.exit_reason("north-0") or "")


@pytest.mark.parametrize("is_disk_full", [False, True])
async def test_log_is_bounded(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, is_disk_full: bool
):
    """A full log moves aside, also under a running engine; on a full disk its older lines are lost."""
    monkeypatch.setattr(vllm, "MAX_LOG_BYTES", 100)
    site = make_site(stand_in())
    await ready(site)
    with site.log_path.open("a") as log:
        log.write("x" * 200)

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if is_disk_full:
        monkeypatch.setattr(vllm.shutil, "copyfile", no_space)
    assert await site.engines.is_ready("north-0")
    assert site.log_path.stat().st_size < 100
    if not is_disk_full:
        assert "x" * 200 in site.log_path.with_name("north-0.log.1").read_text()


async def test_a_model_directory_that_cannot_be_looked_at_is_a_failed_start(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """A network's file system, for a moment: the engine is tried again, the agent goes on."""
    (tmp_path / "model").mkdir()
    site = make_site(stand_in(), model_path=str(tmp_path / "model"))

    def stale(_self: Path) -> bool:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(Path, "is_dir", stale)
    with pytest.raises(DriverError, match="Stale file handle") as caught:
        await site.engines.start(spec())
    assert caught.value.reason == "bad_model"


async def test_what_an_engine_could_not_say_in_time_is_asked_again(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
):
    """Meanwhile it is ready, with the usual paths."""
    monkeypatch.setattr(probe, "DESCRIBE_SECONDS", 0.0)
    site = make_site(stand_in())
    await ready(site)
    assert site.engines.capabilities().paths == USUAL_PATHS
    monkeypatch.undo()
    assert await site.engines.is_ready("north-0")
    assert site.engines.capabilities().paths == ("/v1/embeddings",)


async def test_power_is_unknown_and_clocks_cannot_be_set(make_site: Callable[..., Site]):
    """None, never 0."""
    gpus = make_site().drivers.gpus
    assert await gpus.power_watts() is None
    assert (gpus.is_fake, gpus.is_none, gpus.can_set_clock) == (False, True, False)
    await gpus.set_clock("north-0", None)
    with pytest.raises(DriverError, match="sets clocks"):
        await gpus.set_clock("north-0", 1200)


async def test_nothing_starts_once_closed(make_site: Callable[..., Site]):
    """No engine outlives the driver."""
    site = make_site(stand_in())
    await site.engines.aclose()
    with pytest.raises(DriverError, match="closed"):
        await site.engines.start(spec())


AGENT = """
import asyncio, sys, tempfile
from pathlib import Path
from tests.unit.site_agent.test_vllm_driver import Site, spec, stand_in

async def main():
    site = Site(Path(sys.argv[1]), stand_in())
    await site.engines.start(spec())
    print(*site.registry.groups, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_an_engine_ends_with_its_agent_though_nobody_watches(tmp_path: Path):
    """No watchdog was told of it yet, or it was killed too."""
    root = Path(__file__).parents[3]
    agent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", AGENT, str(tmp_path)),
        cwd=root,
        env={**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}"},
        stdout=asyncio.subprocess.PIPE,
    )
    assert agent.stdout is not None
    engine = int(await agent.stdout.readline())
    assert leftovers.start_ticks(engine) is not None
    agent.kill()
    await agent.wait()
    await until(lambda: leftovers.start_ticks(engine) is None, what="the engine has ended")


async def test_an_engine_is_killed_though_it_cannot_be_seen(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
):
    """No file left to look at /proc with: what refuses to end politely is killed all the same."""

    def no_files(_group: int) -> list[int]:
        raise OSError(errno.EMFILE, "Too many open files")

    site = make_site("#!/bin/sh\ntrap '' TERM\nsleep 600 &\nwait\nsleep 600\n", stop_grace_seconds=0.2)
    await site.engines.start(spec())
    (group,) = site.registry.groups
    monkeypatch.setattr(vllm.leftovers, "group_members", no_files)
    await site.engines.stop("north-0")
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)
