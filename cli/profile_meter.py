"""The GPUs of the engine that `heron profile run` measures, by the site agent's own NVML driver."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from replay.profile_sweep import SweepError
from site_agent.drivers import nvml
from site_agent.drivers.interface import DriverError, InstanceSpec

INSTANCE = "profiled"


class NvmlMeter:
    """See `replay.profile_run.Meter`. Clocks are given back when the sweep ends."""

    def __init__(self, gpus: Sequence[int], library: Any = None) -> None:
        """
        Raises:
            SweepError: no driver, or no such GPU.
        """
        spec = InstanceSpec(instance_id=INSTANCE, index=0, port=0, model="", gpu_indices=tuple(sorted(gpus)))
        try:
            nvidia = nvml.load() if library is None else library
            state_dir = Path(tempfile.mkdtemp(prefix="heron-profile-"))
            self._gpus = nvml.NvmlGpus(nvidia, [spec], state_dir=state_dir)
        except DriverError as error:
            raise SweepError(str(error)) from None
        handles = [nvidia.nvmlDeviceGetHandleByIndex(index) for index in spec.gpu_indices]
        self.names = [str(nvidia.nvmlDeviceGetName(handle)) for handle in handles]

    async def joules(self) -> float | None:
        """See Meter."""
        readings = await self._gpus.readings()
        joules = [one.energy_joules for one in readings if one.energy_joules is not None]
        return sum(joules) if readings and len(joules) == len(readings) else None

    async def set_clock(self, clock_mhz: int | None) -> None:
        """See Meter."""
        try:
            await self._gpus.set_clock(INSTANCE, clock_mhz)
        except DriverError as error:
            raise SweepError(str(error)) from None
