"""Which GPU driver real engines get: NVML where it can be had, else none, said loudly."""

from __future__ import annotations

import logging
from typing import Any

from site_agent.drivers import nvml
from site_agent.drivers.interface import DriverContext, DriverError, GpuDriver, GpuReading
from site_agent.drivers.options import READ_ONLY, ExternalOptions, VllmOptions

logger = logging.getLogger(__name__)


class UnmeasuredGpus:
    """GPUs (or none) whose power nobody reads and whose clocks nobody sets."""

    is_fake = False
    is_none: bool
    can_set_clock = False
    spare_gpus = 0
    problems: tuple[str, ...] = ()

    def __init__(self, *, is_none: bool) -> None:
        """`is_none`: so it was configured; else it was to be NVML."""
        self.is_none = is_none

    async def power_watts(self) -> float | None:
        """See GpuDriver."""
        return None

    async def readings(self) -> tuple[GpuReading, ...]:
        """See GpuDriver."""
        return ()

    async def set_clock(self, instance_id: str, clock_mhz: int | None) -> None:
        """See GpuDriver: always refused, except to unlock what was never locked."""
        if clock_mhz is not None:
            raise DriverError("failed", f"{instance_id}: nothing here sets clocks (gpu_driver)")

    async def aclose(self) -> None:
        """See GpuDriver."""


def create(context: DriverContext, options: VllmOptions | ExternalOptions, library: Any = None) -> GpuDriver:
    """The GPUs of real engines. `library` stands in for `pynvml` in tests.

    Raises:
        DriverError: `gpu_driver` names NVML and it cannot be had, or the site uses GPUs that are not there.
    """
    uses_gpus = any(spec.gpu_indices for spec in context.specs)
    if options.gpu_driver == "none" or (options.gpu_driver == "auto" and not uses_gpus):
        return UnmeasuredGpus(is_none=True)
    try:
        found = nvml.NvmlGpus(
            nvml.load() if library is None else library,
            context.specs,
            state_dir=context.state_dir,
            visible_devices=nvml.visible_devices(context.environment),
            power_limit_watts=options.gpu_power_limit_watts,
            is_read_only=options.gpu_driver == READ_ONLY,
        )
    except DriverError as error:
        if options.gpu_driver != "auto":
            raise
        logger.warning("the GPUs' power is unknown, the draw is modelled: %s", error)
        return UnmeasuredGpus(is_none=False)
    for problem in found.problems:
        logger.warning("GPUs: %s", problem)
    return found
