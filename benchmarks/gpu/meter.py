"""The GPU's own word, ten times a second: watts, SM clock, memory. Reads only."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from site_agent.drivers.gpu_power import GpuPower

PERIOD_SECONDS = 0.1
HEADER = "unix_seconds,site_watts,sm_mhz,memory_gib\n"
"""`site_watts`: the site is the GPU alone, so that the log can be judged by (`cli.judge`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One instant of GPU 0."""

    unix_seconds: float
    watts: float
    sm_mhz: int
    memory_gib: float


class GpuMeter:
    """GPU 0 through NVML, apart from the agent's driver."""

    def __init__(self) -> None:
        import pynvml

        self._nvml: Any = pynvml
        pynvml.nvmlInit()
        self._handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        self._power = GpuPower(pynvml, {0: self._handle}, used=[0])
        self.name = str(pynvml.nvmlDeviceGetName(self._handle))
        self.driver = str(pynvml.nvmlSystemGetDriverVersion())
        self.has_instant_power = not self._power.is_late

    def read(self) -> Reading:
        nvml = self._nvml
        return Reading(
            unix_seconds=time.time(),
            watts=self._power.watts(),
            sm_mhz=int(nvml.nvmlDeviceGetClockInfo(self._handle, nvml.NVML_CLOCK_SM)),
            memory_gib=nvml.nvmlDeviceGetMemoryInfo(self._handle).used / 2**30,
        )

    def mean_watts(self, seconds: float) -> float:
        """By the energy counter, over the next seconds. Blocks."""
        joules, began = self._joules(), time.monotonic()
        time.sleep(seconds)
        return (self._joules() - joules) / (time.monotonic() - began)

    def _joules(self) -> float:
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1000

    @contextmanager
    def logging(self, path: Path) -> Iterator[None]:
        """Write a reading every tenth of a second for as long as the block lasts."""
        done = threading.Event()

        def write() -> None:
            with path.open("w", encoding="ascii") as log:
                log.write(HEADER)
                while not done.wait(PERIOD_SECONDS):
                    one = self.read()
                    log.write(f"{one.unix_seconds:.3f},{one.watts:.1f},{one.sm_mhz},{one.memory_gib:.2f}\n")

        thread = threading.Thread(target=write, name="gpu meter")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
