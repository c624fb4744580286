"""The GPUs of the engine that `heron profile run` measures, by the site agent's own NVML driver."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from replay.profile_sweep import SweepError
from site_agent.drivers import nvml
from site_agent.drivers.interface import DriverError, InstanceSpec

INSTANCE = "profiled"


class NvmlMeter:
    """See `replay.profile_run.Meter`. Reads only, unless it `locks`: clocks are given back at the end."""

    def __init__(self, gpus: Sequence[int], library: Any = None, *, locks: bool = False) -> None:
        """
        Raises:
            SweepError: no driver, or no such GPU.
        """
        spec = InstanceSpec(instance_id=INSTANCE, index=0, port=0, model="", gpu_indices=tuple(sorted(gpus)))
        try:
            nvidia = nvml.load() if library is None else library
            self._state_dir = Path(tempfile.mkdtemp(prefix="heron-profile-"))
            self._gpus = nvml.NvmlGpus(nvidia, [spec], state_dir=self._state_dir, is_read_only=not locks)
        except DriverError as error:
            raise SweepError(str(error)) from None
        self._indices = spec.gpu_indices
        handles = [nvidia.nvmlDeviceGetHandleByIndex(index) for index in spec.gpu_indices]
        self.names = [str(nvidia.nvmlDeviceGetName(handle)) for handle in handles]

    async def joules(self) -> float | None:
        """See Meter."""
        readings = [one for one in await self._gpus.readings() if one.index in self._indices]
        joules = [one.energy_joules for one in readings if one.energy_joules is not None]
        return sum(joules) if readings and len(joules) == len(readings) else None

    async def clock_mhz(self) -> float | None:
        """See Meter."""
        clocks = [
            one.clock_mhz
            for one in await self._gpus.readings()
            if one.index in self._indices and one.clock_mhz is not None
        ]
        return min(clocks, default=None)

    async def set_clock(self, clock_mhz: int | None) -> None:
        """See Meter."""
        try:
            await self._gpus.set_clock(INSTANCE, clock_mhz)
        except DriverError as error:
            raise SweepError(str(error)) from None

    async def aclose(self) -> None:
        """See Meter."""
        await self._gpus.aclose()
        shutil.rmtree(self._state_dir, ignore_errors=True)
