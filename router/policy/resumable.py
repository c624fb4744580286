"""Which streams can be continued on another site, and how faithfully. Pure; the table is docs/resume.md.

exact     the client gets what the unbroken stream would have said
faithful  a fair continuation, though maybe not the same one
refused   not continued: it ends with a stated error
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from router.policy.body import Api


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


EXACT = Resumability(Fidelity.EXACT, "")
_COUNTS_OUTPUT_ONLY = ("frequency_penalty", "presence_penalty")
_STRUCTURED = (
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "guided_decoding_backend",
)
MAX_STOPS = 64
MAX_STOP_CHARACTERS = 2048
"""Of all stop strings together: at each event of a continuation so much text is searched again for each."""
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
    by_text_only = api is Api.CHAT and _has_media(fields.get("messages"))
    for name in _COUNTS_OUTPUT_ONLY:
        if fields.get(name):
            return Resumability(Fidelity.FAITHFUL, name, by_text_only)
    if fields.get("temperature") != 0 and fields.get("top_k") != 1:
        return Resumability(Fidelity.FAITHFUL, "sampling", by_text_only)
    if by_text_only:
        return Resumability(Fidelity.FAITHFUL, "media", by_text_only)
    return EXACT


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
    for name in _STRUCTURED:
        if fields.get(name) is not None:
            return "structured_output"
    response_format = fields.get("response_format")
    if response_format is not None and not (
        isinstance(response_format, dict) and response_format.get("type") == "text"
    ):
        return "structured_output"
    if fields.get("include_reasoning") is False:
        return (
            "hidden_reasoning"  # by text the new engine's parser may take the rest for reasoning, and hide it
        )
    if fields.get("prompt_embeds") is not None:
        return "prompt_embeds"  # its ids are placeholders
    if fields.get("tools") and fields.get("tool_choice") != "none":
        return "tools"
    prompt = fields.get("prompt")
    if api is Api.COMPLETION and isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        return "prompts" if len(prompt) > 1 else None
    return None


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
            isinstance(part, dict) and part.get("type") not in ("text", "refusal") for part in content
        ):
            return True
    return False


def _refused(reason: str) -> Resumability:
    return Resumability(Fidelity.REFUSED, reason)
