"""The records of the wire contract (DESIGN §4), exactly as other programs write and read them.

Rule: unknown fields are ignored, a newer major `schema_version` is refused, a missing optional number is
`None` (unknown) and never zero. A record that fails says which field and why, in one line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator

from fleet.profile_record import MAX_SITE_PROFILES, ProfileInfo
from fleet.wire import (
    MAX_KEY_FIELDS,
    MAX_PLAN_BYTES,
    MAX_SEQUENCE,
    Count,
    Document,
    Items,
    Joules,
    Name,
    PerSecond,
    Ratio,
    Record,
    RecordError,
    SchemaVersion,
    Seconds,
    Table,
    Text,
    UnixSeconds,
    Watts,
    WirePart,
    Writer,
    WriterId,
    describe_validation_error,
)

API_KEY_SCHEMA_VERSION = "1.1"
SITE_INFO_SCHEMA_VERSION = "1.4"
"""1.1: a configuration may say its `max_concurrency`. 1.2: `profiles`. 1.3: `keeps_responses`.
1.4: `inline_system`.
"""
SITE_REPORT_SCHEMA_VERSION = "1.2"
"""1.1: joules per token. 1.2: `episode_seconds`."""
ROUTER_PRESENCE_SCHEMA_VERSION = "1.1"
"""1.1: `demand`."""

MAX_SITE_MODELS = 256
"""That a site reports on: whoever reads it keeps something of each."""

TokenMean = Annotated[float, Field(ge=0, le=1e9)]
"""Mean tokens of a request."""

SiteState = Literal["serving", "draining", "dark", "faulted"]
DrawSource = Literal["meter", "gpu", "modelled"]
PowerQuality = Literal["good", "suspect", "fallback"]
WireInstanceState = Literal["starting", "ready", "draining", "asleep", "stopped"]


class ForecastPoint(WirePart):
    """Quantiles of this site's granted power `horizon_seconds` from now."""

    horizon_seconds: Seconds
    p10_watts: Watts
    p50_watts: Watts
    p90_watts: Watts


class PowerReading(Record):
    """What the wind gives: `available`, `nameplate` are the farm's, `granted`, `forecast` this site's."""

    kind: ClassVar[str] = "PowerReading"
    written_by: ClassVar[Writer] = "power_feed"
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
    forecast: Items[ForecastPoint] = ()


class ConfigurationInfo(WirePart):
    """One way in which a site can run a model."""

    model: Text
    tensor_parallel_degree: Annotated[int, Field(ge=1, le=4096)]
    gpu_clock_mhz: Count | None = None
    profile_id: Text | None = None
    start_seconds: Seconds | None = None
    max_concurrency: Count | None = None
    """Requests that one instance runs at once. Since 1.1."""


class Capabilities(WirePart):
    """What a site's engines can do beyond the plain OpenAI API."""

    paths: Items[Text] = ()
    token_ids: bool = False
    """Answers `return_token_ids` and takes prompts of token ids: exact resume."""
    sleep: bool = False
    server_power: bool = False
    max_model_len: Count | None = None
    keeps_responses: bool = False
    """A response stays with the engine that made it, to be read or gone on from. Since 1.3."""
    inline_system: Text | None = None
    """What becomes of a system message amid the others in `/v1/messages`: `in_place`, `merged`. Since 1.4."""


class SiteInfo(Record):
    """What a site is; written at start and on change."""

    kind: ClassVar[str] = "SiteInfo"
    written_by: ClassVar[Writer] = "site"
    writer_field: ClassVar[str] = "agent_id"

    schema_version: SchemaVersion = SITE_INFO_SCHEMA_VERSION
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
    configurations: Items[ConfigurationInfo] = ()
    capabilities: Annotated[
        Capabilities, BeforeValidator(lambda value: Capabilities() if value is None else value)
    ] = Capabilities()
    profiles: Annotated[Items[ProfileInfo], Field(max_length=MAX_SITE_PROFILES)] = ()
    """Those of `configurations` that readers may not know by their name, or not so. Since 1.2."""

    @field_validator("profiles")
    @classmethod
    def _each_profile_once(cls, profiles: tuple[ProfileInfo, ...]) -> tuple[ProfileInfo, ...]:
        names = [one.profile_id for one in profiles]
        if len(set(names)) != len(names):
            raise ValueError("a profile is listed twice")
        return profiles


class SitePower(WirePart):
    """Cap and draw of a site; `None` means unknown."""

    cap_watts: Watts | None = None
    draw_watts: Watts | None = None
    draw_source: DrawSource | None = None
    headroom_watts: Annotated[float, Field(ge=-1e12, le=1e12)] | None = None
    """Cap less draw; negative while the draw is above the cap."""
    quality: PowerQuality | None = None
    episode_seconds: Seconds | None = None
    """Age of the ride-through episode that runs (`fleet.power.RideThroughAccount`) when this was written: a
    duration, so that no reader needs the writer's clock. None: none runs, or unknown. Since 1.2."""


class InstanceReport(WirePart):
    """One engine of a site."""

    instance_id: Text
    state: WireInstanceState | None = None
    tensor_parallel_degree: Annotated[int, Field(ge=1, le=4096)] | None = None
    gpu_clock_mhz: Count | None = None


class ModelReport(WirePart):
    """What a site can do for one model now; only `model` is required, `None` means unknown."""

    model: Annotated[str, Field(min_length=1, max_length=512)]
    ready_instances: Count | None = None
    instances: Items[InstanceReport] = ()
    max_concurrency: Count | None = None
    running_requests: Count | None = None
    waiting_requests: Count | None = None
    headroom_requests: Count | None = None
    headroom_prefill_tokens: Count | None = None
    headroom_kv_tokens: Count | None = None
    kv_cache_usage_ratio: Ratio | None = None
    prefill_tokens_per_second: PerSecond | None = None
    itl_seconds_p50: Seconds | None = None
    itl_seconds_p99: Seconds | None = None
    ttft_seconds_p50: Seconds | None = None
    ttft_seconds_p99: Seconds | None = None
    joules_per_prompt_token: Joules | None = None
    joules_per_output_token: Joules | None = None
    """Of late, overhead in, idle time out. Since 1.1."""


class SiteReport(Record):
    """What a site can do now; every second and at once on change."""

    kind: ClassVar[str] = "SiteReport"
    written_by: ClassVar[Writer] = "site"
    writer_field: ClassVar[str] = "agent_id"

    schema_version: SchemaVersion = SITE_REPORT_SCHEMA_VERSION
    agent_id: WriterId
    site_id: Name
    observed_at_unix_seconds: UnixSeconds
    ingress_url: Text
    state: SiteState
    drain_seconds_left: Seconds | None = None
    power: Annotated[SitePower, BeforeValidator(lambda value: SitePower() if value is None else value)] = (
        SitePower()
    )
    models: Annotated[Items[ModelReport], Field(max_length=MAX_SITE_MODELS)] = ()

    @field_validator("models")
    @classmethod
    def _each_model_once(cls, models: tuple[ModelReport, ...]) -> tuple[ModelReport, ...]:
        names = [report.model for report in models]
        if len(set(names)) != len(names):
            raise ValueError("a model is listed twice")
        return models


class SolverReport(WirePart):
    """How a plan was found."""

    status: Text
    gap_ratio: Annotated[float, Field(ge=0, le=1e9)] | None = None
    seconds: Seconds


class PlanTarget(WirePart):
    """How many instances of one configuration a site should run."""

    model: Text
    tensor_parallel_degree: Annotated[int, Field(ge=1, le=4096)]
    gpu_clock_mhz: Count | None = None
    instances: Count


class Plan(Record):
    """Weights for routers, targets for agents, shares for feeds. A lower `epoch` is refused."""

    kind: ClassVar[str] = "Plan"
    written_by: ClassVar[Writer] = "router"
    max_bytes: ClassVar[int] = MAX_PLAN_BYTES
    writer_field: ClassVar[str] = "router_id"

    router_id: WriterId
    epoch: Annotated[int, Field(ge=0, le=MAX_SEQUENCE)]
    solved_at_unix_seconds: UnixSeconds
    valid_for_seconds: Seconds
    solver: SolverReport
    weights: Table[Table[Table[Ratio]]] = Field(default_factory=dict)
    """model → request class → site → fraction."""
    targets: Table[Items[PlanTarget]] = Field(default_factory=dict)
    """site → instances per configuration."""
    shares: Table[Table[Ratio]] = Field(default_factory=dict)
    """farm → site → fraction."""
    expected_shortfall: Table[Table[PerSecond]] = Field(default_factory=dict)
    """model → request class → requests per second that no site can serve."""


class ClassRate(WirePart):
    """What came of one class in the last minute."""

    requests_per_second: PerSecond
    prompt_tokens: TokenMean
    output_tokens: TokenMean


class RouterPresence(Record):
    """`router:<id>`: that a router lives, for operators; and what clients ask of it, for the planner."""

    kind: ClassVar[str] = "RouterPresence"
    written_by: ClassVar[Writer] = "router"
    writer_field: ClassVar[str] = "router_id"

    schema_version: SchemaVersion = ROUTER_PRESENCE_SCHEMA_VERSION
    router_id: WriterId
    started_at_unix_seconds: UnixSeconds
    url: Text
    operations_url: Text
    version: Text
    policy: Text
    workers: Count
    demand: Table[Table[ClassRate]] = Field(default_factory=dict)
    """model → request class → what came. Since 1.1."""


class PlannerLease(Record):
    """`planner-lease`: who plans; `epoch` fences what an earlier holder still writes."""

    kind: ClassVar[str] = "PlannerLease"
    written_by: ClassVar[Writer] = "router"
    writer_field: ClassVar[str] = "router_id"

    router_id: WriterId
    epoch: Annotated[int, Field(ge=0, le=MAX_SEQUENCE)]
    acquired_at_unix_seconds: UnixSeconds


class Cordon(Document):
    """`cordon:<site>`: an operator wants no new work sent there. What runs there goes on."""

    kind: ClassVar[str] = "Cordon"
    written_by: ClassVar[Writer] = "operator"

    reason: Text = ""
    """What people are told."""
    since_unix_seconds: UnixSeconds
    until_unix_seconds: UnixSeconds | None = None
    """When it is over by itself. While this is not past, a record that is gone is a loss, and no end."""
    lifted_at_unix_seconds: UnixSeconds | None = None
    """Set: it holds no more."""


class ApiKey(Document):
    """`key:<sha256>`: what an API key may do. The key itself is stored nowhere.

    A Redis hash, not a string: `to_hash` and `from_hash`. It has no sequence and no writer, for it is
    edited field by field. Since 1.1 it has a name, an age, a limit on what is under way, and an end.
    """

    kind: ClassVar[str] = "ApiKey"
    written_by: ClassVar[Writer] = "operator"

    schema_version: SchemaVersion = API_KEY_SCHEMA_VERSION
    tenant: Name
    name: Text | None = None
    """What people call it."""
    tiers: Items[Literal["priority", "default", "flex"]] = ("default",)
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    concurrent_requests: Count | None = None
    created_at_unix_seconds: UnixSeconds | None = None
    expires_at_unix_seconds: UnixSeconds | None = None
    revoked_at_unix_seconds: UnixSeconds | None = None
    """Set: it opens nothing any more. A record that is gone is no revocation (docs/admission.md)."""

    def to_hash(self) -> dict[str, str]:
        """The fields of the Redis hash: text and numbers as they are, tiers joined by commas."""
        return {
            name: ",".join(value) if isinstance(value, tuple) else str(value)
            for name, value in self.model_dump(exclude_none=True).items()
        }

    @classmethod
    def from_hash(cls, fields: Mapping[bytes, bytes]) -> Self:
        """Parse what HGETALL returned.

        Raises:
            RecordError: as `from_json`; an empty hash (no such key) is malformed too.
        """
        if len(fields) > MAX_KEY_FIELDS:
            raise RecordError("too_large", f"{cls.kind}: {len(fields)} fields, at most {MAX_KEY_FIELDS}")
        cls.check_size(sum(len(name) + len(value) for name, value in fields.items()))
        try:
            values: dict[str, Any] = {name.decode(): value.decode() for name, value in fields.items()}
            if "tiers" in values:
                values["tiers"] = values["tiers"].split(",") if values["tiers"] else []
            return cls.check_version(cls.model_validate(values, strict=False))
        except ValidationError as error:
            raise RecordError("malformed", f"{cls.kind}: {describe_validation_error(error)}") from None
        except UnicodeDecodeError:
            raise RecordError("malformed", f"{cls.kind}: a field is not UTF-8") from None


MAX_AHEAD_MILLISECONDS = 10 * 365 * 86_400 * 1000
"""Sequences begin at a writer's Unix milliseconds. One of ten years ahead would shut every later one out."""


def is_of_no_clock(sequence: int, unix_seconds: float) -> bool:
    """Whether a sequence is so far ahead that nobody may go on from it."""
    return sequence > unix_seconds * 1000 + MAX_AHEAD_MILLISECONDS


def next_sequence(last: int | None, highest_seen: int | None, unix_milliseconds: int) -> int:
    """The sequence of a writer's next record: it grows over restarts and an emptied Redis (DESIGN §4).

    `last` is what this process wrote last (None at start), `highest_seen` the highest that it read of its
    own key. A start takes Unix milliseconds, or more where the key is already ahead of the clock.
    """
    floor = unix_milliseconds if last is None else last + 1
    return max(floor, 0 if highest_seen is None else highest_seen + 1)
