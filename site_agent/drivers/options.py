"""`[sites.engine]`: which engines a site runs. One table class per driver kind, told apart by `kind`.

The owner of a driver owns its class here. Keys shared by all kinds are in `_CommonOptions`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator

from fleet.config import ConfigModel, with_host

READ_ONLY = "nvml-read-only"
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

EngineUrl = Annotated[str, Field(pattern=r"^https?://[^/\s?#@]+$", max_length=512), AfterValidator(with_host)]


class _CommonOptions(ConfigModel):
    model: Annotated[str, Field(min_length=1, max_length=512)]
    """The name clients use."""
    instances: Annotated[int, Field(ge=1, le=MAX_INSTANCES)] = 3
    profile: str | None = None
    """A shipped one by its name, or a file that `heron profile run` wrote (its name ends in `.json`; relative
    to the configuration file). None: unknown hardware, by the assumed watts below."""
    other_profiles: Annotated[tuple[str, ...], Field(max_length=8)] = ()
    """Files of the same model and GPU for `other_tensor_parallel_degrees`; shipped ones are found without."""
    max_concurrency: Annotated[int, Field(ge=1, le=4096)] = 16
    """Requests one instance runs at once; more are pushed back."""
    other_tensor_parallel_degrees: Annotated[
        tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(max_length=8)
    ] = ()
    """Further degrees that the same GPUs can be run at, for a plan that wants them. Each needs a profile of
    the same model and GPU, and must divide the number of GPUs. Who shares a GPU never runs at once."""
    other_max_concurrency: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = ()
    """Of those, in their order; empty: the same as `max_concurrency`."""
    first_port: Annotated[int, Field(ge=0, le=65536 - MAX_INSTANCES)] = 0
    """Instance i serves on first_port + i, in every layout; 0: free ports are chosen."""
    start_seconds: Annotated[float, Field(ge=0, le=3600)] = 2.0
    """How long a start takes: emulated engines take it, for others it is the first guess."""
    start_timeout_seconds: Annotated[float, Field(gt=0, le=7200)] = 60.0
    """Not ready by then: stopped, and started again after the back-off."""
    assumed_stopped_watts: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Without a profile, or where its file does not say, of one instance: its hardware without an engine,"""
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
    hardware_profile: str | None = None
    """What the fake hardware does, where the site is to reckon with another; None: `profile`."""
    seed: int = 0
    """Of the fake GPUs' noise."""
    power_lag_seconds: Annotated[float, Field(ge=0, le=10)] = 0.3
    power_noise_ratio: Annotated[float, Field(ge=0, le=0.5)] = 0.01


class _RealOptions(_CommonOptions):
    """Engines on real hardware."""

    gpus_per_instance: Annotated[int, Field(ge=0, le=16)] = 1
    """0: engines use no GPU, or not this machine's."""
    gpu_driver: Literal["auto", "nvml", "nvml-read-only", "none"] = "auto"
    """Who reads the GPUs' power and sets their clocks: `nvml` must be there, `auto` takes it if it is;
    `nvml-read-only` must be there too, and changes nothing on the GPUs, whatever the agent's rights: power is
    then saved by admission and by stopping engines; with `none` the draw is modelled besides."""
    gpu_power_limit_watts: Annotated[float, Field(gt=0, le=5000)] | None = None
    """Ceiling of each GPU (NVML's power limit), set at start and put back at the end; None: as it is."""

    @model_validator(mode="after")
    def _read_only_sets_nothing(self) -> Self:
        if self.gpu_driver == READ_ONLY and self.gpu_power_limit_watts is not None:
            raise ValueError(
                f'gpu_power_limit_watts cannot be set with gpu_driver = "{READ_ONLY}": leave one of them out'
            )
        return self


class VllmOptions(_RealOptions):
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
    cpu_kv_cache_gib: Annotated[int, Field(ge=1, le=4096)] = 1
    """With the CPU build: memory of an engine's KV cache, in GiB."""
    cpu_threads_bind: Annotated[str, Field(min_length=1, max_length=512)] = "nobind"
    """With the CPU build: its cores, e.g. `0-3` (`VLLM_CPU_OMP_THREADS_BIND`). Left to itself (`auto`) every
    engine of a machine takes the same ones."""
    sleep: bool = False
    """Open vLLM's development mode on the engines' loopback ports, for sleep and wake; see vllm_sleep.py."""
    stop_grace_seconds: Annotated[float, Field(ge=0, le=60)] = 1.5
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


class ExternalOptions(_RealOptions):
    """Engines that somebody else runs: another scheduler, Kubernetes, SGLang."""

    kind: Literal["external"]
    urls: Annotated[tuple[EngineUrl, ...], Field(min_length=1, max_length=MAX_INSTANCES)]
    """One per engine, scheme, host and port. What a second way in lets through is not under the cap."""
    instances: Annotated[int, Field(ge=1, le=MAX_INSTANCES)] = 1
    """Always as many as urls; need not be given."""
    gpus_per_instance: Annotated[int, Field(ge=0, le=16)] = 0
    """Above 0: engine i uses GPUs i × this and following of this machine, read by `gpu_driver`."""
    engine_api_key: SecretStr | None = None
    """Shown to the engines as a bearer token."""
    keeps_responses: bool = False
    """They keep what `/v1/responses` made (vLLM: `VLLM_ENABLE_RESPONSES_API_STORE=1`)."""
    start_seconds: Annotated[float, Field(ge=0, le=3600)] = 0.0

    @model_validator(mode="before")
    @classmethod
    def _counts(cls, values: Any) -> Any:
        """`instances` is the number of urls."""
        if isinstance(values, dict) and "instances" not in values:
            urls = values.get("urls")
            if isinstance(urls, (list, tuple)) and urls:
                return {**values, "instances": len(urls)}
        return values

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.instances != len(self.urls):
            raise ValueError(f"instances = {self.instances}, urls are {len(self.urls)}: leave it out")
        if len(set(self.urls)) != len(self.urls):
            raise ValueError("urls: one engine is named twice")
        return self


EngineOptions = Annotated[EmulatedOptions | VllmOptions | ExternalOptions, Field(discriminator="kind")]
"""One site's engine table."""
