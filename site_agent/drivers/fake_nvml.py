"""A FAKE of the `pynvml` module, for tests of `nvml`: it says so (`IS_FAKE`, and in each GPU's name).

No physics: a test sets watts and reads back what was ordered. The fake GPUs with physics are the emulated
hardware's (`site_agent.emulation.gpu`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

LOWEST_LIMIT_MILLIWATTS, HIGHEST_LIMIT_MILLIWATTS = 200_000, 700_000


MESSAGES = {
    3: "Not Supported",
    4: "Insufficient Permissions",
    9: "Driver Not Loaded",
    15: "GPU is lost",
    999: "Unknown Error",
}


class FakeNvmlError(Exception):
    """Has `value`, as NVMLError does."""

    def __init__(self, value: int) -> None:
        super().__init__(MESSAGES[value])
        self.value = value


@dataclass(slots=True)
class FakeDevice:
    """One GPU's state."""

    uuid: str
    milliwatts: int = 115_000
    millijoules: int = 0
    locked: tuple[int, int] | None = None
    limit_milliwatts: int = HIGHEST_LIMIT_MILLIWATTS
    is_lost: bool = False
    """It fell off the bus: nothing can be asked of it."""
    has_power: bool = True
    has_instant_power: bool = True


@dataclass
class FakeNvml:
    """One machine. Faults are set by the test."""

    count: int = 2
    has_driver: bool = True
    is_permitted: bool = True
    has_instant_power: bool = True
    instant_faults: int = 0
    """So many of the next instant readings fail, for no reason that lasts."""
    orders: int = 0
    """Calls that change something on a GPU."""
    is_open: bool = False
    hang_seconds: float = 0.0
    """Each reading of power takes so long."""
    devices: list[FakeDevice] = field(init=False)

    IS_FAKE = True
    NVMLError = FakeNvmlError
    NVML_SUCCESS = 0
    NVML_ERROR_INVALID_ARGUMENT = 2
    NVML_ERROR_NOT_SUPPORTED = 3
    NVML_ERROR_NO_PERMISSION = 4
    NVML_ERROR_FUNCTION_NOT_FOUND = 13
    NVML_FI_DEV_POWER_INSTANT = 186
    NVML_CLOCK_SM = 1
    NVML_TEMPERATURE_GPU = 0

    def __post_init__(self) -> None:
        self.devices = [FakeDevice(uuid=f"GPU-fake-{number}") for number in range(self.count)]

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.has_driver:
            raise FakeNvmlError(9)
        self.is_open = True

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.is_open = False

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "fake"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeDevice:  # noqa: N802
        if self.devices[index].is_lost:
            raise FakeNvmlError(15)
        return self.devices[index]

    def nvmlDeviceGetUUID(self, device: FakeDevice) -> str:  # noqa: N802
        if device.is_lost:
            raise FakeNvmlError(15)
        return device.uuid

    def nvmlDeviceGetName(self, device: FakeDevice) -> str:  # noqa: N802
        if device.is_lost:
            raise FakeNvmlError(15)
        return "FAKE GPU"

    def nvmlDeviceGetPowerUsage(self, device: FakeDevice) -> int:  # noqa: N802
        time.sleep(self.hang_seconds)
        if device.is_lost or not device.has_power:
            raise FakeNvmlError(15 if device.is_lost else 3)
        return device.milliwatts

    def nvmlDeviceGetFieldValues(self, device: FakeDevice, _ids: list[int]) -> list[Any]:  # noqa: N802
        time.sleep(self.hang_seconds)
        if device.is_lost:
            raise FakeNvmlError(15)
        value = SimpleNamespace(uiVal=device.milliwatts)
        if self.instant_faults:
            self.instant_faults -= 1
            return [SimpleNamespace(nvmlReturn=999, value=value)]
        has_instant = self.has_instant_power and device.has_instant_power and device.has_power
        return [SimpleNamespace(nvmlReturn=0 if has_instant else 3, value=value)]

    def nvmlDeviceGetTotalEnergyConsumption(self, device: FakeDevice) -> int:  # noqa: N802
        if device.is_lost:
            raise FakeNvmlError(15)
        return device.millijoules

    def nvmlDeviceGetClockInfo(self, device: FakeDevice, _kind: int) -> int:  # noqa: N802
        return 1980 if device.locked is None else device.locked[1]

    def nvmlDeviceGetTemperature(self, _device: FakeDevice, _sensor: int) -> int:  # noqa: N802
        return 40

    def nvmlDeviceGetSupportedMemoryClocks(self, _device: FakeDevice) -> list[int]:  # noqa: N802
        return [2619, 1593]

    def nvmlDeviceGetSupportedGraphicsClocks(self, _device: FakeDevice, _memory: int) -> list[int]:  # noqa: N802
        return [1980, 1965, 360, 345]

    def nvmlDeviceSetGpuLockedClocks(self, device: FakeDevice, low: int, high: int) -> None:  # noqa: N802
        self._ask_permission()
        device.locked = low, high

    def nvmlDeviceResetGpuLockedClocks(self, device: FakeDevice) -> None:  # noqa: N802
        self._ask_permission()
        device.locked = None

    def nvmlDeviceGetPowerManagementLimit(self, device: FakeDevice) -> int:  # noqa: N802
        return device.limit_milliwatts

    def nvmlDeviceGetEnforcedPowerLimit(self, device: FakeDevice) -> int:  # noqa: N802
        return device.limit_milliwatts

    def nvmlDeviceGetPowerManagementLimitConstraints(self, _device: FakeDevice) -> list[int]:  # noqa: N802
        return [LOWEST_LIMIT_MILLIWATTS, HIGHEST_LIMIT_MILLIWATTS]

    def nvmlDeviceSetPowerManagementLimit(self, device: FakeDevice, milliwatts: int) -> None:  # noqa: N802
        self._ask_permission()
        device.limit_milliwatts = milliwatts

    def _ask_permission(self) -> None:
        self.orders += 1
        if not self.is_permitted:
            raise FakeNvmlError(4)
