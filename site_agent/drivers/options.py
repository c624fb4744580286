"""`[sites.engine]`: which engines a site runs. One table class per driver kind, told apart by `kind`.

The owner of a driver owns its class here. Keys shared by all kinds are in `_CommonOptions`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from fleet.config import ConfigModel

MAX_INSTANCES = 64
"""Engines of one site; a server has 8 GPUs, so this is generous."""

VLLM_FORBIDDEN_ENVIRONMENT = ("VLLM_SERVER_DEV_MODE", "VLLM_API_KEY")
"""The first opens unprotected control routes, the second locks the agent out."""
_VLLM_OWN_ARGUMENTS = (
    *("--host", "--port", "--uds", "--served-model-name", "--api-key", "--root-path"),
    *("--ssl-keyfile", "--ssl-certfile", "--ssl-ca-certs", "--ssl-cert-reqs"),
    *("--headless", "--grpc"),
)
"""Heron sets these, or cannot work with them: it speaks plain HTTP to an address of its own choice."""


class _CommonOptions(ConfigModel):
    model: Annotated[str, Field(min_length=1, max_length=512)]
    """The name clients use."""
    instances: Annotated[int, Field(ge=1, le=MAX_INSTANCES)] = 3
    profile: str | None = None
    """A key of `fleet.profile.PROFILES`; None: unknown hardware, only for engines without GPUs."""
    max_concurrency: Annotated[int, Field(ge=1, le=4096)] = 16
    """Requests one instance runs at once; more are pushed back."""
    first_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Instance i serves on first_port + i; 0: free ports are chosen."""
    start_seconds: Annotated[float, Field(ge=0, le=3600)] = 2.0
    """How long a start takes: emulated engines take it, for others it is the first guess."""
    start_timeout_seconds: Annotated[float, Field(gt=0, le=7200)] = 60.0
    """Not ready by then: stopped, and started again after the back-off."""
    assumed_stopped_watts: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Without a profile, of one instance: its hardware without an engine,"""
    assumed_idle_watts: Annotated[float, Field(ge=0, le=1e6)] = 200.0
    """with an engine that is awake and empty,"""
    assumed_busy_watts: Annotated[float, Field(ge=0, le=1e6)] = 400.0
    """and busy. Draw is then "modelled", from these."""


class EmulatedOptions(_CommonOptions):
    """Emulated engines: real HTTP, the profile's speed and watts, no GPU."""

    kind: Literal["emulated"]
    model: Annotated[str, Field(min_length=1, max_length=512)] = "llama-3.1-70b"
    profile: str | None = "llama-3.1-70b/h100/tp4"
    power_log: Path | None = None
    """The fake GPUs' own 10-Hz log (CSV); None: `<state_dir>/fake-power.csv`."""
    seed: int = 0
    """Of the fake GPUs' noise."""
    power_lag_seconds: Annotated[float, Field(ge=0, le=10)] = 0.3
    power_noise_ratio: Annotated[float, Field(ge=0, le=0.5)] = 0.01


class VllmOptions(_CommonOptions):
    """`vllm serve` processes, one per instance."""

    kind: Literal["vllm"]
    instances: Annotated[int, Field(ge=1, le=MAX_INSTANCES)] = 1
    start_seconds: Annotated[float, Field(ge=0, le=3600)] = 60.0
    start_timeout_seconds: Annotated[float, Field(gt=0, le=7200)] = 600.0
    command: Annotated[tuple[str, ...], Field(min_length=1)] = ("vllm",)
    """What runs it; e.g. the path of another environment's `vllm`."""
    model_path: str | None = None
    """What `vllm serve` gets: a directory or a hub id; None: `model`."""
    arguments: tuple[str, ...] = ()
    """Further arguments, added last."""
    environment: Annotated[dict[str, str], Field(default_factory=dict)]
    """Further environment variables of the engines."""
    gpus_per_instance: Annotated[int, Field(ge=0, le=16)] = 1
    """0: the CPU build."""
    cpu_kv_cache_gib: Annotated[int, Field(ge=1, le=4096)] = 1
    """With the CPU build: memory of an engine's KV cache, in GiB."""
    cpu_threads_bind: Annotated[str, Field(min_length=1, max_length=512)] = "nobind"
    """With the CPU build: its cores, e.g. `0-3` (`VLLM_CPU_OMP_THREADS_BIND`). Left to itself (`auto`) every
    engine of a machine takes the same ones."""
    stop_grace_seconds: Annotated[float, Field(ge=0, le=60)] = 2.0
    """Between SIGTERM and SIGKILL when an engine is stopped without `kill`."""

    @field_validator("arguments")
    @classmethod
    def _are_free(cls, arguments: tuple[str, ...]) -> tuple[str, ...]:
        for argument in arguments:
            if argument.partition("=")[0].replace("_", "-") in _VLLM_OWN_ARGUMENTS:
                raise ValueError(f"{argument!r} cannot be given: Heron sets or needs it")
        return arguments

    @field_validator("environment")
    @classmethod
    def _is_safe(cls, environment: dict[str, str]) -> dict[str, str]:
        for name in VLLM_FORBIDDEN_ENVIRONMENT:
            if name in environment:
                raise ValueError(f"{name} cannot be given: the agent must be an engine's only way in")
        return environment


EngineOptions = Annotated[EmulatedOptions | VllmOptions, Field(discriminator="kind")]
"""One site's engine table."""
