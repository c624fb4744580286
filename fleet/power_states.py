"""The states that a server's spare capacity can wait in: what each draws and how long it is away. Pure.

Watts and seconds of one server, overhead not included. None of the defaults was measured by us: each says
where it comes from, and every one is a field.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PowerState(StrEnum):
    """From the most watts to the fewest."""

    SERVING = "serving"
    """Engine at work: watts by the profile."""
    IDLE = "idle"
    """Engine awake and empty. An engine asleep draws the same."""
    ENGINE_STOPPED = "engine_stopped"
    """GPUs without a context, host on."""
    SERVER_OFF = "server_off"


GPU_IDLE_WATTS = 115.0
"""vLLM's note on sleep mode: an awake, empty H100."""
GPU_STOPPED_WATTS = 70.0
"""Assumed; NVIDIA publishes no figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPower:
    """One server of H100s."""

    gpu_count: int = 8
    gpu_idle_watts: float = GPU_IDLE_WATTS
    gpu_stopped_watts: float = GPU_STOPPED_WATTS
    host_watts: float = 1_000.0
    """Assumed: processors, memory, fans, switches and network cards of a server that waits. A DGX H100's
    nameplate is 10,200 W (NVIDIA), 5,600 W of them GPUs; the rest is far from used when nothing runs."""
    off_watts: float = 0.0
    """DESIGN §3. A management controller's 10–30 W must come from firm power, or be set here."""
    engine_start_seconds: float = 90.0
    """Assumed: 141 GB of weights from local flash at 3–5 GB/s, and some 35 s of warm-up and graph capture (a
    start logged in vllm#20264 took 34 s with its compile cache warm)."""
    engine_wake_seconds: float = 10.0
    """Assumed: weights come back from host memory at PCIe speed."""
    engine_stop_seconds: float = 5.0
    """Assumed."""
    server_boot_seconds: float = 300.0
    """Assumed: firmware checks of a large server take minutes; without the engine's start."""
    server_shutdown_seconds: float = 30.0
    """Assumed."""

    def __post_init__(self) -> None:
        """Refuse what no server does.

        Raises:
            ValueError: a negative figure, or fewer GPUs than one.
        """
        if self.gpu_count < 1:
            raise ValueError(f"gpu_count is {self.gpu_count}; a server has at least 1")
        for name in self.__dataclass_fields__:
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")

    def watts(self, state: PowerState) -> float:
        """The whole server with every GPU in this state.

        Raises:
            ValueError: serving, which has no single figure: ask the profile.
        """
        if state is PowerState.SERVING:
            raise ValueError("a serving server's watts depend on its load: ask its profile")
        if state is PowerState.SERVER_OFF:
            return self.off_watts
        gpu = self.gpu_idle_watts if state is PowerState.IDLE else self.gpu_stopped_watts
        return self.host_watts + self.gpu_count * gpu

    def seconds_to_serve(self, state: PowerState) -> float:
        """From this state until requests are served."""
        if state in (PowerState.SERVING, PowerState.IDLE):
            return 0.0
        start = self.engine_start_seconds
        return start if state is PowerState.ENGINE_STOPPED else self.server_boot_seconds + start
