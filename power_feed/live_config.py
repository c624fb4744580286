"""`source = { kind = "modbus" | "opcua" | "mqtt" | "http", … }`: where a live source is and what it says.

docs/power_feed.md has a tried example of each. Rule: unit and time zone are said, never guessed; secrets lie
in files. A relative `…_file` is relative to the configuration file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, field_validator, model_validator

from fleet.config import ConfigModel, with_host
from power_feed.sources.http_presets import HTTP_PRESETS
from power_feed.sources.instants import TimeFormat
from power_feed.sources.interface import Measures
from power_feed.sources.signals import CurtailedIf, Unit

Text = Annotated[str, Field(min_length=1, max_length=1024)]
Expression = Annotated[str, Field(min_length=1, max_length=2048)]
Topic = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[^+#\x00]+$")]
"""One topic: wildcards would mix several signals into one."""
RegisterTable = Literal["holding", "input"]
RegisterType = Literal["int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
Order = Literal["big", "little"]


class Curtailment(ConfigModel):
    """What tells that the farm is held below what the wind gives; each protocol adds where it is read."""

    curtailed_if: CurtailedIf = "not_zero"
    threshold: float | None = None
    """For `below` and `above`: a set-point of 100 % means free, so `below` with 99.5."""

    @model_validator(mode="after")
    def _threshold_fits(self) -> Self:
        if (self.curtailed_if in ("below", "above")) != (self.threshold is not None):
            raise ValueError('threshold belongs to curtailed_if = "below" or "above", and only there')
        return self


STALE_PERIODS = 3.0
"""Without a new measurement for so many, readings fall back."""


class LiveSourceConfig(ConfigModel):
    """What every live source has."""

    period_seconds: Annotated[float, Field(ge=0.1, le=86_400)] = 1.0
    """Between two measurements; three of them without one, and readings fall back."""
    timeout_seconds: Annotated[float, Field(gt=0, le=120)] = 3.0
    """For connecting and for each answer."""
    max_retry_seconds: Annotated[float, Field(gt=0, le=3600)] = 10.0
    """Longest pause before connecting again; the first is half a second."""
    silent_seconds: Annotated[float, Field(gt=0, le=604_800)] | None = None
    """A connection on which nothing comes for so long is made anew; None: three periods, at least 10 s."""
    unit: Unit
    """Of the value: W, kW, MW, GW, or a share of nameplate as per_unit or percent."""
    scale: Annotated[float, Field(ge=-1e12, le=1e12)] = 1.0
    offset: Annotated[float, Field(ge=-1e12, le=1e12)] = 0.0
    """(value × scale + offset) is in `unit`."""
    capacity: Annotated[float, Field(gt=0, le=1e12)] | None = None
    """In `unit`, where the value is of more than the farm (a region): the farm gets its share of it."""
    measures: Measures = "available"
    curtailable: bool = True
    """False: this farm is never curtailed, so that what it produces is what the wind gives."""

    def _asked_seconds(self) -> float | None:
        """Between two questions; None: it is told, and asks nothing."""
        return self.period_seconds

    @model_validator(mode="after")
    def _is_not_silent_between_two_questions(self) -> Self:
        silent_seconds, asked_seconds = self.silent_seconds, self._asked_seconds()
        if silent_seconds is not None and asked_seconds is not None and silent_seconds <= asked_seconds:
            raise ValueError(
                f"silent_seconds = {silent_seconds:g} is no longer than the {asked_seconds:g} s between two "
                "questions, so the connection would be made anew before each answer: lengthen it, or leave "
                "it out (three periods, at least 10 s)"
            )
        return self

    def _has_curtailment(self) -> bool:
        return getattr(self, "curtailment", None) is not None

    @model_validator(mode="after")
    def _produced_needs_a_signal(self) -> Self:
        if self.scale == 0:
            raise ValueError("scale = 0 would make every value the same")
        if self.measures == "produced" and self.curtailable and not self._has_curtailment():
            raise ValueError(
                'measures = "produced" is refused without a curtailment table: a curtailed farm produces '
                "less than the wind could give, and a site that follows it starves. Read the farm's "
                "available power instead, give a curtailment signal, or say curtailable = false for a farm "
                "that never is"
            )
        if self.measures == "available" and self._has_curtailment():
            raise ValueError('a curtailment table belongs to measures = "produced"')
        return self


class Register(ConfigModel):
    """One number in a Modbus device."""

    address: Annotated[int, Field(ge=0, le=65_535)]
    """As on the wire, from 0: what a manual calls 40001 is 0, or 30101 is 100 of the input table."""
    table: RegisterTable = "holding"
    type: RegisterType = "float32"
    word_order: Order = "big"
    """Which register of a number of several comes first: the high one (big) or the low one."""
    byte_order: Order = "big"
    """Inside a register; the standard says big."""

    @model_validator(mode="after")
    def _fits_the_table(self) -> Self:
        if self.address + REGISTERS[self.type] > 65_536:
            raise ValueError(f"a {self.type} at {self.address} reaches beyond the last register")
        return self


REGISTERS: Mapping[RegisterType, int] = {
    "int16": 1,
    "uint16": 1,
    "int32": 2,
    "uint32": 2,
    "float32": 2,
    "int64": 4,
    "uint64": 4,
    "float64": 4,
}
"""How many registers a number takes."""


class CurtailmentRegister(Curtailment, Register):
    """A curtailment signal in a register."""

    type: RegisterType = "uint16"


class ModbusSource(LiveSourceConfig):
    """Modbus TCP."""

    kind: Literal["modbus"]
    host: Text
    port: Annotated[int, Field(ge=1, le=65_535)] = 502
    unit_id: Annotated[int, Field(ge=0, le=255)] = 1
    """The device behind the address, also called slave or device id."""
    power: Register
    exponent_address: Annotated[int, Field(ge=0, le=65_535)] | None = None
    """An int16 beside it in the same table: the value counts × 10^it (SunSpec's scale factor)."""
    missing_value: Annotated[int, Field(ge=-(2**63), le=2**64 - 1)] | None = None
    """What an integer register holds when there is nothing (SunSpec: -32768 for int16, 65535 for uint16)."""
    curtailment: CurtailmentRegister | None = None


class OpcUaSecurity(ConfigModel):
    """A signed and encrypted channel."""

    policy: Literal["Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"] = "Basic256Sha256"
    mode: Literal["Sign", "SignAndEncrypt"] = "SignAndEncrypt"
    certificate_file: Path
    """The feed's own, DER or PEM, known to the server."""
    private_key_file: Path
    server_certificate_file: Path
    """The server's: another server is not talked to."""
    application_uri: Text = "urn:heron:power-feed"
    """As in the certificate's subject alternative name; many servers compare."""


class CurtailmentNode(Curtailment):
    """A curtailment signal in a node."""

    node: Text


class OpcUaSource(LiveSourceConfig):
    """OPC UA: subscribed, and read once a period so that standing still and being gone can be told apart."""

    kind: Literal["opcua"]
    url: Annotated[str, Field(pattern=r"^opc\.tcp://[^/@\s]+(/\S*)?$", max_length=1024)]
    node: Text
    """For example `ns=2;s=Farm.AvailablePower`."""
    timestamp: Literal["arrival", "source"] = "arrival"
    """`source`: a value is as old as the server's SourceTimestamp says; only for servers that stamp each
    sample, not each change."""
    username: Text | None = None
    password_file: Path | None = None
    security: OpcUaSecurity | None = None
    curtailment: CurtailmentNode | None = None

    @model_validator(mode="after")
    def _password_has_a_user(self) -> Self:
        if self.password_file is not None and self.username is None:
            raise ValueError("password_file without username")
        return self


class JsonTime(LiveSourceConfig):
    """Where a JSON document has its time stamp."""

    time_path: Expression | None = None
    """JMESPath of the value's own time; None: it is of the moment it came."""
    time_format: TimeFormat = "iso8601"
    time_zone: Annotated[str, Field(max_length=64)] | None = None
    """IANA name, for times without an offset; they are refused without it."""
    time_shift_seconds: Annotated[float, Field(ge=-86_400, le=86_400)] = 0.0
    """Added to the time: the length of the interval, where a mean is stamped with its begin."""

    @field_validator("time_zone")
    @classmethod
    def _zone_exists(cls, name: str | None) -> str | None:
        try:
            _ = None if name is None else ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            raise ValueError(
                f"{name!r} is no time zone of this machine: 'UTC', 'Europe/Copenhagen', … (package tzdata)"
            ) from None
        return name


class CurtailmentTopic(Curtailment):
    """A curtailment signal in a topic."""

    topic: Topic
    json_path: Expression = "@"


class MqttTls(ConfigModel):
    """TLS towards the broker."""

    ca_file: Path | None = None
    """Who signed the broker's certificate; None: the system's authorities."""
    certificate_file: Path | None = None
    private_key_file: Path | None = None
    """The feed's own, where the broker asks for one."""

    @model_validator(mode="after")
    def _key_and_certificate(self) -> Self:
        if (self.certificate_file is None) != (self.private_key_file is None):
            raise ValueError("certificate_file and private_key_file belong together")
        return self


class MqttSource(JsonTime):
    """MQTT 3.1.1."""

    kind: Literal["mqtt"]
    host: Text
    port: Annotated[int, Field(ge=1, le=65_535)] = 1883
    topic: Topic
    json_path: Expression = "@"
    """JMESPath of the number in the payload; `@`: the payload is the number."""
    qos: Literal[0, 1] = 0
    username: Text | None = None
    password_file: Path | None = None
    tls: MqttTls | None = None
    client_id: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """None: a random one; two clients with one id throw each other out."""
    curtailment: CurtailmentTopic | None = None

    def _asked_seconds(self) -> float | None:
        return None

    @model_validator(mode="after")
    def _password_has_a_user(self) -> Self:
        if self.password_file is not None and self.username is None:
            raise ValueError("password_file without username")
        return self


class CurtailmentPath(Curtailment):
    """A curtailment signal in the same document."""

    json_path: Expression


class HttpSource(JsonTime):
    """HTTP: a JSON document, asked for again and again."""

    kind: Literal["http"]
    preset: Literal["elia", "energinet", "elexon"] | None = None
    """Settings for an open API (docs/power_feed.md); keys given here go before them."""
    url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$", max_length=4096), AfterValidator(with_host)]
    json_path: Expression
    """JMESPath of the number."""
    poll_seconds: Annotated[float, Field(ge=0.1, le=86_400)] | None = None
    """Between two requests; None: `period_seconds`. Shorter finds a slow source's next value sooner."""
    headers: dict[str, str] = Field(default_factory=dict, max_length=32)
    bearer_token_file: Path | None = None
    ca_file: Path | None = None
    """Who signed the server's certificate; None: the system's authorities."""
    max_retry_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    timeout_seconds: Annotated[float, Field(gt=0, le=120)] = 10.0
    curtailment: CurtailmentPath | None = None

    def _asked_seconds(self) -> float | None:
        return self.poll_seconds or self.period_seconds

    @model_validator(mode="after")
    def _is_asked_before_it_is_stale(self) -> Self:
        most_seconds = STALE_PERIODS * self.period_seconds
        if self.poll_seconds is not None and self.poll_seconds > most_seconds:
            raise ValueError(
                f"poll_seconds = {self.poll_seconds:g} is longer than three periods ({most_seconds:g} s), "
                "after which a measurement is stale: shorten it, or give the period_seconds in which the "
                "source has a new value"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or not isinstance(values.get("preset"), str):
            return values
        return {**HTTP_PRESETS.get(values["preset"], {}), **values}
