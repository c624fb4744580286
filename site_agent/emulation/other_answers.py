"""Answers of the Messages and Responses APIs, in the shapes of vLLM 0.32 (recorded from it). Pure."""

from __future__ import annotations

from typing import Any

import orjson

from site_agent.emulation.answer import Answer
from site_agent.emulation.engine import FinishReason
from site_agent.emulation.request import GenerationRequest

_STOP_REASONS = {"length": "max_tokens", "stop": "end_turn"}
"""A request that the engine gave up has none: that is how vLLM says it here."""


def _event(name: str, value: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(value))


class MessagesAnswer(Answer):
    """`/v1/messages`."""

    __slots__ = ("_reason",)

    def __init__(self, request: GenerationRequest, *, request_id: str, created: int, model: str) -> None:
        super().__init__(request, request_id=request_id, created=created, model=model)
        self.answer_id = f"chatcmpl-{request_id}"
        self._reason: FinishReason | None = None

    def token_event(self, finish_reason: FinishReason | None) -> bytes:
        """See Answer."""
        is_first = not self.tokens.ids
        text, self._reason = self.next_text(finish_reason)
        opening = self._opening() if is_first else b""
        if not text:
            return opening
        delta = {"type": "text_delta", "text": text}
        event = {"type": "content_block_delta", "delta": delta, "index": 0}
        return opening + _event("content_block_delta", event)

    def end_event(self, finish_reason: FinishReason) -> bytes:
        """See Answer."""
        self._reason = finish_reason
        return b"" if self.tokens.ids else self._opening()

    def closing_events(self) -> bytes:
        """See Answer."""
        stop_reason, stop_sequence = self._stop()
        delta = {
            "type": "message_delta",
            "delta": {"stop_reason": stop_reason, "stop_sequence": stop_sequence},
            "usage": self._token_counts(),
        }
        return (
            _event("content_block_stop", {"type": "content_block_stop", "index": 0})
            + _event("message_delta", delta)
            + _event("message_stop", {"type": "message_stop"})
        )

    def body(self, finish_reason: FinishReason, output_tokens: int) -> bytes:
        """See Answer."""
        text = self.whole_text(output_tokens)
        self._reason = finish_reason
        answer: dict[str, Any] = {
            "id": self.answer_id,
            "type": "message",
            "role": "assistant",
            "content": [{"type": "text", "text": text}],
            "model": self.model,
        }
        stop_reason, stop_sequence = self._stop()
        if stop_reason is not None:
            answer["stop_reason"] = stop_reason
        if stop_sequence is not None:
            answer["stop_sequence"] = stop_sequence
        return orjson.dumps(answer | {"usage": self._token_counts()})

    def _stop(self) -> tuple[str | None, str | None]:
        if self._reason == "stop" and isinstance(self.tokens.stop_reason, str):
            return "stop_sequence", self.tokens.stop_reason
        return _STOP_REASONS.get(self._reason or ""), None

    def _token_counts(self) -> dict[str, int]:
        return {"input_tokens": len(self.request.prompt_ids), "output_tokens": len(self.tokens.ids)}

    def _opening(self) -> bytes:
        message: dict[str, Any] = {
            "id": self.answer_id,
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": self.model,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": len(self.request.prompt_ids), "output_tokens": 0},
        }
        block = {"type": "content_block_start", "content_block": {"type": "text", "text": ""}, "index": 0}
        return _event("message_start", {"type": "message_start", "message": message}) + _event(
            "content_block_start", block
        )


class ResponsesAnswer(Answer):
    """`/v1/responses`, without tools, reasoning or a store."""

    __slots__ = ("_message_id", "_number", "_pieces", "_reason")

    def __init__(self, request: GenerationRequest, *, request_id: str, created: int, model: str) -> None:
        super().__init__(request, request_id=request_id, created=created, model=model)
        self.answer_id = f"resp_{request_id}"
        self._message_id = f"msg_{request_id}"
        self._number = 0
        self._pieces: list[str] = []
        self._reason: FinishReason | None = None

    def token_event(self, finish_reason: FinishReason | None) -> bytes:
        """See Answer."""
        is_first = not self.tokens.ids
        text, self._reason = self.next_text(finish_reason)
        opening = self._opening() if is_first else b""
        if not text:
            return opening
        self._pieces.append(text)
        return opening + self._part_event("response.output_text.delta", {"delta": text, "logprobs": []})

    def end_event(self, finish_reason: FinishReason) -> bytes:
        """See Answer."""
        self._reason = finish_reason
        return b"" if self.tokens.ids else self._opening()

    def closing_events(self) -> bytes:
        """See Answer."""
        text = "".join(self._pieces)
        item = self._item(text)
        return b"".join(
            (
                self._part_event("response.output_text.done", {"logprobs": [], "text": text}),
                self._part_event("response.content_part.done", {"part": item["content"][0]}),
                self._numbered("response.output_item.done", {"item": item, "output_index": 0}),
                self._numbered("response.completed", {"response": self._response([item])}),
            )
        )

    def body(self, finish_reason: FinishReason, output_tokens: int) -> bytes:
        """See Answer."""
        text = self.whole_text(output_tokens)
        self._reason = finish_reason
        return orjson.dumps(self._response([self._item(text)]))

    def _opening(self) -> bytes:
        response = self._response(None)
        item: dict[str, Any] = {
            "id": self._message_id,
            "content": [],
            "role": "assistant",
            "status": "in_progress",
            "type": "message",
            "phase": None,
        }
        part: dict[str, Any] = {"annotations": [], "text": "", "type": "output_text", "logprobs": []}
        return b"".join(
            (
                self._numbered("response.created", {"response": response}),
                self._numbered("response.in_progress", {"response": response}),
                self._numbered("response.output_item.added", {"item": item, "output_index": 0}),
                self._part_event("response.content_part.added", {"part": part}),
            )
        )

    def _part_event(self, name: str, value: dict[str, Any]) -> bytes:
        place = {"content_index": 0, "item_id": self._message_id, "output_index": 0}
        return self._numbered(name, place | value)

    def _numbered(self, name: str, value: dict[str, Any]) -> bytes:
        self._number += 1
        return _event(name, value | {"sequence_number": self._number - 1, "type": name})

    def _item(self, text: str) -> dict[str, Any]:
        part: dict[str, Any] = {"annotations": [], "text": text, "type": "output_text", "logprobs": None}
        return {
            "id": self._message_id,
            "content": [part],
            "role": "assistant",
            "status": "completed",
            "type": "message",
            "phase": None,
        }

    def _response(self, output: list[dict[str, Any]] | None) -> dict[str, Any]:
        """The response's object; `output` None: it has just begun."""
        is_cut = self._reason == "length"
        status = "in_progress" if output is None else "incomplete" if is_cut else "completed"
        incomplete = {"reason": "max_output_tokens"} if output is not None and is_cut else None
        return {
            "id": self.answer_id,
            "created_at": self.created,
            "incomplete_details": incomplete,
            "instructions": None,
            "metadata": None,
            "model": self.model,
            "object": "response",
            "output": output or [],
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "none",
            "tools": [],
            "top_p": 1.0,
            "background": False,
            "max_output_tokens": self.request.asked_tokens or self.request.max_tokens,
            "max_tool_calls": None,
            "previous_response_id": None,
            "prompt": None,
            "reasoning": None,
            "service_tier": "auto",
            "status": status,
            "text": None,
            "top_logprobs": None,
            "truncation": "disabled",
            "usage": None if output is None else self._token_counts(),
            "user": None,
        }

    def _token_counts(self) -> dict[str, Any]:
        prompt, output = len(self.request.prompt_ids), len(self.tokens.ids)
        return {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + output,
        }
