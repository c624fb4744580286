"""The watts of every visible GPU, by NVML: each by the fastest reading that it has.

Rule: those of the site's instances are measured, or the sum is unknown. One that no instance uses (a display
card, one that fell off the bus) must neither slow nor blind the meter: what it does not tell is assumed,
never 0, and said once.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

logger = logging.getLogger(__name__)

ASSUMED_SPARE_WATTS = 115.0
"""What an H100 draws that is awake and empty; of a GPU that told more before, its last reading."""


class GpuPower:
    """`nvml` is the module `pynvml`, or a fake; `seen` maps a GPU's number to its handle, or None."""

    def __init__(self, nvml: Any, seen: Mapping[int, Any], *, used: Collection[int]) -> None:
        """`used`: the numbers of the GPUs of the site's instances."""
        self._nvml = nvml
        self._seen = seen
        self._used = frozenset(used)
        self._late = {index for index, handle in seen.items() if not self._has_instant_power(handle)}
        self.is_late = bool(self._late & self._used)
        """Whether power that the governor steers is an average over the last second."""
        self._last: dict[int, float] = {}
        self._assumed: set[int] = set()

    @property
    def assumed(self) -> tuple[int, ...]:
        """The spare GPUs that did not tell their power, once or ever."""
        return tuple(sorted(self._assumed))

    def watts(self) -> float:
        """Of all together. Blocks.

        Raises:
            NVMLError: one that an instance uses cannot be read.
        """
        told = {index: self.of(index) for index in self._seen}
        return sum(self._assumption(index) if watts is None else watts for index, watts in told.items())

    def of(self, index: int) -> float | None:
        """Of one; None: it does not tell, and no instance uses it. Blocks.

        The plain call averages over a second from Ampere on, too slow for a governor. An instant reading that
        fails once is asked again the next time: only a GPU that never could is read by its average.

        Raises:
            NVMLError: an instance uses it, and it cannot be read.
        """
        handle = self._seen[index]
        if handle is None:
            self._say(index, "NVML does not open it")
            return None
        try:
            watts = None if index in self._late else self._instant_watts(handle)
            if watts is None:
                watts = float(self._nvml.nvmlDeviceGetPowerUsage(handle)) / 1000
        except self._nvml.NVMLError as error:
            if index in self._used:
                raise
            self._say(index, f"NVML: {error}")
            return None
        self._last[index] = watts
        return watts

    def _assumption(self, index: int) -> float:
        return max(ASSUMED_SPARE_WATTS, self._last.get(index, 0.0))

    def _say(self, index: int, why: str) -> None:
        if index not in self._assumed:
            self._assumed.add(index)
            watts = self._assumption(index)
            logger.warning(
                "no instance uses GPU %d and its power is unknown: %.0f W assumed; %s", index, watts, why
            )

    def _instant_watts(self, handle: Any) -> float | None:
        nvml = self._nvml
        try:
            [value] = nvml.nvmlDeviceGetFieldValues(handle, [nvml.NVML_FI_DEV_POWER_INSTANT])
        except nvml.NVMLError:
            return None
        return float(value.value.uiVal) / 1000 if value.nvmlReturn == nvml.NVML_SUCCESS else None

    def _has_instant_power(self, handle: Any) -> bool:
        """False only where GPU, driver or library know no such reading; any other error may pass."""
        nvml = self._nvml
        if handle is None or not hasattr(nvml, "NVML_FI_DEV_POWER_INSTANT"):
            return False
        try:
            [value] = nvml.nvmlDeviceGetFieldValues(handle, [nvml.NVML_FI_DEV_POWER_INSTANT])
            status = value.nvmlReturn
        except nvml.NVMLError as error:
            status = error.value
        return status not in (
            nvml.NVML_ERROR_NOT_SUPPORTED,
            nvml.NVML_ERROR_INVALID_ARGUMENT,
            nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        )
