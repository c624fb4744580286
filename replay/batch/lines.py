"""The input: OpenAI's Batch format, one request a line. Pure, and any bytes are either a request or a
BadLineError that a person can act on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import orjson

from gateway.api_paths import PUBLIC_PATHS, Api

Tier = Literal["flex", "default"]
MAX_LINE_BYTES = 64 << 20
"""A router takes 16 MiB by default; as many lines as are in flight are in memory."""
MAX_ID_CHARACTERS = 512
AUDIO_PATH = "/v1/audio/speech"
BATCH_PATHS = frozenset(
    path for path, rule in PUBLIC_PATHS.items() if rule.api is not Api.FORM and path != AUDIO_PATH
)
"""What has a JSON object as its request and as its answer."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SHOWN = 80
"""Characters of a wrong value in a message."""


class BadLineError(ValueError):
    """A line that is no request; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """One line."""

    custom_id: str
    url: str
    body: dict[str, Any]

    @property
    def names_tier(self) -> bool:
        """Whether the line itself says in which tier it runs."""
        return self.body.get("service_tier") is not None

    def payload(self, tier: Tier) -> bytes:
        """The body to send."""
        return orjson.dumps(self.body if self.names_tier else {**self.body, "service_tier": tier})


def numbered_lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Line number, from 1, and line of all that are not blank; of one that is too long, its beginning only,
    which is longer than MAX_LINE_BYTES."""
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        rest = line
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE_BYTES + 1)
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line.isspace() and line:
            yield number, line


def read_line(line: bytes) -> BatchRequest:
    """The request of one line.

    Raises:
        BadLineError: what is wrong with it.
    """
    if len(line) > MAX_LINE_BYTES:
        raise BadLineError(f"longer than {MAX_LINE_BYTES >> 20} MiB")
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise BadLineError(f"not JSON: {error.msg}, column {error.colno}") from None
    if not isinstance(value, dict):
        raise BadLineError("not a JSON object with custom_id, method, url and body")
    custom_id = value.get("custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_ID_CHARACTERS:
        raise BadLineError(_wrong(value, "custom_id", f"a text of 1 to {MAX_ID_CHARACTERS} characters"))
    if value.get("method") != "POST":
        raise BadLineError(_wrong(value, "method", '"POST"'))
    url, body = value.get("url"), value.get("body")
    if not isinstance(url, str) or url not in BATCH_PATHS:
        raise BadLineError(_wrong(value, "url", _wanted_url(url)))
    if not isinstance(body, dict):
        raise BadLineError(_wrong(value, "body", "an object"))
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise BadLineError(_wrong(body, "model", "the name of a model", within="body."))
    for name in ("stream", "background"):
        if body.get(name) not in (None, False):
            raise BadLineError(f"body.{name} must be false or left out: an answer is one line")
    return BatchRequest(custom_id=custom_id, url=url, body=body)


def _wanted_url(url: object) -> str:
    if url == AUDIO_PATH or (isinstance(url, str) and url in PUBLIC_PATHS):
        return "a path with JSON both ways; audio and files cannot be in a line"
    return "a path that a router serves with JSON, such as /v1/chat/completions, /v1/embeddings"


def _wrong(value: dict[str, Any], name: str, wanted: str, within: str = "") -> str:
    if name not in value:
        return f"{within}{name} is missing: it must be {wanted}"
    shown = repr(value[name])
    if len(shown) > _SHOWN:
        shown = f"{shown[:_SHOWN]}…"
    return f"{within}{name} is {shown}: it must be {wanted}"
