"""How a broken stream goes on: what to ask of which kind of site, or what to write without asking. Pure.

The cases, in the order in which `plan_resume` looks at them:
  1. the client's request, or what was sent so far, cannot be continued  → Refuse
  2. a real finish_reason was seen, or the token limit is used up        → Finish, no site is asked
  3. reasoning or tool calls were sent, or a tool may be called          → parsed: by ids, of which the site's
                                                                           parsers say what they mean
     (a chat of which nothing was sent → Refuse: what its ids hold is not known)
  4. ids of prompt and answer are known and the site takes ids           → by ids, through /v1/completions
  5. else                                                                → by text, through the same path
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson

from gateway.api_paths import CHAT_PATH
from router.policy.body import Api
from router.policy.resumable import Fidelity, Resumability
from router.policy.stop_search import detokenize_body
from router.policy.stream_record import StreamRecord

COMPLETION_DEFAULT_MAX_TOKENS = 16
"""What a completion without `max_tokens` gets, in OpenAI's API and vLLM's."""

_PROMPT_FIELDS = (
    "messages",
    "prompt",
    "chat_template",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
    "add_special_tokens",
    "documents",
    "mm_processor_kwargs",
    "media_io_kwargs",
    "truncate_prompt_tokens",
    "reasoning_effort",
    "include_reasoning",
)
"""Say how a prompt is made: it is made already."""
_CHAT_FIELDS = (
    "max_completion_tokens",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "logprobs",
    "top_logprobs",
    "stream_options",
    "n",
    "best_of",
    "echo",
    "suffix",
    "return_token_ids",
    "max_tokens",
)
"""Without meaning in a completion of ids, or set anew."""


Method = Literal["ids", "text", "parsed"]
"""ids and text: what is sent to the new site; parsed: ids, of which the site's parsers say what they mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumableRequest:
    """What the client asked for, as far as a continuation needs it."""

    api: Api
    raw: bytes
    resumability: Resumability
    include_usage: bool
    asks_token_ids: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """It cannot go on; `reason` is a short label."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """All the tokens were sent: only the end is missing."""

    finish_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Continue:
    """Ask a site to go on."""

    method: Method
    path: str
    body: bytes
    detokenize: bytes | None
    """Body for `/detokenize`: ids run ahead of text, its answer says by how much. None: nothing to ask."""
    stop: tuple[str, ...]
    min_tokens: int
    keeps_stop: bool
    """The client wants the stop string in the text."""
    engine_keeps_stop: bool
    """The engine leaves it there: it holds no text back, so each event's ids and text belong together."""
    fidelity: Fidelity
    tokens_before: int
    """Tokens of the answer before this continuation."""
    needs_grammar: bool = False
    """The site must be asked first what grammar it has for the client's request: `with_grammar`."""


ResumePlan = Refuse | Finish | Continue


def plan_resume(
    request: ResumableRequest,
    record: StreamRecord,
    *,
    site_takes_ids: bool,
    site_parses_ids: bool = False,
    site_renders: bool = False,
    first_max_model_len: int | None,
    max_model_len: int | None,
    by_text: bool = False,
) -> ResumePlan:
    """The next step for a stream of which the client has `record`.

    `first_max_model_len` is that of the site where it began: the limit of a chat without one. `max_model_len`
    is that of the site that may continue it. `by_text`: ids were tried and do not fit the text.
    """
    if (refusal := _refusal(request, record)) is not None:
        return refusal
    if record.finish_reason is not None:
        return Finish(finish_reason=record.finish_reason)
    must_parse = needs_parser(request, record)
    fields = orjson.loads(request.raw)
    if must_parse and not (site_takes_ids and site_parses_ids and record.has_ids and not fields.get("stop")):
        return Refuse(reason="tools" if request.resumability.needs_parser else "reasoning")
    if request.resumability.grammar and not (site_renders and _is_outside_grammar(request, record, fields)):
        return Refuse(reason=request.resumability.reason)
    if request.api is Api.CHAT and not record.text and not must_parse:
        return Refuse(reason="no_text")
    limit = _token_limit(request.api, fields, record, first_max_model_len)
    done = record.output_tokens
    if limit is not None and done >= limit:
        return Finish(finish_reason="length")
    left = None if limit is None else limit - done
    can_use_ids = site_takes_ids and record.has_ids and not request.resumability.by_text_only and not by_text
    if can_use_ids:
        prompt_tokens = record.prompt_tokens
        assert prompt_tokens is not None
        if left is None and max_model_len is not None:
            left = max_model_len - prompt_tokens - done
        if left is not None:
            return _by_ids(request, record, fields, max(1, left))
    return Refuse(reason="no_limit") if must_parse else _by_text(request, record, fields, left)


def _refusal(request: ResumableRequest, record: StreamRecord) -> Refuse | None:
    if request.resumability.fidelity is Fidelity.REFUSED:
        return Refuse(reason=request.resumability.reason)
    if record.has_other_output:
        return Refuse(reason="other_output")
    return None if record.is_readable else Refuse(reason="unreadable")


def _is_outside_grammar(request: ResumableRequest, record: StreamRecord, fields: dict[str, Any]) -> bool:
    """Whether a new engine's grammar may begin where the client's answer ends."""
    calls = {} if record.parsed is None else record.parsed.calls
    if request.resumability.grammar == "answer":
        return not record.text and not calls
    is_between = all(_is_json(call.arguments) for call in calls.values())
    return not calls or (is_between and fields.get("parallel_tool_calls") is not False)


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def with_grammar(plan: Continue, grammar: bytes) -> Continue:
    """The same by a grammar: `structured_outputs` as JSON; empty where the site has none for it."""
    body = b'%b,"structured_outputs":%b}' % (plan.body[:-1], grammar) if grammar else plan.body
    return replace(plan, body=body, needs_grammar=False)


def needs_parser(request: ResumableRequest, record: StreamRecord) -> bool:
    """Whether only parsers can tell what the rest of its ids means."""
    return request.resumability.needs_parser or record.parsed is not None


def has_use_for_ids(request: ResumableRequest, record: StreamRecord) -> bool:
    """Whether a site that takes ids would continue it better than another."""
    return record.has_ids and not request.resumability.by_text_only


def _token_limit(
    api: Api, fields: dict[str, Any], record: StreamRecord, first_max_model_len: int | None
) -> int | None:
    for name in ("max_completion_tokens", "max_tokens") if api is Api.CHAT else ("max_tokens",):
        value = fields.get(name)
        if isinstance(value, int):
            return value
    if api is Api.COMPLETION:
        return COMPLETION_DEFAULT_MAX_TOKENS
    if first_max_model_len is None or record.prompt_tokens is None:
        return None
    return first_max_model_len - record.prompt_tokens


def _by_ids(request: ResumableRequest, record: StreamRecord, fields: dict[str, Any], left: int) -> Continue:
    kept = {
        name: value
        for name, value in fields.items()
        if name not in _PROMPT_FIELDS and name not in _CHAT_FIELDS
    }
    if request.resumability.grammar:
        kept.pop("structured_outputs", None)
    kept["max_tokens"] = left
    kept["stream"] = True
    kept["return_token_ids"] = True
    ids = record.listed_ids
    prompt = record.prompt_ids or b""
    whole = prompt + b"," + ids if prompt and ids else prompt or ids
    detokenize = None
    is_parsed = needs_parser(request, record)
    if ids and not is_parsed:
        detokenize = detokenize_body(fields.get("model"), ids)
    return _continue(
        request,
        fields,
        kept,
        method="parsed" if is_parsed else "ids",
        path="/v1/completions",
        prefix=b'"prompt":[%b]' % whole,
        detokenize=detokenize,
        done=record.output_tokens,
    )


def _by_text(
    request: ResumableRequest, record: StreamRecord, fields: dict[str, Any], left: int | None
) -> ResumePlan:
    text = record.sent_text
    kept = {
        name: value for name, value in fields.items() if name not in ("return_token_ids", "stream_options")
    }
    kept["stream"] = True
    kept["stream_options"] = {"include_usage": True}
    if left is not None:
        for name in ("max_completion_tokens", "max_tokens"):
            kept.pop(name, None)
        kept["max_tokens"] = left
    path = CHAT_PATH if request.api is Api.CHAT else "/v1/completions"
    if ends_inside_a_character(text):
        return Refuse(reason="half_character")
    if text:
        reason = _add_text(request.api, kept, text)
        if reason is not None:
            return Refuse(reason=reason)
    return _continue(
        request,
        fields,
        kept,
        method="text",
        path=path,
        prefix=b"",
        detokenize=None,
        done=record.output_tokens,
    )


def _add_text(api: Api, kept: dict[str, Any], text: str) -> str | None:
    """Put the text so far behind the prompt; returns why that cannot be done."""
    if api is Api.COMPLETION:
        prompt = kept.get("prompt")
        if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
            prompt = prompt[0]
        if not isinstance(prompt, str):
            return "prompt_ids"
        kept["prompt"] = prompt + text
        return None
    messages = list(kept["messages"])
    last = messages[-1] if messages else None
    if kept.get("continue_final_message") and isinstance(last, dict):
        before = last.get("content")
        if not isinstance(before, str):
            return "continued_message"
        messages[-1] = {**last, "content": before + text}
    else:
        messages.append({"role": "assistant", "content": text})
    kept["messages"] = messages
    kept["continue_final_message"] = True
    kept["add_generation_prompt"] = False
    return None


def _continue(
    request: ResumableRequest,
    fields: dict[str, Any],
    kept: dict[str, Any],
    *,
    method: Method,
    path: str,
    prefix: bytes,
    detokenize: bytes | None,
    done: int,
) -> Continue:
    least = fields.get("min_tokens")
    min_tokens = max(0, least - done) if isinstance(least, int) else 0
    if isinstance(least, int):
        kept["min_tokens"] = min_tokens
    stop = fields.get("stop")
    stops = (stop,) if isinstance(stop, str) else tuple(stop) if isinstance(stop, list) else ()
    keeps_stop = fields.get("include_stop_str_in_output") is True
    # vLLM then also leaves a stop token's text in: nothing may ask for one, nor for special tokens' text.
    has_stop_tokens = bool(fields.get("stop_token_ids")) or fields.get("skip_special_tokens") is False
    engine_keeps_stop = keeps_stop
    if method == "ids" and stops and min_tokens == 0 and not has_stop_tokens:
        engine_keeps_stop = kept["include_stop_str_in_output"] = True
    body = orjson.dumps(kept)
    if prefix:
        body = b"{%b,%b" % (prefix, body[1:])
    is_exact = method != "text" and request.resumability.fidelity is Fidelity.EXACT
    return Continue(
        method=method,
        path=path,
        body=body,
        detokenize=detokenize,
        stop=tuple(text for text in stops if isinstance(text, str) and text),
        min_tokens=min_tokens,
        keeps_stop=keeps_stop,
        engine_keeps_stop=engine_keeps_stop,
        fidelity=Fidelity.EXACT if is_exact else Fidelity.FAITHFUL,
        tokens_before=done,
        needs_grammar=request.resumability.grammar != "",
    )


_SPECIAL_END = re.compile(r"(?:<[^<>]{1,64}>)+$")
"""What special tokens usually look like; behind half a character they hide it."""


def ends_inside_a_character(text: str) -> bool:
    """Whether a text of ids ends in what may become another character by the next id.

    No engine may be asked to go on from there: tokenizers' DecodeStream, which vLLM decodes with, then takes
    the whole prompt for new text. The last ids are taken back instead; their text was never sent.
    """
    return text.endswith("\ufffd")


def owed_text(whole: str, sent: str, *, holds_back: bool) -> str | None:
    """The part of `whole` (the ids so far, as text) that the client has not got; None: it cannot be known.

    An engine sends all text that is complete: nothing is owed. Only one that looks for stop strings
    `holds_back` what may be the beginning of one; then the texts are compared. `whole` may hold what is never
    sent (special tokens); a tokenizer may drop the space before the first word of a text, or put one there.
    """
    if not holds_back:
        return None if ends_inside_a_character(_SPECIAL_END.sub("", whole)) else ""
    for text in (whole, " " + whole, whole.removeprefix(" ")):
        if text.startswith(sent):
            owed = text[len(sent) :]
            return None if _SPECIAL_END.search(owed) else owed
    return None
