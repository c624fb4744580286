"""What routing reads of a request body, and what is wrong with one. Pure.

Rule: only types of the fields that routing needs are judged; everything else, and every value, is the
engine's business and reaches it byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from fleet.request import ANONYMOUS, ClassCutoffs, RequestFeatures, ServiceTier
from gateway import form
from gateway.api_paths import Api
from router.policy.output_length import OutputLengths

__all__ = [
    "LEARNT_APIS",
    "Api",
    "BadRequestError",
    "RequestBody",
    "features_of",
    "judge_body",
    "read_body",
    "read_form",
    "read_tier",
    "splice_token_ids",
]

DEFAULT_OUTPUT_TOKENS = 128
"""Expected of a request whose length nobody knows: the median of Azure's 2023 conversations (FACTS.md)."""
LEARNT_APIS = frozenset({Api.CHAT, Api.COMPLETION, Api.RESPONSES, Api.MESSAGES})
"""Whose answers are text, so that their lengths are learnt."""
BYTES_PER_TOKEN = 4
MAX_MODEL_NAME = 512


class BadRequestError(ValueError):
    """A body that no site should see; the text is for the client's developer."""

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, status: int = 400
    ) -> None:
        super().__init__(message)
        self.param = param
        self.code = code
        self.status = status


_TIERS: dict[str, ServiceTier] = {
    "auto": "default",
    "default": "default",
    "standard_only": "default",
    "scale": "default",
    "priority": "priority",
    "flex": "flex",
}


_LIMITS = {
    Api.CHAT: ("max_tokens", "max_completion_tokens"),
    Api.COMPLETION: ("max_tokens",),
    Api.RESPONSES: ("max_output_tokens",),
    Api.MESSAGES: ("max_tokens",),
}
"""What engines read as the limit of an answer: the last one given counts. Others are no limit there, and an
estimate that followed them would be the client's to choose."""
_OTHER_LIMITS = ("max_tokens",)


class RequestBody:
    """The fields that routing needs (a plain class with slots: one is made per request)."""

    __slots__ = (
        "api",
        "asks_token_ids",
        "choices",
        "fields",
        "include_usage",
        "max_tokens",
        "raw",
        "stream",
        "text_bytes",
    )

    def __init__(self, api: Api, raw: bytes, fields: dict[str, Any]) -> None:
        get = fields.get
        self.api = api
        self.raw = raw
        self.text_bytes = len(raw)
        """What the prompt's length is estimated from; of a form its text fields only."""
        self.fields: dict[str, Any] | None = fields
        """Parsed; dropped, as `raw` is, once it was read: a long prompt is kept once, by its request."""
        self.stream: bool = get("stream") is True
        self.max_tokens: int | None = None
        self.choices: int = (get("n") or 1) * _prompts(api, get("prompt"))
        self.asks_token_ids: bool = get("return_token_ids") is True
        options = get("stream_options")
        self.include_usage: bool = type(options) is dict and options.get("include_usage") is True


def _prompts(api: Api, prompt: Any) -> int:
    """How many a completion asks for: a list of texts, or of lists of ids."""
    is_several = api is Api.COMPLETION and type(prompt) is list and prompt and type(prompt[0]) is not int
    return len(prompt) if is_several else 1


def read_body(api: Api, raw: bytes) -> tuple[RequestBody, str]:
    """Parse and judge; returns the body and its model.

    Raises:
        BadRequestError: not JSON, not an object, or a field of the wrong type.
    """
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequestError(f"The body is not valid JSON: {error}.", code="invalid_json") from None
    if type(fields) is not dict:
        raise BadRequestError(
            f"The body must be a JSON object, not {_kind(fields)}.", code="invalid_request_body"
        )
    return judge_body(api, raw, fields)


def judge_body(api: Api, raw: bytes, fields: dict[str, Any]) -> tuple[RequestBody, str]:
    """The same of a body that is parsed.

    Raises:
        BadRequestError: a field of the wrong type.
    """
    model = fields.get("model")
    if type(model) is not str or not model or len(model) > MAX_MODEL_NAME:
        raise _wrong_model(model)
    stream = fields.get("stream")
    if stream is not None and type(stream) is not bool:
        raise _wrong("stream", "true or false", stream)
    if api is Api.CHAT or api is Api.MESSAGES:
        _check_messages(fields.get("messages"))
    if "n" in fields:
        _check_int(fields, "n", least=1)
    body = RequestBody(api, raw, fields)
    for name in _LIMITS.get(api, _OTHER_LIMITS):
        if name in fields and (value := _check_int(fields, name, least=0)) is not None:
            body.max_tokens = value
    options = fields.get("stream_options")
    if options is not None and type(options) is not dict:
        raise _wrong("stream_options", "an object", options)
    return body, model


def _check_messages(messages: Any) -> None:
    if type(messages) is not list:
        raise _wrong("messages", "a list of messages", messages)
    for message in messages:
        if type(message) is not dict:
            raise _wrong("messages", "a list of objects", message)


def read_form(content_type: bytes, raw: bytes) -> tuple[RequestBody, str]:
    """The same of a `multipart/form-data` body, whose files are not looked at.

    Raises:
        BadRequestError: no such form, or without a model; 415 where the content type is another.
    """
    if content_type.partition(b";")[0].strip().lower() != b"multipart/form-data":
        raise BadRequestError(
            "This path takes multipart/form-data.", code="unsupported_media_type", status=415
        )
    try:
        fields, text_bytes = form.read_fields(content_type, raw)
    except form.FormError as error:
        message = f"The body is not a valid multipart/form-data: {error}."
        raise BadRequestError(message, code="invalid_form") from None
    model = _model_of(fields)
    body = RequestBody(Api.FORM, raw, {"stream": fields.get("stream", "").lower() in _TRUE_FIELDS})
    body.text_bytes = text_bytes
    return body, model


_TRUE_FIELDS = ("true", "1", "on", "yes", "t", "y")
"""As pydantic, and so vLLM, reads a form's field."""


def _model_of(fields: Mapping[str, Any]) -> str:
    model = fields.get("model")
    if type(model) is not str or not model or len(model) > MAX_MODEL_NAME:
        raise _wrong_model(model)
    return model


def _wrong_model(model: Any) -> BadRequestError:
    return _wrong("model", "a string that names a model", model)


def read_tier(fields: dict[str, Any]) -> ServiceTier:
    """`service_tier` as routing knows it.

    Raises:
        BadRequestError: not one of OpenAI's tiers.
    """
    value = fields.get("service_tier")
    if value is None:
        return "default"
    tier = _TIERS.get(value) if type(value) is str else None
    if tier is None:
        raise _wrong("service_tier", "one of auto, default, flex, priority", value)
    return tier


def features_of(
    body: RequestBody,
    model: str,
    cutoffs: ClassCutoffs,
    *,
    affinity_key: str | None,
    deadline_seconds: float | None,
    tenant: str = ANONYMOUS,
    lengths: OutputLengths | None = None,
) -> RequestFeatures:
    """The features that decisions may look at; token counts are estimates. `lengths`: what was learnt.

    What it is promised is not known here (`router.policy.promises`).

    Raises:
        BadRequestError: an unknown service tier.
    """
    assert body.fields is not None
    prompt = body.fields.get("prompt") if body.api is Api.COMPLETION else None
    if type(prompt) is list and set(map(type, prompt)) == {int}:
        prompt_tokens = len(prompt)
    else:
        prompt_tokens = body.text_bytes // BYTES_PER_TOKEN
    output_tokens = DEFAULT_OUTPUT_TOKENS
    if lengths is not None and body.api in LEARNT_APIS:
        learnt = lengths.expect(model, tenant, body.max_tokens, prompt_tokens)
        if learnt is not None:
            output_tokens = round(learnt.mean_tokens) or 1
    if body.max_tokens is not None and body.max_tokens < output_tokens:
        output_tokens = body.max_tokens
    return RequestFeatures(  # by position: it is made for every request
        model,
        cutoffs.classify(prompt_tokens, output_tokens),
        prompt_tokens,
        output_tokens,
        body.stream,
        read_tier(body.fields) if "service_tier" in body.fields else "default",
        tenant,
        affinity_key,
        deadline_seconds,
    )


def splice_token_ids(raw: bytes) -> tuple[bytes | memoryview, bytes]:
    """The same object with `"return_token_ids": true` at its end: of two equal names the last one counts.

    In two pieces, to be sent one after the other: a long prompt is not copied.
    """
    end = raw.rindex(b"}")
    return (raw[:end] if end <= MAX_COPIED_BYTES else memoryview(raw)[:end]), _TOKEN_IDS_TAIL


MAX_COPIED_BYTES = 4096
"""A slice of so much is made faster than a view."""
_TOKEN_IDS_TAIL = b',"return_token_ids":true}'


def _check_int(fields: dict[str, Any], name: str, *, least: int) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if type(value) is not int or value < least:
        raise _wrong(name, f"a whole number of at least {least}", value)
    return value


def _wrong(name: str, wanted: str, value: object) -> BadRequestError:
    if value is None:
        return BadRequestError(f"'{name}' is missing: it must be {wanted}.", param=name, code="missing_field")
    return BadRequestError(
        f"'{name}' must be {wanted}, not {_kind(value)}.", param=name, code="invalid_field"
    )


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the string {value[:40]!r}" if value else "an empty string"
    return "a list" if isinstance(value, list) else "an object"
