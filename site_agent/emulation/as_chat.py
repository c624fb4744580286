"""Requests of the Messages and Responses APIs as the chats that vLLM turns them into. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from site_agent.emulation.request import RequestError, invalid

AsChat = Callable[[dict[str, Any]], dict[str, Any]]


def messages_as_chat(fields: dict[str, Any]) -> dict[str, Any]:
    """A request of Anthropic's Messages API as a chat's, as vLLM turns it into one.

    Raises:
        RequestError: what cannot be emulated.
    """
    if fields.get("max_tokens") is None:
        raise invalid("max_tokens", "is required")
    return _chat(
        fields, fields.get("messages"), system=fields.get("system"), stop=fields.get("stop_sequences")
    )


def count_tokens_as_chat(fields: dict[str, Any]) -> dict[str, Any]:
    """The same, where nothing will be generated."""
    return _chat(fields, fields.get("messages"), system=fields.get("system"))


def _responses_as_chat(fields: dict[str, Any]) -> dict[str, Any]:
    """A request of the Responses API as a chat's. As in vLLM's default, nothing is stored."""
    previous = fields.get("previous_response_id")
    if previous is not None:
        raise missing_response(str(previous))
    if fields.get("background"):
        raise RequestError(
            "This vLLM engine does not support `store=True` and therefore does not support the background "
            "mode.",
            param="background",
            type="invalid_request_error",
        )
    if isinstance(fields.get("text"), dict) and (fields["text"].get("format") or {}).get("type") not in (
        None,
        "text",
    ):
        raise RequestError("text.format other than text is not emulated.", param="text")
    asked = fields.get("input")
    messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    return _chat(
        fields | {"max_tokens": fields.get("max_output_tokens")}, messages, system=fields.get("instructions")
    )


def missing_response(response_id: str) -> RequestError:
    """What vLLM says of an id that it does not hold."""
    return RequestError(
        f"Response with id '{response_id}' not found.",
        param="response_id",
        status=404,
        type="invalid_request_error",
    )


def _chat(fields: dict[str, Any], messages: Any, *, system: Any = None, stop: Any = None) -> dict[str, Any]:
    if not isinstance(messages, list):
        raise invalid("messages", "must be a list of messages")
    choice = fields.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, dict) else choice
    return {
        "messages": messages if system is None else [{"role": "system", "content": system}, *messages],
        "max_tokens": fields.get("max_tokens"),
        "stop": stop,
        "stream": fields.get("stream"),
        "tool_choice": kind,
        "stream_options": None,
    }


AS_CHAT: dict[str, AsChat] = {"messages": messages_as_chat, "responses": _responses_as_chat}
"""APIs that vLLM turns into a chat."""
