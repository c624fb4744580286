"""What all records share: the scalar types with their bounds, the errors, parsing and writing. Pure.

Rule: parsing hostile bytes raises RecordError and nothing else, and takes bounded time and memory.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, ValidationError

from fleet.keys import FLEET_NAME

SCHEMA_VERSION = "1.0"
"""`major.minor`. Readers take any minor of a major they know."""

SUPPORTED_MAJOR = 1
MAX_RECORD_BYTES = 256 << 10
"""A thousand instances fit; anything larger is refused before it is parsed."""
MAX_PLAN_BYTES = 1 << 20
"""500 sites × 9 classes × 5 models fit."""
MAX_KEY_FIELDS = 64
"""Of an API key's hash."""
MAX_SEQUENCE = (1 << 53) - 1
"""Sequences stay exact in every JSON implementation."""
MAX_LIST = 4096
MAX_MESSAGE_CHARACTERS = 400
"""Of an error's text: part of it is the hostile writer's own."""

Name = Annotated[str, Field(pattern=f"^{FLEET_NAME.pattern}$")]
WriterId = Annotated[str, Field(min_length=1, max_length=128)]
Text = Annotated[str, Field(max_length=512)]
Watts = Annotated[float, Field(ge=0, le=1e12)]
Joules = Annotated[float, Field(ge=0, le=1e15)]
Seconds = Annotated[float, Field(ge=0, le=1e9)]
UnixSeconds = Annotated[float, Field(ge=0, le=1e11)]
Ratio = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
PerSecond = Annotated[float, Field(ge=0, le=1e9)]
Signature = Annotated[str, Field(max_length=4096)]
Writer = Literal["power_feed", "site", "router", "operator"]
"""Who writes a kind of record, and so whose key signs it (`fleet.signing`)."""
RefusedAs = Literal[
    "too_large", "malformed", "schema_version", "unsigned", "signature", "signed_before", "signed_ahead"
]
"""The last four: not signed; not by who may; too long ago, or before the one in use; by a clock ahead."""

T = TypeVar("T")
_EMPTY_WHERE_NULL = BeforeValidator(lambda value: () if value is None else value)
Items = Annotated[tuple[T, ...], FailFast(), Field(max_length=MAX_LIST, strict=False), _EMPTY_WHERE_NULL]
"""A bounded list; `null` is an empty one, as some languages write it."""
Table = Annotated[dict[str, T], FailFast(), BeforeValidator(lambda value: {} if value is None else value)]
"""An object used as a map, bounded by the record's size; `null` is an empty one."""

SchemaVersion = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    Field(pattern=r"^[0-9]{1,4}(\.[0-9]{1,4})?$"),
]
"""`major.minor`; a bare major, also as a number, is taken from foreign writers."""


class RecordError(ValueError):
    """A record that may not be used. `reason` is a short label for a metric, the text is for a person."""

    def __init__(self, reason: RefusedAs, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class WirePart(BaseModel):
    """Base of every object on the wire: frozen, strict, unknown fields ignored, no NaN or Infinity."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class Document(WirePart):
    """What is stored under a key: JSON with a version."""

    kind: ClassVar[str]
    written_by: ClassVar[Writer]
    max_bytes: ClassVar[int] = MAX_RECORD_BYTES

    schema_version: SchemaVersion = SCHEMA_VERSION
    signature: Signature | None = None
    """`fleet.signing` makes and judges it."""

    def to_json(self) -> bytes:
        """UTF-8 JSON as it goes on the wire."""
        return self.model_dump_json().encode()

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Parse and check.

        Raises:
            RecordError: too large, not this record, or of a newer major version.
        """
        cls.check_size(len(raw))
        try:
            return cls.check_version(cls.model_validate_json(raw))
        except ValidationError as error:
            if (version := _version_of(raw)) is not None:
                _check_major(cls.kind, version)
            raise RecordError("malformed", f"{cls.kind}: {describe_validation_error(error)}") from None

    @classmethod
    def check_size(cls, size: int) -> None:
        """Raise RecordError where the record has too many bytes."""
        if size > cls.max_bytes:
            raise RecordError("too_large", f"{cls.kind}: {size} bytes, at most {cls.max_bytes}")

    @classmethod
    def check_version(cls, document: Self) -> Self:
        """`document`, if it states a version that this reader knows; else raises RecordError."""
        if "schema_version" not in document.model_fields_set:
            raise RecordError("malformed", f"{cls.kind}: schema_version: Field required")
        _check_major(cls.kind, document.schema_version)
        return document


class _VersionOnly(WirePart):
    schema_version: SchemaVersion


def _version_of(raw: bytes) -> str | None:
    """The version that a record states which otherwise cannot be read; None where it states none."""
    try:
        return _VersionOnly.model_validate_json(raw).schema_version
    except ValidationError:
        return None


def _check_major(kind: str, version: str) -> None:
    if int(version.partition(".")[0]) != SUPPORTED_MAJOR:
        raise RecordError(
            "schema_version",
            f"{kind}: schema_version {version}; this reader knows {SUPPORTED_MAJOR}.x: upgrade it, "
            f"or let the writer write {SUPPORTED_MAJOR}.x",
        )


class Record(Document):
    """What every record carries."""

    writer_field: ClassVar[str]

    sequence: Annotated[int, Field(ge=0, le=MAX_SEQUENCE)]

    @property
    def writer_id(self) -> str:
        """The random id of the process that wrote it."""
        return str(getattr(self, self.writer_field))


def describe_validation_error(error: ValidationError) -> str:
    """The first fault of a pydantic error as `field.path: what is wrong (and how many more)`."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    first = faults[0]
    where = ".".join(str(part) for part in first["loc"]) or "record"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{where[: MAX_MESSAGE_CHARACTERS // 2]}: {first['msg'][: MAX_MESSAGE_CHARACTERS // 2]}{more}"
