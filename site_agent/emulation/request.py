"""What a request to an emulated engine asks for: vLLM's fields, checked, with vLLM's errors. Pure.

What the emulation cannot do (several choices, logprobs, tools that must be called, structured output, images)
is refused with a 400 that says so. Sampling parameters are taken and change nothing: tokens are a hash.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from site_agent.emulation.tokens import ID_LIMIT, content_text, tokenize, tokenize_chat

Kind = Literal["chat", "completion", "messages", "responses"]

DEFAULT_COMPLETION_TOKENS = 16
MAX_STOPS = 64
MAX_STOP_CHARACTERS = 1024
MAX_MESSAGES = 10_000
MAX_CHARACTERS_PER_TOKEN = 64
"""A prompt's words may be this long on average."""


class RequestError(Exception):
    """A request that is refused, as vLLM says it."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        status: int = 400,
        type: str = "BadRequestError",  # noqa: A002
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.status = status
        self.type = type

    def body(self) -> bytes:
        """`{"error": {"message", "type", "param", "code"}}`; the code is the status, as a number."""
        return orjson.dumps({"error": self.error()})

    def error(self) -> dict[str, Any]:
        """The inner object."""
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.status}


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """A chat or completion request, ready to run."""

    kind: Kind
    prompt_ids: tuple[int, ...]
    max_tokens: int
    """What is generated at most; the model's length is allowed for."""
    min_tokens: int = 0
    """Stop strings and ids count only after so many tokens."""
    stop: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()
    include_stop: bool = False
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    return_token_ids: bool = False
    role: str = "assistant"
    asked_tokens: int | None = None
    """`max_output_tokens` as it was asked, which an answer of the Responses API repeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLimits:
    """What the checks need to know of the model."""

    model: str
    max_model_len: int

    def check_characters(self, characters: int) -> None:
        """Refuse a text that is so long that splitting it would hold up the engines.

        Raises:
            RequestError: it cannot fit, whatever its words are.
        """
        most = self.max_model_len * MAX_CHARACTERS_PER_TOKEN
        if characters > most:
            raise RequestError(
                f"This model's maximum context length is {self.max_model_len} tokens. However, your prompt "
                f"contains {characters} characters (more than {most} characters, the upper bound for "
                f"{self.max_model_len} input tokens). Please reduce the length of the input prompt.",
                param="input_text",
            )


def parse_body(body: bytes) -> dict[str, Any]:
    """The JSON object of a body.

    Raises:
        RequestError: not JSON, or not an object.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(
            f"1 validation error:\n  JSON decode error: {error}", param="body", type="Bad Request"
        ) from None
    if not isinstance(value, dict):
        raise RequestError(
            "1 validation error:\n  The body must be a JSON object", param="body", type="Bad Request"
        )
    return value


def parse_generation(
    kind: Kind,
    body: bytes,
    limits: ModelLimits,
    as_chat: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> GenerationRequest:
    """Read and check a request; `as_chat` turns another API's into a chat's.

    Raises:
        RequestError: with vLLM's status (400, 404) and shape.
    """
    fields = parse_body(body)
    check_model(fields, limits)
    if as_chat is not None:
        fields = as_chat(fields)
    _refuse_unsupported(fields)
    prompt_ids = _prompt_ids(fields, limits) if kind == "completion" else chat_ids(fields, limits)
    stream = _flag(fields, "stream")
    include_usage, continuous_usage = _stream_options(fields, is_stream=stream)
    role = "assistant"
    if kind == "chat" and fields.get("add_generation_prompt") is False:
        role = str(fields["messages"][-1].get("role"))
    return GenerationRequest(
        kind=kind,
        prompt_ids=tuple(prompt_ids),
        max_tokens=_max_tokens(kind, fields, len(prompt_ids), limits.max_model_len),
        min_tokens=_integer(fields, "min_tokens", least=0) or 0,
        stop=_stop(fields.get("stop")),
        stop_ids=_stop_ids(fields.get("stop_token_ids")),
        include_stop=_flag(fields, "include_stop_str_in_output"),
        stream=stream,
        include_usage=include_usage,
        continuous_usage=continuous_usage,
        return_token_ids=_flag(fields, "return_token_ids"),
        role=role,
        asked_tokens=_integer(fields, "max_tokens", least=1),
    )


def check_model(fields: dict[str, Any], limits: ModelLimits) -> None:
    """A request may leave the model out, not name another one."""
    model = fields.get("model")
    if model is None or model == limits.model:
        return
    if not isinstance(model, str):
        raise invalid("model", "must be a string")
    raise RequestError(
        f"The model `{model}` does not exist.", param="model", status=404, type="NotFoundError"
    )


def _refuse_unsupported(fields: dict[str, Any]) -> None:
    """The cases that an answer of hashed words would be wrong for."""
    for name in ("n", "best_of"):
        if fields.get(name) not in (None, 1):
            raise RequestError(f"{name} must be 1: the emulated engine gives one choice.", param=name)
    if fields.get("echo"):
        raise RequestError("echo is not emulated.", param="echo")
    logprobs = fields.get("logprobs")
    if logprobs is not None and logprobs is not False:
        raise RequestError("logprobs are not emulated.", param="logprobs")
    if fields.get("suffix") or fields.get("use_beam_search"):
        raise RequestError("suffix and use_beam_search are not emulated.", param="suffix")
    response_format = fields.get("response_format")
    if isinstance(response_format, dict) and response_format.get("type") not in (None, "text"):
        raise RequestError("response_format other than text is not emulated.", param="response_format")
    if fields.get("structured_outputs"):
        raise RequestError("structured_outputs is not emulated.", param="structured_outputs")
    if fields.get("tool_choice") not in (None, "none", "auto"):
        raise RequestError(
            "tool_choice must be none or auto: the emulated model calls no tool.", param="tool_choice"
        )


def chat_ids(fields: dict[str, Any], limits: ModelLimits) -> list[int]:
    """The ids of a request's `messages`.

    Raises:
        RequestError: missing, of the wrong shape, or too long.
    """
    messages, continue_final, add_generation = _chat_fields(fields)
    try:
        limits.check_characters(sum(len(content_text(message.get("content"))) for message in messages))
        return tokenize_chat(
            messages, add_generation_prompt=add_generation, continue_final_message=continue_final
        )
    except ValueError as error:
        raise RequestError(str(error), param="messages") from None


def _chat_fields(fields: dict[str, Any]) -> tuple[list[dict[str, Any]], bool, bool]:
    """`messages`, `continue_final_message`, `add_generation_prompt`, checked."""
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages or len(messages) > MAX_MESSAGES:
        raise invalid("messages", f"must be a list of 1 to {MAX_MESSAGES} messages")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise invalid("messages", "each message must be an object with a role")
    continue_final = _flag(fields, "continue_final_message")
    if continue_final and _flag(fields, "add_generation_prompt"):
        raise RequestError(
            "Cannot set both `continue_final_message` and `add_generation_prompt` to True.",
            param="continue_final_message",
        )
    return messages, continue_final, fields.get("add_generation_prompt") is not False


def _prompt_ids(fields: dict[str, Any], limits: ModelLimits) -> list[int]:
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], (str, list)):
        prompt = prompt[0]
    if isinstance(prompt, str):
        limits.check_characters(len(prompt))
        ids = tokenize(prompt)
    elif isinstance(prompt, list):
        ids = token_ids(prompt, "prompt")
    else:
        raise invalid("prompt", "must be a string or a list of token ids")
    if not ids:
        raise RequestError("The prompt cannot be empty.", param="prompt")
    return ids


def token_ids(values: list[Any], param: str) -> list[int]:
    """A list of ids as it came in JSON.

    Raises:
        RequestError: more than one prompt, or an element that is no id of the vocabulary.
    """
    kinds = set(map(type, values))
    if str in kinds or list in kinds:
        raise RequestError("Only one prompt per request is emulated.", param=param)
    if kinds - {int}:
        raise invalid(param, "must be a string or a list of token ids")
    if values and not (min(values) >= 0 and max(values) < ID_LIMIT):
        wrong = next(value for value in values if not 0 <= value < ID_LIMIT)
        raise RequestError(f"Token id {wrong} is out of vocabulary", param=param)
    return values


def _max_tokens(kind: Kind, fields: dict[str, Any], prompt_tokens: int, max_model_len: int) -> int:
    name = "max_tokens"
    if kind == "chat" and fields.get("max_completion_tokens") is not None:
        name = "max_completion_tokens"
    asked = _integer(fields, name, least=1)
    if asked is None and kind == "completion":
        asked = DEFAULT_COMPLETION_TOKENS
    if asked is not None and asked > max_model_len:
        raise RequestError(
            f"{name}={asked} cannot be greater than max_model_len={max_model_len}. "
            "Please request fewer output tokens.",
            param=name,
        )
    if prompt_tokens > max_model_len:
        raise RequestError(
            f"This model's maximum context length is {max_model_len} tokens. However, your prompt "
            f"contains {prompt_tokens} input tokens, which exceeds this limit even without any output "
            "tokens. Please reduce the length of the input prompt.",
            param="input_tokens",
        )
    room = max_model_len - prompt_tokens
    if room < 1:
        raise RequestError("max_tokens must be at least 1, got 0.", param="max_tokens")
    return room if asked is None else min(asked, room)


def _stream_options(fields: dict[str, Any], *, is_stream: bool) -> tuple[bool, bool]:
    options = fields.get("stream_options")
    if options is None:
        return False, False
    if not isinstance(options, dict):
        raise invalid("stream_options", "must be an object")
    if options and not is_stream:
        raise RequestError("Stream options can only be defined when `stream=True`.", param="stream_options")
    include_usage = _flag(options, "include_usage")
    return include_usage, include_usage and _flag(options, "continuous_usage_stats")


def _stop(value: Any) -> tuple[str, ...]:
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if (
        not isinstance(stops, list)
        or len(stops) > MAX_STOPS
        or not all(isinstance(stop, str) and 0 < len(stop) <= MAX_STOP_CHARACTERS for stop in stops)
    ):
        raise invalid(
            "stop",
            f"must be a string or a list of at most {MAX_STOPS} strings of 1 to {MAX_STOP_CHARACTERS} "
            "characters",
        )
    return tuple(stops)


def _stop_ids(value: Any) -> frozenset[int]:
    if value is None:
        return frozenset()
    if not isinstance(value, list) or len(value) > MAX_STOPS or any(type(item) is not int for item in value):
        raise invalid("stop_token_ids", f"must be a list of at most {MAX_STOPS} integers")
    return frozenset(value)


def _flag(fields: dict[str, Any], name: str) -> bool:
    value = fields.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise invalid(name, "must be true or false")
    return value


def _integer(fields: dict[str, Any], name: str, *, least: int) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if type(value) is not int:
        raise invalid(name, "must be an integer")
    if value < least:
        raise RequestError(f"{name} must be at least {least}, got {value}.", param=name)
    return value


def invalid(param: str, rule: str) -> RequestError:
    """A field that breaks a rule, as vLLM's validation says it."""
    return RequestError(f"1 validation error:\n  {param} {rule}", param=param, type="Bad Request")
