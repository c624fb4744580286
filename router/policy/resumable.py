"""Which streams can be continued on another site, and how faithfully. Pure; the table is docs/resume.md.

exact     the client gets what the unbroken stream would have said
faithful  a fair continuation, though maybe not the same one
refused   not continued: it ends with a stated error
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from router.policy.body import Api
from router.policy.snapshot import ModelView


class Fidelity(StrEnum):
    """How good a continuation is."""

    EXACT = "exact"
    FAITHFUL = "faithful"
    REFUSED = "refused"


class Resumability(NamedTuple):
    """The verdict on one request, before anything is known of its answer."""

    fidelity: Fidelity
    reason: str
    """The feature that decides; "" for an exact one."""
    by_text_only: bool = False
    """Token ids do not hold the whole prompt (images, audio)."""
    needs_parser: bool = False
    """A tool may be called: only a site whose engines tell what token ids mean can continue it."""
    grammar: Literal["", "answer", "calls"] = ""
    """What the engine makes by a grammar, whose state is lost with it: all that follows the reasoning, or
    tool calls. Outside of that a new engine's grammar begins as the first one's would have."""


EXACT = Resumability(Fidelity.EXACT, "")
_COUNTS_OUTPUT_ONLY = ("frequency_penalty", "presence_penalty")
_GUIDED = (
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "guided_decoding_backend",
)
MAX_STOPS = 64
MAX_STOP_CHARACTERS = 2048
"""Of all stop strings together: at each event of a continuation so much text is searched again for each."""
_IN_IDS = ("text", "refusal", "tool_reference")
"""Parts of messages that token ids hold."""
_REFUSED_IF_TRUE = ("logprobs", "top_logprobs", "prompt_logprobs", "echo", "suffix", "use_beam_search")


def resumability(api: Api, fields: Mapping[str, Any]) -> Resumability:
    """Whether a stream that answers this request may be continued; cases in the order of docs/resume.md."""
    if api is not Api.CHAT and api is not Api.COMPLETION:
        return _refused(api.value)
    refusal = _refusal(api, fields)
    if refusal is not None:
        return _refused(refusal)
    if _has_long_stops(fields.get("stop")):
        return _refused("stop")
    grammar, why = _grammar(fields) if api is Api.CHAT else ("", "")
    needs_parser = api is Api.CHAT and (grammar != "" or _has_tools(fields))
    by_text_only = api is Api.CHAT and _has_media(fields.get("messages"))
    if needs_parser and by_text_only:
        return _refused(why or "tools")  # by text the new engine does not know how a call began
    if needs_parser and fields.get("stop"):
        return _refused("stop")  # the new engine would look for it in the text of calls, from the seam on
    if grammar:
        return _by_grammar(fields, grammar, why)
    if needs_parser and fields.get("parallel_tool_calls") is False:  # vLLM has a grammar see to that
        return Resumability(Fidelity.FAITHFUL, "parallel_tool_calls", needs_parser=True)
    for name in _COUNTS_OUTPUT_ONLY:
        if fields.get(name):
            return Resumability(Fidelity.FAITHFUL, name, by_text_only, needs_parser)
    if fields.get("temperature") != 0 and fields.get("top_k") != 1:
        return Resumability(Fidelity.FAITHFUL, "sampling", by_text_only, needs_parser)
    if by_text_only:
        return Resumability(Fidelity.FAITHFUL, "media", by_text_only)
    return Resumability(Fidelity.EXACT, "", needs_parser=True) if needs_parser else EXACT


def can_continue(verdict: Resumability, view: ModelView) -> bool:
    """Whether a stream that begins at this site may be continued, as far as the request goes."""
    return (
        verdict.fidelity is not Fidelity.REFUSED
        and (view.parses_ids or not verdict.needs_parser)
        and (view.renders or not verdict.grammar)
    )


def _refusal(api: Api, fields: Mapping[str, Any]) -> str | None:
    for name in ("n", "best_of"):
        if (fields.get(name) or 1) != 1:
            return name
    for name in _REFUSED_IF_TRUE:
        value = fields.get(name)
        # A completion's `logprobs: 0` asks for the chosen token's; an empty suffix asks for nothing.
        if (
            value is not None
            and value is not False
            and value != ""
            and not (name != "logprobs" and value == 0)
        ):
            return name
    if any(fields.get(name) is not None for name in _GUIDED):
        return "structured_output"
    if api is Api.COMPLETION and _is_structured(fields):
        return "structured_output"
    # By text the new engine's parser may take the rest for reasoning, and hide it.
    if fields.get("include_reasoning") is False:
        return "hidden_reasoning"
    if fields.get("prompt_embeds") is not None:
        return "prompt_embeds"  # its ids are placeholders
    prompt = fields.get("prompt")
    if api is Api.COMPLETION and isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        return "prompts" if len(prompt) > 1 else None
    return None


def _has_tools(fields: Mapping[str, Any]) -> bool:
    tools = fields.get("tools")
    return isinstance(tools, list) and bool(tools) and fields.get("tool_choice") != "none"


def _grammar(fields: Mapping[str, Any]) -> tuple[Literal["", "answer", "calls"], str]:
    """What of a chat's answer is made by a grammar, and the feature that asks for it."""
    if _is_structured(fields):
        return "answer", "structured_output"
    if not _has_tools(fields):
        return "", ""
    if fields.get("tool_choice") not in (None, "auto"):
        return "answer", "tool_choice"
    functions = [tool.get("function") for tool in fields["tools"] if isinstance(tool, dict)]
    if any(isinstance(function, dict) and function.get("strict") is True for function in functions):
        return "calls", "strict_tools"
    return "", ""


def _by_grammar(fields: Mapping[str, Any], grammar: Literal["answer", "calls"], why: str) -> Resumability:
    if fields.get("return_token_ids") is True:
        return _refused(why)  # it would have the ids of what is begun anew
    return Resumability(Fidelity.FAITHFUL, why, needs_parser=True, grammar=grammar)


def _is_structured(fields: Mapping[str, Any]) -> bool:
    form = fields.get("response_format")
    is_text = form is None or (isinstance(form, dict) and form.get("type") == "text")
    return fields.get("structured_outputs") is not None or not is_text


def _has_long_stops(stop: object) -> bool:
    """Whether there are more stop strings than can be looked for over a seam at each event."""
    if isinstance(stop, str):
        return len(stop) > MAX_STOP_CHARACTERS
    if not isinstance(stop, list):
        return False
    return (
        len(stop) > MAX_STOPS
        or sum(len(text) for text in stop if isinstance(text, str)) > MAX_STOP_CHARACTERS
    )


def _has_media(messages: object) -> bool:
    if not isinstance(messages, list):
        return False
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list) and any(
            isinstance(part, dict) and part.get("type") not in _IN_IDS for part in content
        ):
            return True
    return False


def _refused(reason: str) -> Resumability:
    return Resumability(Fidelity.REFUSED, reason)
