"""NVIDIA GPUs through NVML (`nvidia-ml-py`): power, energy, clocks, temperature; clocks locked, limits set.

Rules: what the driver changes is noted in `<state_dir>/gpu-settings.json` before it is changed, and put back
on exit, or by the next agent after a crash. Without permission it reads only, and `problems` says what it
cannot do and how to grant it; opened `is_read_only` it changes nothing at all. Power is that of every visible
GPU, those that no instance uses too: their watts are the site's (`gpu_power`). NVML's calls block: all of
them run in one thread of the driver's own, and a call that hangs makes the reading unknown, never the agent
late.

Reading was seen on an H100 (benchmarks/gpu/RESULTS.md); locks and limits were not: tests run them on
`fake_nvml`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from fleet.version import extra_hint
from site_agent.drivers import gpu_settings
from site_agent.drivers.call_thread import CallThread
from site_agent.drivers.gpu_power import GpuPower
from site_agent.drivers.interface import DriverError, GpuReading, InstanceSpec

logger = logging.getLogger(__name__)

SETTINGS_NAME = "gpu-settings.json"
POWER_SECONDS = 0.3
READ_SECONDS = 2.0
SET_SECONDS = 5.0
HOW_TO_GRANT = (
    "clocks and limits need root: run the agent as root (systemd: User=root; a container: user 0 and "
    "--cap-add=SYS_ADMIN); reading needs nothing"
)
LATE_POWER = (
    "a GPU has no instant power reading: NVML's is an average over a second, so allow governor.stop_seconds "
    "one second more"
)
CAP_SYS_ADMIN = 1 << 21
T = TypeVar("T")


def load() -> Any:
    """The library.

    Raises:
        DriverError: it is not installed.
    """
    try:
        import pynvml
    except ImportError:
        raise DriverError(
            "not_installed", f"GPUs cannot be read: {extra_hint('gpu')} (nvidia-ml-py)"
        ) from None
    return pynvml


def may_administer(status: Path = Path("/proc/self/status")) -> bool:
    """Whether this process may lock clocks: the driver asks for CAP_SYS_ADMIN. Nothing is tried."""
    try:
        effective = status.read_text().partition("CapEff:")[2].split()[0]
        return bool(int(effective, 16) & CAP_SYS_ADMIN)
    except (OSError, ValueError, IndexError):
        return False


class NvmlGpus:
    """GpuDriver. `nvml` is the module `pynvml`, or a fake that has its functions."""

    is_fake: bool
    is_none = False
    can_set_clock: bool

    def __init__(
        self,
        nvml: Any,
        specs: Sequence[InstanceSpec],
        *,
        state_dir: Path,
        visible_devices: str | None = None,
        power_limit_watts: float | None = None,
        is_read_only: bool = False,
    ) -> None:
        """Opens the library, puts back what an earlier agent left, and finds out what is permitted.

        With `is_read_only` nothing is put back or tried: beside an agent whose GPUs these are, for example.

        Raises:
            DriverError: no driver, or a GPU that the site's instances use is not there or cannot be read.
        """
        self._nvml = nvml
        self._path = state_dir / SETTINGS_NAME
        self._gpus_of = {spec.instance_id: spec.gpu_indices for spec in specs}
        self.is_fake = bool(getattr(nvml, "IS_FAKE", False))
        self.problems: list[str] = []
        """What it cannot do, and how to grant it; for the log and `heron doctor`."""
        self._thread = CallThread("nvml")
        self._hanging: asyncio.Future[Any] | None = None
        self._is_closed = False
        self._is_read_only = is_read_only
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            raise DriverError(
                "not_installed", f"NVML: {error}: is the NVIDIA driver loaded? try nvidia-smi"
            ) from None
        indices = sorted({index for spec in specs for index in spec.gpu_indices})
        try:
            seen = self._find(indices, visible_devices)
        except DriverError:
            self._shut_down()
            raise
        except nvml.NVMLError as error:
            self._shut_down()
            raise DriverError("failed", f"NVML: {error}: try nvidia-smi") from None
        self._handles = {index: seen[index] for index in indices}
        self._seen = seen
        """Every visible GPU, by the same numbers; None: it cannot be read, and no instance uses it."""
        self.spare_gpus = len(seen) - len(indices)
        """Visible GPUs that no instance uses: they draw as well."""
        self._settings: dict[str, float] = gpu_settings.read(self._path)
        """GPU's UUID → its power limit before Heron set one, in watts."""
        self._power = GpuPower(nvml, seen, used=indices)
        self.is_power_late = self._power.is_late
        """Whether that of a GPU of the instances is an average over the last second."""
        if self.is_power_late:
            self.problems.append(LATE_POWER)
        self.can_set_clock = False
        if not is_read_only:
            self._restore()
            self.can_set_clock = self._may_lock()
            if power_limit_watts is not None:
                self._limit(power_limit_watts)

    # GpuDriver

    async def power_watts(self) -> float | None:
        """See GpuDriver."""
        try:
            return await self._call(self._power.watts, POWER_SECONDS)
        except DriverError:
            return None

    @property
    def assumed_spares(self) -> tuple[int, ...]:
        """Numbers of the GPUs that no instance uses and whose power could not be read: it is assumed."""
        return self._power.assumed

    def kinds(self) -> str:
        """How many GPUs of which name, under which driver. Blocks."""
        nvml = self._nvml
        handles = [handle for handle in self._seen.values() if handle is not None]
        told = [self._maybe(lambda h=handle: nvml.nvmlDeviceGetName(h)) for handle in handles]
        names = sorted({_text(name) for name in told if name is not None}) or ["unknown"]
        version = self._maybe(nvml.nvmlSystemGetDriverVersion)
        driver = "unknown" if version is None else _text(version)
        return f"{len(self._seen)} × {', '.join(names)}, driver {driver}"

    async def readings(self) -> tuple[GpuReading, ...]:
        """See GpuDriver."""
        try:
            return await self._call(self._read_all, READ_SECONDS)
        except DriverError:
            return ()

    async def set_clock(self, instance_id: str, clock_mhz: int | None) -> None:
        """See GpuDriver. The lock is a ceiling: an idle GPU may still go lower by itself."""
        if not self.can_set_clock:
            if clock_mhz is None:
                return
            why = "opened to read only" if self._is_read_only else HOW_TO_GRANT
            raise DriverError("failed", f"{instance_id}: clocks cannot be locked: {why}")
        await self._call(lambda: self._lock(instance_id, clock_mhz), SET_SECONDS)

    async def aclose(self) -> None:
        """See GpuDriver."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            async with asyncio.timeout(SET_SECONDS):
                await self._thread.call(self._close)
        except TimeoutError:
            logger.error("NVML hangs: clocks and limits of the GPUs are as they were last set")  # noqa: TRY400
        finally:
            self._thread.abandon()  # the next agent may have set others when a call that hangs ends after all

    # in the thread

    async def _call(self, function: Callable[[], T], seconds: float) -> T:
        """Run it in the thread, after those before it; while one hangs, nothing more is queued."""
        if self._is_closed or (self._hanging is not None and not self._hanging.done()):
            raise DriverError("timeout", "NVML hangs in an earlier call")
        future = self._thread.call(function)
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(future)
        except TimeoutError:
            self._hanging = future
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise DriverError("timeout", f"NVML did not answer within {seconds:g} s") from None
        except self._nvml.NVMLError as error:
            raise DriverError("failed", f"NVML: {error}") from None

    def _read_all(self) -> tuple[GpuReading, ...]:
        return tuple(self._reading(index, handle) for index, handle in self._seen.items())

    def _reading(self, index: int, handle: Any) -> GpuReading:
        nvml, watts = self._nvml, self._power.of(index)
        if handle is None:
            return GpuReading(index=index, power_watts=None)
        return GpuReading(
            index=index,
            power_watts=watts,
            clock_mhz=self._maybe(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            temperature_celsius=self._maybe(
                lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
            ),
            energy_joules=self._maybe(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000),
        )

    def _maybe(self, read: Callable[..., Any]) -> Any:
        """What this GPU does not tell is None."""
        try:
            return read()
        except self._nvml.NVMLError:
            return None

    def _lock(self, instance_id: str, clock_mhz: int | None) -> None:
        for index in self._gpus_of[instance_id]:
            if self._thread.is_abandoned:
                return
            handle = self._handles[index]
            if clock_mhz is None:
                self._nvml.nvmlDeviceResetGpuLockedClocks(handle)
            else:
                self._nvml.nvmlDeviceSetGpuLockedClocks(handle, self._lowest_clock(handle), clock_mhz)

    def _lowest_clock(self, handle: Any) -> int:
        nvml = self._nvml
        try:
            memory = max(nvml.nvmlDeviceGetSupportedMemoryClocks(handle))
            return int(min(nvml.nvmlDeviceGetSupportedGraphicsClocks(handle, memory)))
        except (nvml.NVMLError, ValueError):
            return 0

    def _close(self) -> None:
        if not self._is_read_only:
            self._restore()
        self._shut_down()

    def _shut_down(self) -> None:
        with suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()

    # at start and end

    def _find(self, indices: Sequence[int], visible_devices: str | None) -> dict[int, Any]:
        """Every visible GPU's handle by the number that instances use: its place among the visible ones."""
        nvml = self._nvml
        count = nvml.nvmlDeviceGetCount()
        names = [str(number) for number in range(count)]
        if visible_devices is not None:
            names = [name.strip() for name in visible_devices.split(",") if name.strip()]
        if indices and indices[-1] >= len(names):
            seen = f"CUDA_VISIBLE_DEVICES={visible_devices!r}" if visible_devices is not None else "NVML"
            raise DriverError(
                "missing_gpu",
                f"instances use GPUs up to number {indices[-1]}, but {seen} shows {len(names)}: lower "
                "instances or gpus_per_instance",
            )
        handles, by_uuid, lost = self._look()
        found: dict[int, Any] = {}
        for index, name in enumerate(names):
            if name.isdigit() and int(name) < count:
                found[index] = handles.get(int(name))
                if found[index] is None and index in indices:
                    raise DriverError(
                        "missing_gpu",
                        f"GPU {name} cannot be read (NVML: {lost[int(name)]}): if nvidia-smi does not show "
                        "it either, reboot; or go on with others: instances, CUDA_VISIBLE_DEVICES",
                    )
                continue
            matching = [handle for uuid, handle in by_uuid.items() if uuid.startswith(name)]
            if len(matching) == 1:
                found[index] = matching[0]
            elif index in indices:
                raise DriverError(
                    "missing_gpu", f"CUDA_VISIBLE_DEVICES names {name!r}, which NVML does not show"
                )
        return found

    def _look(self) -> tuple[dict[int, Any], dict[str, Any], dict[int, str]]:
        """Handles by NVML's number and by UUID, and why those that are missing cannot be had."""
        nvml = self._nvml
        handles: dict[int, Any] = {}
        by_uuid: dict[str, Any] = {}
        lost: dict[int, str] = {}
        for number in range(nvml.nvmlDeviceGetCount()):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(number)
                by_uuid[_text(nvml.nvmlDeviceGetUUID(handle))] = handle
            except nvml.NVMLError as error:
                lost[number] = str(error)
                continue
            handles[number] = handle
        return handles, by_uuid, lost

    def _may_lock(self) -> bool:
        """Whether clocks can be locked: the harmless half of it, unlocking, is tried on every GPU."""
        try:
            for handle in self._handles.values():
                self._nvml.nvmlDeviceResetGpuLockedClocks(handle)
        except self._nvml.NVMLError as error:
            can_be_granted = error.value == self._nvml.NVML_ERROR_NO_PERMISSION
            why = HOW_TO_GRANT if can_be_granted else "this GPU cannot"
            self.problems.append(
                f"clocks cannot be locked ({error}): {why}; power is saved by stopping engines"
            )
            return False
        return bool(self._handles)

    def _limit(self, watts: float) -> None:
        """Set the ceiling of each GPU, noting first what it was."""
        nvml = self._nvml
        for index, handle in self._handles.items():
            try:
                uuid = _text(nvml.nvmlDeviceGetUUID(handle))
                lowest, highest = nvml.nvmlDeviceGetPowerManagementLimitConstraints(handle)
                if not lowest <= watts * 1000 <= highest:
                    self.problems.append(
                        f"gpu_power_limit_watts = {watts:g}: GPU {index} takes {lowest / 1000:g} to "
                        f"{highest / 1000:g}; its limit is as it was"
                    )
                    continue
                self._settings.setdefault(uuid, nvml.nvmlDeviceGetPowerManagementLimit(handle) / 1000)
                gpu_settings.write(self._path, self._settings)
                nvml.nvmlDeviceSetPowerManagementLimit(handle, round(watts * 1000))
            except nvml.NVMLError as error:
                self.problems.append(
                    f"the power limit of GPU {index} cannot be set ({error}): {HOW_TO_GRANT}"
                )
            except OSError as error:
                self.problems.append(
                    f"the power limit of GPU {index} stays as it is, for what it was cannot be noted in "
                    f"{self._path}: {error}"
                )

    def _restore(self) -> None:
        """Unlock the clocks and put limits back, those of an earlier agent that crashed too."""
        nvml = self._nvml
        for handle in self._handles.values():
            if self._thread.is_abandoned:
                return
            with suppress(nvml.NVMLError):  # without permission nothing was ever set
                nvml.nvmlDeviceResetGpuLockedClocks(handle)
            uuid = self._maybe(lambda h=handle: _text(nvml.nvmlDeviceGetUUID(h)))
            watts = self._settings.get(uuid)
            if watts is None:
                continue
            try:
                nvml.nvmlDeviceSetPowerManagementLimit(handle, round(watts * 1000))
            except nvml.NVMLError:
                logger.exception("a GPU's power limit could not be put back", extra={"gpu": uuid})
                continue
            del self._settings[uuid]
        try:
            gpu_settings.write(self._path, self._settings)
        except OSError as error:  # a full disk: the limits are back, and the next agent puts them back again
            logger.error("the note of GPU settings cannot be written: %s", error)  # noqa: TRY400


def _text(value: Any) -> str:
    """Older bindings answer bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def visible_devices(environment: Mapping[str, str]) -> str | None:
    """The agent's own choice of GPUs, by which those of its instances are counted."""
    return environment.get("CUDA_VISIBLE_DEVICES")
