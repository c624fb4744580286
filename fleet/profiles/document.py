"""The file that `heron profile run` writes and a site's configuration names: its form and its reader. Pure.

Rule: a file comes from outside. It is bounded, every value has a range, and a fault names file, place, value
and what is allowed. None is unknown, never zero.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

DOCUMENT_VERSION = 1
MAX_DOCUMENT_BYTES = 4 << 20
"""A row is some 500 bytes; 2,000 of them are allowed."""
MAX_ROWS = 2000
MAX_FAULTS = 5
"""Told of one file; the rest are counted."""
MAX_VALUE_CHARACTERS = 80
HOW_TO_MEASURE = "a file that `heron profile run --out FILE.json` wrote is needed"

Count = Annotated[int, Field(ge=1, le=1 << 16)]
Tokens = Annotated[int, Field(ge=1, le=1 << 30)]
Clock = Annotated[int, Field(ge=100, le=20_000)]
Watts = Annotated[float, Field(ge=0, le=1e6)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Name = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""Shown on terminals: without control characters."""


class ProfileDocumentError(ValueError):
    """What is wrong with a profile file, and what to do; one line a fault."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class Row(_Part):
    """What was measured at a point: running requests × prompt tokens × clock. None: unknown, never zero."""

    running_requests: Count
    prompt_tokens: Tokens
    clock_mhz: Clock | None
    """None: as it was, nobody set it."""
    seconds: Annotated[float, Field(gt=0, le=86_400)]
    """Of the window in which everything below was taken."""
    requests: Annotated[int, Field(ge=0, le=1 << 40)]
    failed_requests: Annotated[int, Field(ge=0, le=1 << 40)]
    output_tokens_per_second: Annotated[float, Field(gt=0, le=1e9)]
    itl_seconds_p50: Seconds | None
    itl_seconds_p99: Seconds | None
    ttft_seconds_p50: Seconds | None
    watts: Watts | None
    """Mean of all the instance's GPUs over the window, by their energy counters."""
    joules_per_output_token: Annotated[float, Field(ge=0, le=1e9)] | None
    counted_prompt_tokens: Annotated[float, Field(gt=0, le=1 << 30)] | None
    """Mean, as the server counted them."""
    mean_clock_mhz: Annotated[float, Field(ge=0, le=20_000)] | None = None
    """What the slowest of the GPUs ran at in the window, by its own word."""
    source: Name = "measured"


class EngineFacts(_Part):
    """What the engine and its GPUs said of themselves, and what they draw empty."""

    tensor_parallel_degree: Annotated[int, Field(ge=1, le=64)] | None = None
    gpu_model: Name | None = None
    full_clock_mhz: Clock | None = None
    """The highest that the GPUs can be locked at: what they run at when nobody locks them."""
    kv_tokens: Tokens | None = None
    max_model_len: Tokens | None = None
    idle_watts: Watts | None = None
    """All the instance's GPUs with the engine awake and empty."""
    power_limit_watts: Watts | None = None
    """All the instance's GPUs together, by the limit that they keep."""
    max_batched_tokens: Tokens | None = None
    """Prompt tokens that the engine takes into a step, as it was told (`--max-num-batched-tokens`)."""


class Settings(_Part):
    """Of the sweep; further keys only keep rows of different sweeps apart."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)
    model: Name
    output_tokens: Tokens


class ProfileDocument(_Part):
    """The whole file."""

    heron_profile_version: int
    settings: Settings
    provenance: dict[str, Any]
    """Who measured what on what, and when it began."""
    engine: EngineFacts = EngineFacts()
    rows: Annotated[tuple[Row, ...], Field(max_length=MAX_ROWS)]

    @property
    def digest(self) -> str:
        """Of what was measured: the same for the same rows, whatever the file is called."""
        engine = self.engine.model_dump()
        for added in ("power_limit_watts", "max_batched_tokens"):
            if engine[added] is None:
                del engine[added]  # older files keep their id
        text = json.dumps([engine, [row.model_dump() for row in self.rows]])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def parse_document(data: bytes, name: str) -> ProfileDocument:
    """The document in a file's bytes; `name` is the file's, for messages.

    Raises:
        ProfileDocumentError: no JSON, another file, or a value that cannot be.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ProfileDocumentError(f"{name}: is no JSON ({_short(error)}): {HOW_TO_MEASURE}") from None
    if not isinstance(value, dict) or "heron_profile_version" not in value:
        raise ProfileDocumentError(f"{name}: has no heron_profile_version: {HOW_TO_MEASURE}")
    version = value["heron_profile_version"]
    if version != DOCUMENT_VERSION:
        raise ProfileDocumentError(
            f"{name}: heron_profile_version = {_short(version)}: this heron reads {DOCUMENT_VERSION}; "
            "measure again, or use the heron that wrote it"
        )
    rows = value.get("rows")
    if isinstance(rows, list):
        if len(rows) > MAX_ROWS:
            raise ProfileDocumentError(f"{name}: {len(rows)} rows, at most {MAX_ROWS} are read")
        value["rows"] = tuple(rows)
    try:
        return ProfileDocument.model_validate(value)
    except ValidationError as error:
        raise ProfileDocumentError(_told(error, name)) from None


def _told(error: ValidationError, name: str) -> str:
    faults = error.errors(include_url=False)
    lines = [
        f"{name}: {_place(fault['loc'])}{_value(fault)}: {fault['msg']}" for fault in faults[:MAX_FAULTS]
    ]
    if len(faults) > MAX_FAULTS:
        lines.append(f"{name}: and {len(faults) - MAX_FAULTS} faults more")
    return "\n".join(lines)


def _place(location: tuple[int | str, ...]) -> str:
    """`row 3, watts`: rows are counted from 1."""
    parts = list(location)
    if len(parts) > 1 and parts[0] == "rows":
        return ", ".join([f"row {int(parts[1]) + 1}", *map(str, parts[2:])])
    return ".".join(map(str, parts)) or "the file"


def _value(fault: Any) -> str:
    return "" if fault["type"] in ("missing", "extra_forbidden") else f" = {_short(fault['input'])}"


def _short(value: object) -> str:
    text = str(value) if isinstance(value, Exception) else reprlib.repr(value)
    return text if len(text) <= MAX_VALUE_CHARACTERS else text[:MAX_VALUE_CHARACTERS] + "…"
