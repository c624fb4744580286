"""Drives the fake hardware of a site: one process with all its emulated engines and fake GPUs.

The process (`python -m site_agent.emulation`) is started here and told what to do over its control API, on a
loopback port. `<state_dir>/fake-hardware.json` says where that is, for tests and scenarios that script
faults.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import orjson

from fleet.profile import PerformanceProfile
from fleet.profile_file import find_profile
from gateway.upstream import Origin, UpstreamError, UpstreamPool
from site_agent.drivers.emulated_settings import host_settings
from site_agent.drivers.interface import (
    DriverContext,
    DriverError,
    DriverFault,
    Drivers,
    EngineCapabilities,
    GpuReading,
    InstanceSpec,
)
from site_agent.drivers.options import EmulatedOptions
from site_agent.site_profiles import assumed_watts

logger = logging.getLogger(__name__)

PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/responses",
    "/tokenize",
    "/detokenize",
)
CONTROL_FILE_NAME = "fake-hardware.json"
PROCESS_LOG_NAME = "fake-hardware.log"
LAUNCH_SECONDS = 30.0
"""For the process to come up; it takes half a second on an idle machine."""
CALL_SECONDS = 5.0
PROBE_SECONDS = 5.0
POWER_SECONDS = 0.3
STOP_SECONDS = 3.0
MAX_ANSWER_BYTES = 1 << 20
MAX_PROCESS_LOG_BYTES = 16 << 20
_TAIL_BYTES = 2000
_REASONS: dict[str, DriverFault] = {"port_in_use": "port_in_use"}


def create(context: DriverContext) -> Drivers:
    """The driver registry's entry.

    Raises:
        DriverError: no profile to emulate by.
    """
    if not isinstance(context.options, EmulatedOptions):
        raise DriverError("failed", f"engine kind is {context.options.kind!r}, not 'emulated'")
    if context.profile is None:
        raise DriverError(
            "bad_model", "[sites.engine] profile is missing: an emulated engine needs one to follow"
        )
    profile = context.profile
    if context.options.hardware_profile is not None:
        profile = find_profile(context.options.hardware_profile, assumed_watts(context.options))
    driver = EmulatedHardware(context, context.options, profile)
    return Drivers(engines=driver, gpus=driver)


class EmulatedHardware:
    """EngineDriver and GpuDriver in one: both are the same process."""

    is_fake = True
    is_none = False
    can_set_clock = True
    spare_gpus = 0
    problems: tuple[str, ...] = ()

    def __init__(self, context: DriverContext, options: EmulatedOptions, profile: PerformanceProfile) -> None:
        self._context = context
        self._options = options
        self._profile = profile
        self._pool = UpstreamPool(connect_timeout_seconds=PROBE_SECONDS)
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self._control: Origin | None = None
        self._launching: asyncio.Task[None] | None = None
        self._origins: dict[str, Origin] = {}
        """Of the engines that were started and not stopped."""
        self._exits: dict[str, str] = {}
        self._clocks: dict[str, int] = {}
        self._is_closed = False

    # EngineDriver
    async def open(self) -> None:
        """See EngineDriver."""
        await self._launch()

    async def start(self, spec: InstanceSpec) -> str:
        """See EngineDriver."""
        await self._launch()
        self._exits.pop(spec.instance_id, None)
        answer = await self._call("POST", f"/engines/{spec.instance_id}/start", {"port": spec.port})
        origin = Origin.parse(f"http://127.0.0.1:{answer['port']}")
        self._origins[spec.instance_id] = origin
        return str(origin)

    async def stop(self, instance_id: str, *, kill: bool = False) -> None:
        """See EngineDriver. The fake GPUs' watts fall with their lag from then on.

        With `kill` a process that hangs is killed, and every other engine of the site with it.
        """
        self._origins.pop(instance_id, None)
        self._exits.pop(instance_id, None)
        if self._control is None:
            return
        process = self._process
        try:
            await self._call("POST", f"/engines/{instance_id}/stop", {})
        except DriverError as error:
            if not kill or error.reason != "timeout" or process is None:
                raise
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    async def is_ready(self, instance_id: str) -> bool:
        """See EngineDriver."""
        origin = self._origins.get(instance_id)
        if origin is None:
            return False
        try:
            status, _ = await self._exchange(origin, "GET", "/health", b"", PROBE_SECONDS)
        except UpstreamError:
            await self._learn_exits()
            return False
        return status == 200

    def exit_reason(self, instance_id: str) -> str | None:
        """See EngineDriver; known after a probe has failed."""
        return self._exits.get(instance_id)

    def capabilities(self) -> EngineCapabilities:
        """See EngineDriver."""
        return EngineCapabilities(paths=PATHS, token_ids=True, max_model_len=self._profile.max_model_len)

    # GpuDriver
    async def power_watts(self) -> float | None:
        """See GpuDriver."""
        if self._control is None:
            return None
        try:
            status, body = await self._exchange(self._control, "GET", "/gpus/power", b"", POWER_SECONDS)
        except UpstreamError:
            return None
        return float(orjson.loads(body)["power_watts"]) if status == 200 else None

    async def readings(self) -> tuple[GpuReading, ...]:
        """See GpuDriver."""
        try:
            host = await self._call("GET", "/host", None)
        except DriverError:
            return ()
        return tuple(
            GpuReading(
                index=gpu["index"],
                power_watts=gpu["power_watts"],
                clock_mhz=gpu["clock_mhz"],
                energy_joules=gpu["energy_joules"],
            )
            for gpu in host["gpus"]
        )

    async def set_clock(self, instance_id: str, clock_mhz: int | None) -> None:
        """See GpuDriver. A process started anew gets the clocks again."""
        if clock_mhz is None:
            self._clocks.pop(instance_id, None)
        else:
            self._clocks[instance_id] = clock_mhz
        await self._call("POST", "/gpus/clock", {"instance_id": instance_id, "clock_mhz": clock_mhz})

    async def aclose(self, *, kill: bool = False) -> None:  # noqa: ARG002
        """See both. The process of the fake hardware is told to end either way, and killed if it does not."""
        self._is_closed = True
        if self._launching is not None:
            self._launching.cancel()
            await asyncio.gather(self._launching, return_exceptions=True)
        await self._end_process()
        await self._pool.aclose()

    # the process
    async def _launch(self) -> None:
        """Start the process unless it runs. Who waits for it may leave: it is brought up all the same."""
        if self._launching is None or self._launching.done():
            if self._process is not None and self._process.returncode is None:
                return
            self._launching = asyncio.create_task(self._bring_up())
            self._launching.add_done_callback(_take_exception)
        launching = self._launching
        await asyncio.wait((launching,))
        if launching.cancelled():
            raise DriverError("failed", "the driver is closed")
        launching.result()

    async def _bring_up(self) -> None:
        if self._is_closed:
            raise DriverError("failed", "the driver is closed")
        process = await self._spawn()
        self._context.processes.add("fake-hardware", process.pid)
        self._process = process
        self._watching = asyncio.create_task(self._watch(process))
        await self._shake_hands(process)

    async def _spawn(self) -> asyncio.subprocess.Process:
        try:
            log_at = self._open_log()
            try:
                return await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-m", "site_agent.emulation", "--config", "-"),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log_at,
                    start_new_session=True,
                    env=self._environment(),
                )
            finally:
                os.close(log_at)
        except OSError as error:
            raise DriverError("failed", f"the fake hardware cannot be started: {error}") from None

    async def _shake_hands(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(LAUNCH_SECONDS):
                settings = host_settings(self._context, self._options, self._profile)
                process.stdin.write(settings.model_dump_json().encode() + b"\n")
                await process.stdin.drain()
                line = await process.stdout.readline()
        except TimeoutError:
            await self._end_process()
            raise DriverError(
                "timeout",
                f"the fake hardware did not come up within {LAUNCH_SECONDS:g} s: {self._log_tail()}",
            ) from None
        except ConnectionError:
            line = b""
        if not line:
            await process.wait()
            raise DriverError("exited", f"the fake hardware did not come up: {self._log_tail()}")
        self._control = Origin.parse(f"http://127.0.0.1:{orjson.loads(line)['control_port']}")
        control = {"fake": True, "control_url": str(self._control), "pid": process.pid}
        path = self._context.state_dir / CONTROL_FILE_NAME
        partial = path.with_suffix(".partial")
        try:
            partial.write_bytes(orjson.dumps(control))
            partial.replace(path)
        except OSError as error:  # only scenarios read it
            logger.warning("%s is not written: %s", path, error)
        for instance_id, clock_mhz in sorted(self._clocks.items()):
            await self.set_clock(instance_id, clock_mhz)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        self._context.processes.remove(process.pid)
        if self._process is process:
            self._control = None
            for instance_id in self._origins:
                self._exits[instance_id] = (
                    f"the process of the fake hardware ended with code {code}: {self._log_tail()}"
                )
            self._origins.clear()

    async def _end_process(self) -> None:
        process, self._control = self._process, None
        self._origins.clear()
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        if self._watching is not None:
            await self._watching

    def _environment(self) -> dict[str, str]:
        source = self._context.environment or os.environ
        return {name: value for name, value in source.items() if not name.startswith("HERON_")}

    @property
    def _log_path(self) -> Path:
        return self._context.state_dir / PROCESS_LOG_NAME

    def _open_log(self) -> int:
        path = self._log_path
        if path.exists() and path.stat().st_size > MAX_PROCESS_LOG_BYTES:
            path.replace(path.with_name(f"{PROCESS_LOG_NAME}.1"))
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def _log_tail(self) -> str:
        try:
            with self._log_path.open("rb") as log:
                log.seek(max(0, os.fstat(log.fileno()).st_size - _TAIL_BYTES))
                tail = log.read().decode(errors="replace").strip()
        except OSError as error:
            return f"its log cannot be read: {error}"
        return tail.rsplit("\n", 3)[-1] or f"see {self._log_path}"

    # its control API
    async def _learn_exits(self) -> None:
        """Ask which engines have ended by themselves."""
        try:
            host = await self._call("GET", "/host", None)
        except DriverError:
            return  # the process is gone or hangs: `_watch` or the next probe says so
        for engine in host["engines"]:
            if engine["exit_reason"] is not None and engine["instance_id"] in self._origins:
                self._exits[engine["instance_id"]] = engine["exit_reason"]

    async def _call(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        control = self._control
        if control is None:
            raise DriverError("exited", f"the fake hardware does not run: {self._log_tail()}")
        data = b"" if body is None else orjson.dumps(body)
        try:
            status, answer = await self._exchange(control, method, path, data, CALL_SECONDS)
        except UpstreamError as error:
            reason: DriverFault = "timeout" if error.kind == "first_byte_timeout" else "exited"
            raise DriverError(reason, f"the fake hardware, {method} {path}: {error}") from None
        if status != 200:
            raise self._refusal(status, answer)
        return orjson.loads(answer)

    @staticmethod
    def _refusal(status: int, answer: bytes) -> DriverError:
        try:
            error = orjson.loads(answer)["error"]
            return DriverError(_REASONS.get(error["reason"], "failed"), str(error["message"]))
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return DriverError("failed", f"the fake hardware answered {status}: {answer[:200]!r}")

    async def _exchange(
        self, origin: Origin, method: str, path: str, body: bytes, timeout_seconds: float
    ) -> tuple[int, bytes]:
        headers = ((b"content-type", b"application/json"),) if body else ()
        try:
            async with asyncio.timeout(timeout_seconds):
                response = await self._pool.send(
                    origin, method, path, headers, body, first_byte_timeout_seconds=timeout_seconds
                )
                try:
                    return response.status, await response.read(MAX_ANSWER_BYTES)
                finally:
                    response.close()
        except TimeoutError:
            raise UpstreamError("first_byte_timeout", f"no answer within {timeout_seconds:g} s") from None


def _take_exception(task: asyncio.Task[None]) -> None:
    """Whoever waited was told, or waits no more."""
    if not task.cancelled():
        task.exception()
