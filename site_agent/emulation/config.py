"""What the process of a site's fake hardware is told, as one JSON object."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, PrivateAttr, model_validator

from fleet.config import ConfigModel, Port
from fleet.profile import PerformanceProfile
from fleet.profile_file import Profiles
from fleet.profiles.measured_watts import AssumedWatts
from site_agent.emulation.engine import MAX_WAITING, PREFILL_CHUNK_TOKENS

MAX_ENGINES = 64
MAX_GPUS_PER_ENGINE = 16


class EngineSettings(ConfigModel):
    """One engine and its GPUs."""

    instance_id: Annotated[str, Field(min_length=1, max_length=256)]
    port: Port = 0
    """0: a free port is chosen at each start."""
    gpu_indices: Annotated[
        tuple[Annotated[int, Field(ge=0, le=4095)], ...],
        Field(min_length=1, max_length=MAX_GPUS_PER_ENGINE),
    ]
    """Engines that share a GPU cannot run at once."""
    profile: str | None = None
    """Name or file; None: the host's."""
    max_concurrency: Annotated[int, Field(ge=1, le=4096)] | None = None
    """None: the host's."""


class HostSettings(ConfigModel):
    """The whole process."""

    site_id: Annotated[str, Field(min_length=1, max_length=256)]
    model: Annotated[str, Field(min_length=1, max_length=512)]
    profile: str
    """A shipped one's name, or a file of `heron profile run`."""
    assumed_stopped_watts: Annotated[float, Field(ge=0)] | None = None
    """What a file does not say, of one engine's GPUs; None: see `fleet.profiles.measured_watts`."""
    assumed_idle_watts: Annotated[float, Field(ge=0)] | None = None
    assumed_busy_watts: Annotated[float, Field(ge=0)] | None = None
    engines: Annotated[tuple[EngineSettings, ...], Field(min_length=1, max_length=MAX_ENGINES)]
    max_concurrency: Annotated[int, Field(ge=1, le=4096)] = 16
    max_waiting: Annotated[int, Field(ge=0, le=65_536)] = MAX_WAITING
    kv_tokens: Annotated[int, Field(ge=1)] | None = None
    """KV cache of an engine; None: the profile's."""
    prefill_chunk_tokens: Annotated[int, Field(ge=1, le=65_536)] = PREFILL_CHUNK_TOKENS
    start_seconds: Annotated[float, Field(ge=0, le=3600)] = 2.0
    overhead_ratio: Annotated[float, Field(ge=1, le=10)] = 1.1
    host_idle_watts: Annotated[float, Field(ge=0)] = 0.0
    power_log: Path | None = None
    """Where the fake meter writes, 10 lines a second; None: nowhere."""
    seed: int = 0
    power_lag_seconds: Annotated[float, Field(ge=0, le=10)] = 0.3
    power_noise_ratio: Annotated[float, Field(ge=0, le=0.5)] = 0.01
    host: str = "127.0.0.1"
    control_port: Port = 0
    parent_pid: int | None = None
    """The process dies with this one, whatever kills it."""
    log_level: str = "info"

    _profiles: Profiles | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name in (self.profile, *(one.profile for one in self.engines if one.profile is not None)):
            self._find_profile(name)
        least = self.performance_profile.max_model_len
        if self.kv_tokens is not None and self.kv_tokens < least:
            raise ValueError(f"kv_tokens is {self.kv_tokens}; at least max_model_len ({least}) is needed")
        names = [engine.instance_id for engine in self.engines]
        if len(set(names)) != len(names):
            raise ValueError("two engines have one instance_id")
        for engine in self.engines:
            if len(set(engine.gpu_indices)) != len(engine.gpu_indices):
                raise ValueError(f"engine {engine.instance_id} has a GPU twice")
        return self

    @property
    def performance_profile(self) -> PerformanceProfile:
        """The profile of engines that have none of their own."""
        return self._find_profile(self.profile)

    def profile_of(self, engine: EngineSettings) -> PerformanceProfile:
        """The profile of one engine."""
        return self._find_profile(self.profile if engine.profile is None else engine.profile)

    def _find_profile(self, reference: str) -> PerformanceProfile:
        if self._profiles is None:
            self._profiles = Profiles(
                assumed=AssumedWatts(
                    stopped=self.assumed_stopped_watts,
                    idle=self.assumed_idle_watts,
                    busy=self.assumed_busy_watts,
                )
            )
        return self._profiles.find(reference)

    @property
    def gpu_indices(self) -> tuple[int, ...]:
        """Of the whole host, ascending."""
        return tuple(sorted({index for engine in self.engines for index in engine.gpu_indices}))
