"""What the agent needs of engines and GPUs: two small protocols, and what a driver gets to do its work.

Rule: a driver acts and reports; it decides nothing. Admission, draining, restarts and back-off, power and
pushback are the agent's. Every call is bounded in time by its driver and raises only `DriverError`.

A driver module is `site_agent/drivers/<kind>.py` and exports `create(context: DriverContext) -> Drivers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from fleet.profile import PerformanceProfile, SitePowerModel
from site_agent.drivers.options import EngineOptions

DriverFault = Literal[
    "not_installed",
    "port_in_use",
    "bad_model",
    "bad_option",
    "out_of_memory",
    "missing_gpu",
    "timeout",
    "exited",
    "failed",
]
"""Label of a metric; the message is for a person."""


class DriverError(Exception):
    """An engine or GPU did not do as told; the message says what, where, and what to do about it."""

    def __init__(self, reason: DriverFault, message: str) -> None:
        super().__init__(message)
        self.reason: DriverFault = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceSpec:
    """One engine of the site. The same for as long as the agent lives."""

    instance_id: str
    """`<site>-<index>`; names files, log lines and metric labels."""
    index: int
    """0, 1, … in the order of preference: the governor keeps low indices awake longest."""
    port: int
    """Loopback port to serve on; 0: the driver chooses a free one at each start."""
    model: str
    """The name that clients use (`--served-model-name`)."""
    gpu_indices: tuple[int, ...]
    """Empty where the engine uses no GPU. Two instances that share one are never started together."""
    tensor_parallel_degree: int = 0
    """0: that of the site's own profile."""


InlineSystem = Literal["in_place", "merged"]
"""What becomes of a system message amid the others of a request to `/v1/messages`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCapabilities:
    """What the engines can do beyond the plain OpenAI API. Goes into SiteInfo as it is."""

    paths: tuple[str, ...]
    """Inference paths that the engine answers, e.g. `/v1/chat/completions`."""
    token_ids: bool = False
    """`return_token_ids` and prompts of token ids: exact resume."""
    sleep: bool = False
    """Sleeping really frees GPU memory."""
    max_model_len: int | None = None
    keeps_responses: bool = False
    """A response of `/v1/responses` stays in the engine's memory."""
    inline_system: InlineSystem | None = None
    """None: unknown."""


class EngineDriver(Protocol):
    """Starts, probes and stops the engines of one site."""

    async def open(self) -> None:
        """Start what all engines share. The agent has stopped leftovers of an earlier run before.

        Raises:
            DriverError: it cannot run here at all (not installed, bad model path, …).
        """

    async def start(self, spec: InstanceSpec) -> str:
        """Launch one engine and return its origin (`http://127.0.0.1:8123`); does not wait until it is ready.

        Only called for an instance that is stopped (or has exited by itself). A shared process that died is
        started anew here.

        Raises:
            DriverError: it could not be launched.
        """

    async def stop(self, instance_id: str, *, kill: bool = False) -> None:
        """Stop one engine; returns when it is gone and draws no more than `stopped_watts`. Idempotent.

        With `kill` at once (its open connections break off without a proper end); else it may take the
        driver's own, bounded grace first. A launch that is under way is abandoned.

        Raises:
            DriverError: it could not be stopped; the agent says so and tries again.
        """

    async def is_ready(self, instance_id: str) -> bool:
        """Health probe, bounded by some seconds; False for anything but a clear yes."""

    def exit_reason(self, instance_id: str) -> str | None:
        """Why an engine that nobody stopped has ended (with its log's last lines); None while it lives."""

    def capabilities(self) -> EngineCapabilities:
        """What is known now; may grow once an engine was seen (`max_model_len`)."""

    async def aclose(self, *, kill: bool = False) -> None:
        """Stop every engine, with `kill` as in `stop`, and what they share; never raises, idempotent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """One GPU now; None: it does not tell."""

    index: int
    """As in `InstanceSpec.gpu_indices`."""
    power_watts: float | None
    """None only of one that no instance uses: `GpuDriver.power_watts` assumes a figure for it."""
    clock_mhz: int | None = None
    temperature_celsius: float | None = None
    energy_joules: float | None = None
    """Counter of the device's own, since its driver was loaded."""


class GpuDriver(Protocol):
    """The GPUs of one site."""

    @property
    def problems(self) -> Sequence[str]:
        """What it cannot do here, and how to grant it."""
        ...

    is_fake: bool
    """True for emulated GPUs; metrics and reports say so."""
    is_none: bool
    """True where, by the configuration, there is nothing to measure and to set."""
    can_set_clock: bool
    """False: the governor plans with full clocks only and saves power by stopping engines."""
    spare_gpus: int
    """GPUs in `power_watts` that no instance uses."""

    async def power_watts(self) -> float | None:
        """All the site's GPUs together, now (no overhead, no host); None: unknown. Called 10 times a second.

        Bounded by about 0.3 s. None, never 0, when it cannot be read.
        """

    async def readings(self) -> tuple[GpuReading, ...]:
        """Every GPU, once a second; empty when they cannot be read. Bounded by about 2 s."""

    async def set_clock(self, instance_id: str, clock_mhz: int | None) -> None:
        """Lock the clocks of an instance's GPUs; None unlocks. Lasts over restarts of the engine.

        Raises:
            DriverError: not permitted or not possible.
        """

    async def aclose(self) -> None:
        """Restore clocks; never raises, idempotent."""


class ProcessRegistry(Protocol):
    """Who must die with the agent. A driver reports each process it starts, the moment it has its pid."""

    def add(self, label: str, pid: int) -> None:
        """`pid` leads a process group of its own (`start_new_session=True`).

        Written to a pid file for the next agent, and told to the watchdog, which kills the whole group when
        the agent dies or hangs.
        """

    def remove(self, pid: int) -> None:
        """The group is gone (reaped)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverContext:
    """All that a driver gets."""

    site_id: str
    state_dir: Path
    """Exists; logs and work files of the engines go below it."""
    specs: tuple[InstanceSpec, ...]
    options: EngineOptions
    """`[sites.engine]`, already checked, of this driver's kind."""
    profile: PerformanceProfile | None
    """None: unknown hardware (real engines on a CPU)."""
    profiles: Mapping[int, PerformanceProfile] = field(default_factory=dict)
    """Of every tensor-parallel degree that an instance has; without an entry: `profile`."""
    profile_references: Mapping[str, str] = field(default_factory=dict)
    """By a profile's id its name or file, where that is another."""
    max_concurrency: Mapping[int, int] = field(default_factory=dict)
    """The same of the requests that an instance runs at once; without an entry: the options'."""
    power_model: SitePowerModel
    processes: ProcessRegistry
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of the agent's process; engines inherit what their driver picks from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drivers:
    """What `create` returns. Both may be one object."""

    engines: EngineDriver
    gpus: GpuDriver
