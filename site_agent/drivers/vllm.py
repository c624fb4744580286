"""Runs real `vllm serve` processes, one per instance, each the leader of a process group of its own.

They end with the agent, whatever kills it, before anybody could note them too (`site_agent.tether`). They
listen on loopback only and write to `<state_dir>/<instance>.log`. vLLM's control routes stay closed
(`VLLM_SERVER_DEV_MODE` is set with `sleep = true` only); engines are stopped by ending them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from gateway.api_paths import USUAL_PATHS
from gateway.upstream import Origin, UpstreamError
from site_agent import leftovers, tether
from site_agent.drivers import gpus, tiny_model, vllm_command, vllm_help, vllm_sleep
from site_agent.drivers.interface import (
    DriverContext,
    DriverError,
    Drivers,
    EngineCapabilities,
    InlineSystem,
    InstanceSpec,
)
from site_agent.drivers.options import VllmOptions
from site_agent.drivers.probe import Prober

logger = logging.getLogger(__name__)

KILL_SECONDS = 10.0
"""For a killed group to be gone; longer means a process that hangs in a device driver."""
POLL_SECONDS = 0.02
LOOK_SECONDS = 0.25
MAX_LOG_BYTES = 16 << 20
"""Then the log moves to `.1`: two files for each instance, whatever an engine writes."""
_TAIL_BYTES = 128 << 10
"""Where the cause of an end is looked for."""


def create(context: DriverContext) -> Drivers:
    """The driver registry's entry.

    Raises:
        DriverError: the options are another kind's.
    """
    if not isinstance(context.options, VllmOptions):
        raise DriverError("failed", f"engine kind is {context.options.kind!r}, not 'vllm'")
    return Drivers(engines=VllmEngines(context, context.options), gpus=gpus.create(context, context.options))


@dataclass(slots=True, kw_only=True)
class _Engine:
    """One process that was started and not stopped."""

    process: subprocess.Popen[bytes]
    origin: Origin
    log_path: Path
    exit_reason: str | None = None


class VllmEngines:
    """EngineDriver of `vllm serve`."""

    def __init__(self, context: DriverContext, options: VllmOptions) -> None:
        self._context = context
        self._options = options
        self._environment = context.environment or os.environ
        self._prober = Prober()
        self._sleepers = vllm_sleep.Sleepers(self._prober)
        self._engines: dict[str, _Engine] = {}
        self._max_model_len: int | None = None
        self._paths = USUAL_PATHS
        self._token_ids = True
        self._inline_system: InlineSystem | None = None
        self._is_described = False
        self._flags: frozenset[str] | None = None
        self._is_closed = False

    async def open(self) -> None:
        """See EngineDriver. Checks what can be known without a start."""
        command = self._options.command[0]
        found = shutil.which(command, path=self._environment.get("PATH"))
        if found is None:
            raise DriverError(
                "not_installed",
                f"engine.command: there is no command {command!r}; with a GPU: pip install vllm; without "
                "one: scripts/vllm-env installs vLLM's CPU build and prints its path",
            )
        self._check_model()
        for spec in self._context.specs:
            vllm_command.build_environment(spec, self._options, self._environment)
        await self._check_build(found)

    async def start(self, spec: InstanceSpec) -> str:
        """See EngineDriver. Nothing is awaited: an engine is either not started or noted."""
        if self._is_closed:
            raise DriverError("failed", "the driver is closed")
        self._check_model()
        if spec.instance_id in self._engines:
            await self.stop(spec.instance_id, kill=True)
        engine = self._launch(spec, _take_port(spec))
        self._engines[spec.instance_id] = engine
        return str(engine.origin)

    async def stop(self, instance_id: str, *, kill: bool = False) -> None:
        """See EngineDriver."""
        engine = self._engines.get(instance_id)
        if engine is None:
            return
        self._sleepers.stopped(instance_id)
        group = engine.process.pid
        try:
            if not kill and engine.process.poll() is None:
                engine.process.terminate()
                await _group_gone(engine.process, self._options.stop_grace_seconds)
        finally:  # also after a quiet end: nothing of the group may keep a GPU
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        if not await _group_gone(engine.process, KILL_SECONDS):
            raise DriverError(
                "timeout",
                f"vLLM of {instance_id} (process group {group}) is still there {KILL_SECONDS:g} s after "
                "SIGKILL: a GPU driver that hangs needs a reboot",
            )
        self._context.processes.remove(group)
        self._engines.pop(instance_id, None)

    async def is_ready(self, instance_id: str) -> bool:
        """See EngineDriver."""
        engine = self._engines.get(instance_id)
        if engine is None or engine.process.poll() is not None:
            return False
        _bound_log(engine.log_path)
        if not await self._prober.is_healthy(engine.origin):
            return False
        if self._options.sleep and not await self._sleepers.is_awake(instance_id, engine.origin):
            return False
        if not self._is_described:
            try:
                cards = await self._prober.models(engine.origin)
            except UpstreamError:
                return False
            self._max_model_len = cards[0].max_model_len if cards else None
            described = await self._prober.describe(engine.origin, self._context.specs[0].model)
            self._paths = described.paths
            self._is_described = described.is_answered
            self._token_ids = described.token_ids is not False
            self._inline_system = described.inline_system
        return True

    def exit_reason(self, instance_id: str) -> str | None:
        """See EngineDriver."""
        engine = self._engines.get(instance_id)
        if engine is None:
            return None
        status = engine.process.poll()
        if status is not None and engine.exit_reason is None:
            engine.exit_reason = vllm_command.explain_exit(
                instance_id, status, _log_tail(engine.log_path), engine.log_path
            )
        return engine.exit_reason

    def capabilities(self) -> EngineCapabilities:
        """See EngineDriver. Sleeping frees memory on GPUs only, in a build that has that mode."""
        has_mode = self._flags is not None and "--enable-sleep-mode" in self._flags
        uses_gpus = any(spec.gpu_indices for spec in self._context.specs)
        return EngineCapabilities(
            paths=self._paths,
            token_ids=self._token_ids,
            sleep=self._options.sleep and uses_gpus and has_mode,
            max_model_len=self._max_model_len,
            keeps_responses=vllm_command.keeps_responses(self._options, self._environment),
            inline_system=self._inline_system,
        )

    async def aclose(self, *, kill: bool = False) -> None:
        """See EngineDriver."""
        self._is_closed = True
        ends = (self.stop(instance_id, kill=kill) for instance_id in list(self._engines))
        for fault in await asyncio.gather(*ends, return_exceptions=True):
            if isinstance(fault, DriverError):
                logger.error("an engine could not be stopped", extra={"fault": str(fault)})
            elif isinstance(fault, BaseException):
                logger.error("an engine could not be stopped", exc_info=fault)
        await self._prober.aclose()

    async def sleep(self, instance_id: str) -> None:
        """Free a drained engine's GPU memory, and none of its watts; needs `sleep = true`.

        Raises:
            DriverError: it did not.
        """
        await self._sleepers.sleep(instance_id, self._engines[instance_id].origin)

    async def wake(self, instance_id: str) -> None:
        """Undo `sleep`.

        Raises:
            DriverError: it did not.
        """
        await self._sleepers.wake(instance_id, self._engines[instance_id].origin)

    async def _check_build(self, found: str) -> None:
        """Whether this build knows what it will be started with."""
        version, (first, last) = vllm_help.find_version(found), vllm_help.TESTED_VERSIONS
        if version is not None and not first <= version <= last:
            logger.warning("vLLM %d.%d is not among the versions that Heron knows, 0.30 to 0.33", *version)
        arguments = [
            argument
            for spec in self._context.specs
            for argument in vllm_command.build_arguments(spec, self._options, spec.port)
        ]
        environment = vllm_command.build_environment(self._context.specs[0], self._options, self._environment)
        cache = tiny_model.cache_dir(dict(self._environment))
        self._flags = await vllm_help.read_flags(self._options.command, found, environment, cache)
        if self._flags is None:
            return
        if problems := vllm_help.unknown_arguments(dict.fromkeys(arguments), self._flags):
            raise DriverError(
                "bad_option",
                f"{found} does not know {', '.join(problems)}: see engine.arguments, or change its version",
            )

    def _check_model(self) -> None:
        path = vllm_command.model_path(self._options)
        if not vllm_command.is_local(path):
            return
        directory = Path(path).expanduser()
        try:
            is_there, is_model = directory.is_dir(), (directory / "config.json").is_file()
        except OSError as error:  # a network's file system, for a moment
            raise DriverError("bad_model", f"engine.model_path: {directory}: {error}") from None
        if not is_there:
            raise DriverError("bad_model", f"engine.model_path: there is no directory {directory}")
        if not is_model:
            raise DriverError("bad_model", f"engine.model_path: {directory} has no config.json: not a model")

    def _launch(self, spec: InstanceSpec, port: int) -> _Engine:
        arguments = vllm_command.build_arguments(spec, self._options, port, flags=self._flags or ())
        environment = vllm_command.build_environment(spec, self._options, self._environment)
        log_path = self._context.state_dir / f"{spec.instance_id}.log"
        if shutil.which(arguments[0], path=environment.get("PATH")) is None:
            raise DriverError("not_installed", f"engine.command: there is no command {arguments[0]!r}")
        tied = [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), *arguments]
        try:
            _bound_log(log_path)
            with log_path.open("ab") as log:
                process = subprocess.Popen(
                    tied,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,
                )
        except OSError as error:
            raise DriverError("failed", f"{arguments[0]} cannot be started: {error}") from None
        self._context.processes.add(spec.instance_id, process.pid)
        logger.info(
            "vLLM launched",
            extra={"instance": spec.instance_id, "pid": process.pid, "port": port, "log": str(log_path)},
        )
        return _Engine(
            process=process, origin=Origin.parse(f"http://{vllm_command.HOST}:{port}"), log_path=log_path
        )


def _take_port(spec: InstanceSpec) -> int:
    """The configured port, seen to be free, or any free one."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((vllm_command.HOST, spec.port))
            port: int = probe.getsockname()[1]
    except OSError as error:
        raise DriverError(
            "port_in_use" if error.errno == errno.EADDRINUSE else "failed",
            f"{spec.instance_id}: port {spec.port} cannot be had: {error.strerror}; change "
            "engine.first_port (0 lets Heron choose)",
        ) from None
    return port


async def _group_gone(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait until nothing of the group lives, reaping its leader; False: something does after `seconds`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    look_at = loop.time()
    while True:
        if process.poll() is not None:
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                return True
            except PermissionError:
                pass  # somebody of it runs as another user
            # Zombies are members too. To tell takes all of /proc, so seldom, and beside the loop.
            if loop.time() >= look_at:
                if not await _members(process.pid):
                    return True
                look_at = loop.time() + LOOK_SECONDS
        if loop.time() >= deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)


async def _members(group: int) -> list[int]:
    """Of a process group; its number alone where that cannot be seen: then it counts as still there."""
    try:
        return await asyncio.to_thread(leftovers.group_members, group)
    except (OSError, RuntimeError) as error:  # no file, no thread left
        logger.warning("whether an engine is gone cannot be seen: %s", error)
        return [group]


def _bound_log(path: Path) -> None:
    """Keep the newest lines only. The file is emptied in place: an engine goes on writing to its end."""
    try:
        if not path.exists() or path.stat().st_size <= MAX_LOG_BYTES:
            return
        try:
            shutil.copyfile(path, path.with_name(f"{path.name}.1"))
        finally:  # a disk that is full has no room for a copy; then its older lines are lost
            os.truncate(path, 0)
    except OSError as error:
        logger.warning("an engine's log could not be kept: %s", error)


def _log_tail(path: Path) -> str:
    try:
        with path.open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - _TAIL_BYTES))
            tail = log.read().decode(errors="replace").strip()
    except OSError as error:
        return f"the log cannot be read: {error}"
    return tail or "the log is empty"
