"""The records of the wire contract (DESIGN §4), exactly as other programs write and read them.

Rule: unknown fields are ignored, a newer major `schema_version` is refused, a missing optional number is
`None` (unknown) and never zero. A record that fails says which field and why, in one line.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from fleet.keys import FLEET_NAME

SCHEMA_VERSION = "1.0"
"""`major.minor`. Readers take any minor of a major they know."""

SUPPORTED_MAJOR = 1
MAX_RECORD_BYTES = 1 << 20
"""A thousand instances fit in a quarter of this; anything larger is refused before it is parsed."""
MAX_SEQUENCE = (1 << 53) - 1
"""Sequences stay exact in every JSON implementation."""
MAX_LIST = 4096

Name = Annotated[str, Field(pattern=f"^{FLEET_NAME.pattern}$")]
WriterId = Annotated[str, Field(min_length=1, max_length=128)]
Text = Annotated[str, Field(max_length=512)]
Watts = Annotated[float, Field(ge=0, le=1e12)]
Joules = Annotated[float, Field(ge=0, le=1e15)]
Seconds = Annotated[float, Field(ge=0, le=1e9)]
UnixSeconds = Annotated[float, Field(ge=0, le=1e11)]
Ratio = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]

SchemaVersion = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    Field(pattern=r"^\d{1,4}(\.\d{1,4})?$"),
]
"""`major.minor`; a bare major, also as a number, is taken from foreign writers."""

SiteState = Literal["serving", "draining", "dark", "faulted"]
DrawSource = Literal["meter", "gpu", "modelled"]
PowerQuality = Literal["good", "suspect", "fallback"]
WireInstanceState = Literal["starting", "ready", "draining", "asleep", "stopped"]


class RecordError(ValueError):
    """A record that may not be used. `reason` is a short label for a metric, the text is for a person."""

    def __init__(self, reason: Literal["too_large", "malformed", "schema_version"], message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class Record(_Wire):
    """What every record carries."""

    kind: ClassVar[str]
    writer_field: ClassVar[str]

    schema_version: SchemaVersion = SCHEMA_VERSION
    sequence: Annotated[int, Field(ge=0, le=MAX_SEQUENCE)]
    signature: str | None = None

    @property
    def writer_id(self) -> str:
        """The random id of the process that wrote it."""
        return str(getattr(self, self.writer_field))

    def to_json(self) -> bytes:
        """UTF-8 JSON as it goes on the wire."""
        return self.model_dump_json().encode()

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Parse and check.

        Raises:
            RecordError: too large, not this record, or of a newer major version.
        """
        if len(raw) > MAX_RECORD_BYTES:
            raise RecordError("too_large", f"{cls.kind}: {len(raw)} bytes, at most {MAX_RECORD_BYTES}")
        try:
            record = cls.model_validate_json(raw)
        except ValidationError as error:
            raise RecordError("malformed", f"{cls.kind}: {describe_validation_error(error)}") from None
        major = int(record.schema_version.partition(".")[0])
        if major != SUPPORTED_MAJOR:
            raise RecordError(
                "schema_version",
                f"{cls.kind}: schema_version {record.schema_version}; this reader knows {SUPPORTED_MAJOR}.x",
            )
        return record


def describe_validation_error(error: ValidationError) -> str:
    """The first fault of a pydantic error as `field.path: what is wrong (and how many more)`."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    first = faults[0]
    where = ".".join(str(part) for part in first["loc"]) or "record"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{where}: {first['msg']}{more}"


class ForecastPoint(_Wire):
    """Quantiles of this site's granted power `horizon_seconds` from now."""

    horizon_seconds: Seconds
    p10_watts: Watts
    p50_watts: Watts
    p90_watts: Watts


class PowerReading(Record):
    """What the wind gives: `available`, `nameplate` are the farm's, `granted`, `forecast` this site's."""

    kind: ClassVar[str] = "PowerReading"
    writer_field: ClassVar[str] = "feed_id"

    feed_id: WriterId
    site_id: Name
    farm_id: Name
    observed_at_unix_seconds: UnixSeconds
    period_seconds: Annotated[float, Field(gt=0, le=1e7)]
    """Wall seconds between two measurements of the source."""
    available_power_watts: Watts
    granted_power_watts: Watts
    nameplate_capacity_watts: Watts
    quality: PowerQuality
    source: Text
    forecast: Annotated[tuple[ForecastPoint, ...], Field(max_length=MAX_LIST, strict=False)] = ()


class ConfigurationInfo(_Wire):
    """One way in which a site can run a model."""

    model: Text
    tensor_parallel_degree: Annotated[int, Field(ge=1, le=4096)]
    gpu_clock_mhz: Count | None = None
    profile_id: Text | None = None
    start_seconds: Seconds | None = None


class Capabilities(_Wire):
    """What a site's engines can do beyond the plain OpenAI API."""

    paths: Annotated[tuple[Text, ...], Field(max_length=MAX_LIST, strict=False)] = ()
    token_ids: bool = False
    """Answers `return_token_ids` and takes prompts of token ids: exact resume."""
    sleep: bool = False
    server_power: bool = False
    max_model_len: Count | None = None


class SiteInfo(Record):
    """What a site is; written at start and on change."""

    kind: ClassVar[str] = "SiteInfo"
    writer_field: ClassVar[str] = "agent_id"

    agent_id: WriterId
    site_id: Name
    farm_id: Name
    region: Text
    ingress_url: Text
    gpu_model: Text
    gpu_count: Count
    server_idle_watts: Watts
    overhead_ratio: Annotated[float, Field(ge=1, le=10)]
    ride_through_seconds: Seconds
    ride_through_joules: Joules
    safe_floor_watts: Watts
    max_site_watts: Watts
    configurations: Annotated[tuple[ConfigurationInfo, ...], Field(max_length=MAX_LIST, strict=False)] = ()
    capabilities: Capabilities = Capabilities()


class SitePower(_Wire):
    """Cap and draw of a site; `None` means unknown."""

    cap_watts: Watts | None = None
    draw_watts: Watts | None = None
    draw_source: DrawSource | None = None
    headroom_watts: float | None = None
    """Cap less draw; negative while the draw is above the cap."""
    quality: PowerQuality | None = None


class InstanceReport(_Wire):
    """One engine of a site."""

    instance_id: Text
    state: WireInstanceState | None = None
    tensor_parallel_degree: Annotated[int, Field(ge=1, le=4096)] | None = None
    gpu_clock_mhz: Count | None = None


class ModelReport(_Wire):
    """What a site can do for one model now; only `model` is required, `None` means unknown."""

    model: Annotated[str, Field(min_length=1, max_length=512)]
    ready_instances: Count | None = None
    instances: Annotated[tuple[InstanceReport, ...], Field(max_length=MAX_LIST, strict=False)] = ()
    max_concurrency: Count | None = None
    running_requests: Count | None = None
    waiting_requests: Count | None = None
    headroom_requests: Count | None = None
    headroom_prefill_tokens: Count | None = None
    headroom_kv_tokens: Count | None = None
    kv_cache_usage_ratio: Ratio | None = None
    prefill_tokens_per_second: Annotated[float, Field(ge=0)] | None = None
    itl_seconds_p50: Seconds | None = None
    itl_seconds_p99: Seconds | None = None
    ttft_seconds_p50: Seconds | None = None
    ttft_seconds_p99: Seconds | None = None


class SiteReport(Record):
    """What a site can do now; every second and at once on change."""

    kind: ClassVar[str] = "SiteReport"
    writer_field: ClassVar[str] = "agent_id"

    agent_id: WriterId
    site_id: Name
    observed_at_unix_seconds: UnixSeconds
    ingress_url: Text
    state: SiteState
    drain_seconds_left: Seconds | None = None
    power: SitePower = SitePower()
    models: Annotated[tuple[ModelReport, ...], Field(max_length=MAX_LIST, strict=False)] = ()

    @field_validator("models")
    @classmethod
    def _each_model_once(cls, models: tuple[ModelReport, ...]) -> tuple[ModelReport, ...]:
        names = [report.model for report in models]
        if len(set(names)) != len(names):
            raise ValueError("a model is listed twice")
        return models


class SolverReport(_Wire):
    """How a plan was found."""

    status: Text
    gap_ratio: Annotated[float, Field(ge=0)] | None = None
    seconds: Seconds


class PlanTarget(_Wire):
    """How many instances of one configuration a site should run."""

    model: Text
    tensor_parallel_degree: Annotated[int, Field(ge=1, le=4096)]
    gpu_clock_mhz: Count | None = None
    instances: Count


class Plan(Record):
    """Weights for routers, targets for agents, shares for feeds. A lower `epoch` is refused."""

    kind: ClassVar[str] = "Plan"
    writer_field: ClassVar[str] = "router_id"

    router_id: WriterId
    epoch: Annotated[int, Field(ge=0, le=MAX_SEQUENCE)]
    solved_at_unix_seconds: UnixSeconds
    valid_for_seconds: Seconds
    solver: SolverReport
    weights: dict[str, dict[str, dict[str, Ratio]]] = {}
    """model → request class → site → fraction."""
    targets: dict[str, Annotated[tuple[PlanTarget, ...], Field(max_length=MAX_LIST, strict=False)]] = {}
    shares: dict[str, dict[str, Ratio]] = {}
    """farm → site → fraction."""
    expected_shortfall: dict[str, dict[str, Annotated[float, Field(ge=0)]]] = {}
    """model → request class → requests per second that no site can serve."""


class RouterPresence(Record):
    """`router:<id>`: that a router lives, for operators."""

    kind: ClassVar[str] = "RouterPresence"
    writer_field: ClassVar[str] = "router_id"

    router_id: WriterId
    started_at_unix_seconds: UnixSeconds
    url: Text
    operations_url: Text
    version: Text
    policy: Text
    workers: Count


class PlannerLease(Record):
    """`planner-lease`: who plans; `epoch` fences what an earlier holder still writes."""

    kind: ClassVar[str] = "PlannerLease"
    writer_field: ClassVar[str] = "router_id"

    router_id: WriterId
    epoch: Annotated[int, Field(ge=0, le=MAX_SEQUENCE)]
    acquired_at_unix_seconds: UnixSeconds


class ApiKey(_Wire):
    """`key:<sha256>`: what an API key may do. The key itself is stored nowhere."""

    schema_version: SchemaVersion = SCHEMA_VERSION
    tenant: Name
    tiers: Annotated[tuple[Literal["priority", "default", "flex"], ...], Field(strict=False)] = ("default",)
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    expires_at_unix_seconds: UnixSeconds | None = None
    signature: str | None = None


def next_sequence(last: int | None, highest_seen: int | None, unix_milliseconds: int) -> int:
    """The sequence of a writer's next record: it grows over restarts and an emptied Redis (DESIGN §4).

    `last` is what this process wrote last (None at start), `highest_seen` the highest that it read of its
    own key. A start takes Unix milliseconds, or more where the key is already ahead of the clock.
    """
    floor = unix_milliseconds if last is None else last + 1
    return max(floor, 0 if highest_seen is None else highest_seen + 1)
