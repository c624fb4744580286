"""The bytes of an answer, in vLLM 0.32's shapes. Pure.

Field order, which nulls are written and which are left out are vLLM's (its models are dumped with
`exclude_unset`): routers cut these events by byte search. What is constant in a stream is built once; a token
then costs one hash step and one concatenation.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import orjson

from site_agent.emulation.engine import FinishReason
from site_agent.emulation.request import GenerationRequest, Kind
from site_agent.emulation.tokens import (
    EMPTY_STATE,
    FLAG_BITS,
    WORDS,
    advance,
    follow,
    next_token,
    piece,
)

FAKE_VERSION = "0.32.0+emulated"
"""vLLM's version whose shapes these are, and that it is not vLLM."""
FINGERPRINT = f"vllm-{FAKE_VERSION}"
DONE = b"data: [DONE]\n\n"


class TokenStream:
    """The tokens of one answer, and their text with stop strings looked for as vLLM does."""

    __slots__ = ("_held", "_next", "_request", "_sent", "_state", "ids", "is_stopped", "stop_reason", "text")

    def __init__(self, request: GenerationRequest) -> None:
        self._request = request
        self._state = advance(EMPTY_STATE, request.prompt_ids)
        self._next = next_token(self._state, request.prompt_ids[-1])
        self.ids: list[int] = []
        self.text = ""
        """Only kept where stop strings or ids are looked for."""
        self._sent = 0
        self._held = 0 if request.include_stop else max(map(len, request.stop), default=1) - 1
        """Characters kept back, as they may be the beginning of a stop string."""
        self.is_stopped = False
        self.stop_reason: str | int | None = None

    def take(self) -> int:
        """The next token's id."""
        token = self._next
        self.ids.append(token)
        self._state, self._next = follow(self._state, token)
        return token

    def history(self, count: int) -> list[int]:
        """The first ids of prompt and answer, so many of them."""
        prompt = self._request.prompt_ids
        while len(prompt) + len(self.ids) < count:
            self.take()
        return [*prompt, *self.ids][:count]

    def take_text(self, *, is_last: bool) -> str:
        """The next token; the text that may be shown now. Sets `is_stopped` when a stop is met."""
        request = self._request
        token = self.take()
        count = len(self.ids)
        if token in request.stop_ids and count >= request.min_tokens:
            self.is_stopped, self.stop_reason = True, token
            if not request.include_stop:
                return self.rest()
        text = piece(token)
        self.text += text
        if count > request.min_tokens and not self.is_stopped:
            self._look_for_stop(len(text))
        return self._show(is_last=is_last or self.is_stopped)

    def rest(self) -> str:
        """What was kept back: the answer is over."""
        return self._show(is_last=True)

    def _look_for_stop(self, new_characters: int) -> None:
        best: tuple[int, str] | None = None
        for stop in self._request.stop:
            start = max(0, len(self.text) - new_characters - len(stop) + 1)
            found = self.text.find(stop, start)
            if found >= 0 and (best is None or found + len(stop) < best[0]):
                best = found + len(stop), stop
        if best is None:
            return
        end, stop = best
        self.text = self.text[: end if self._request.include_stop else end - len(stop)]
        self.is_stopped, self.stop_reason = True, stop

    def _show(self, *, is_last: bool) -> str:
        end = len(self.text) if is_last else len(self.text) - self._held
        if end <= self._sent:
            return ""
        shown = self.text[self._sent : end]
        self._sent = end
        return shown


class Answer:
    """One answer: its tokens, and its bytes as events or as one body."""

    __slots__ = ("_head", "_is_plain", "_tails", "answer_id", "created", "model", "request", "tokens")

    def __init__(self, request: GenerationRequest, *, request_id: str, created: int, model: str) -> None:
        self.request = request
        self.answer_id = f"{'chatcmpl' if request.kind == 'chat' else 'cmpl'}-{request_id}"
        self.created = created
        self.model = model
        self.tokens = TokenStream(request)
        self._head = self._event_head()
        self._is_plain = not (request.stop or request.stop_ids or request.continuous_usage)
        self._tails = _event_tails(request.kind, request.return_token_ids)

    @property
    def looks_for_stops(self) -> bool:
        """Whether each token's text must be looked at."""
        return bool(self.request.stop or self.request.stop_ids)

    def token_event(self, finish_reason: FinishReason | None) -> bytes:
        """The event (with the role event before the first) of one more token.

        `finish_reason` is the engine's; when `tokens.is_stopped` is set afterwards it was "stop" instead.
        """
        tokens = self.tokens
        if self._is_plain and finish_reason is None and tokens.ids:
            return self._head + self._tails[tokens.take() >> FLAG_BITS]
        is_first = not tokens.ids
        text, reason = self.next_text(finish_reason)
        event = self._event(text, tokens.ids[-1:], reason, is_first=is_first)
        return self._role_event() + event if is_first and self.request.kind == "chat" else event

    def next_text(self, finish_reason: FinishReason | None) -> tuple[str, FinishReason | None]:
        """Take one more token; the text to show, and how the answer ends with it, if it does."""
        tokens = self.tokens
        if self.looks_for_stops:
            text = tokens.take_text(is_last=finish_reason is not None)
        else:
            text = piece(tokens.take())
        return text, "stop" if tokens.is_stopped else finish_reason

    def whole_text(self, output_tokens: int) -> str:
        """The text of an answer of so many tokens."""
        tokens = self.tokens
        while len(tokens.ids) < output_tokens:
            tokens.take()
        return tokens.text if self.looks_for_stops else "".join(map(piece, tokens.ids))

    def end_event(self, finish_reason: FinishReason) -> bytes:
        """The event of an end without a token, as after an abort; nothing before the first token."""
        if not self.tokens.ids:
            return self._role_event() if self.request.kind == "chat" else b""
        return self._event(self.tokens.rest(), [], finish_reason, is_first=False)

    def closing_events(self) -> bytes:
        """Usage, if asked for, and `[DONE]`."""
        if not self.request.include_usage:
            return DONE
        usage = {
            "id": self.answer_id,
            "object": self._stream_object,
            "created": self.created,
            "model": self.model,
            "choices": [],
            "usage": self._usage(),
            "system_fingerprint": FINGERPRINT,
        }
        return b"data: " + orjson.dumps(usage) + b"\n\n" + DONE

    def body(self, finish_reason: FinishReason, output_tokens: int) -> bytes:
        """The whole answer of a request that does not stream, nulls included."""
        tokens = self.tokens
        text = self.whole_text(output_tokens)
        is_chat = self.request.kind == "chat"
        with_ids = self.request.return_token_ids
        choice: dict[str, Any] = {"index": 0}
        if is_chat:
            choice["message"] = _message(self.request.role, text)
        else:
            choice["text"] = text
        choice |= {
            "logprobs": None,
            "finish_reason": finish_reason,
            "stop_reason": tokens.stop_reason,
            "token_ids": tokens.ids if with_ids else None,
        }
        prompt_ids = self.request.prompt_ids if with_ids else None
        if not is_chat:
            choice |= {"prompt_logprobs": None, "prompt_token_ids": prompt_ids}
        choice["routed_experts"] = None
        answer: dict[str, Any] = {
            "id": self.answer_id,
            "object": "chat.completion" if is_chat else "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": [choice],
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": self._usage() | {"prompt_tokens_details": None, "completion_tokens_details": None},
        }
        if is_chat:
            answer |= {"prompt_logprobs": None, "prompt_token_ids": prompt_ids, "prompt_text": None}
        answer |= {"kv_transfer_params": None, "ec_transfer_params": None, "metrics": None}
        return orjson.dumps(answer)

    @property
    def _stream_object(self) -> str:
        return "chat.completion.chunk" if self.request.kind == "chat" else "text_completion"

    def _usage(self) -> dict[str, int]:
        prompt, output = len(self.request.prompt_ids), len(self.tokens.ids)
        return {"prompt_tokens": prompt, "total_tokens": prompt + output, "completion_tokens": output}

    def _event_head(self) -> bytes:
        """All of an event up to the text of its choice."""
        opening = orjson.dumps(
            {
                "id": self.answer_id,
                "object": self._stream_object,
                "created": self.created,
                "model": self.model,
            }
        )
        field = b'"delta":{"content":"' if self.request.kind == "chat" else b'"text":"'
        return b"data: " + opening[:-1] + b',"choices":[{"index":0,' + field

    def _role_event(self) -> bytes:
        event: dict[str, Any] = {
            "id": self.answer_id,
            "object": self._stream_object,
            "created": self.created,
            "model": self.model,
            "choices": [
                {
                    "index": 0,
                    "delta": {"role": self.request.role, "content": ""},
                    "logprobs": None,
                    "finish_reason": None,
                }
            ],
        }
        if self.request.continuous_usage:
            event["usage"] = self._chunk_usage(output_tokens=0)
        event["prompt_token_ids"] = self.request.prompt_ids if self.request.return_token_ids else None
        event["prompt_text"] = None
        return b"data: " + orjson.dumps(event) + b"\n\n"

    def _event(
        self, text: str, ids: list[int], finish_reason: FinishReason | None, *, is_first: bool
    ) -> bytes:
        with_ids = self.request.return_token_ids
        choice: dict[str, Any] = {"logprobs": None, "finish_reason": finish_reason}
        if self.request.kind == "chat":
            if finish_reason is not None:
                choice["stop_reason"] = self.tokens.stop_reason
        else:
            choice["stop_reason"] = self.tokens.stop_reason
            choice["prompt_token_ids"] = self.request.prompt_ids if with_ids and is_first else None
        choice["token_ids"] = ids if with_ids else None
        rest: dict[str, Any] = {}
        if self.request.continuous_usage:
            rest["usage"] = self._chunk_usage(output_tokens=len(self.tokens.ids))
        if finish_reason is not None and not self.request.include_usage:
            rest["system_fingerprint"] = FINGERPRINT
        return b"".join(
            (
                self._head,
                orjson.dumps(text)[1:],
                b"}," if self.request.kind == "chat" else b",",
                orjson.dumps(choice)[1:],
                b"]",
                b"," + orjson.dumps(rest)[1:] if rest else b"}",
                b"\n\n",
            )
        )

    def _chunk_usage(self, *, output_tokens: int) -> dict[str, int | None]:
        prompt = len(self.request.prompt_ids)
        usage: dict[str, int | None] = {
            "prompt_tokens": prompt,
            "total_tokens": prompt + output_tokens,
            "completion_tokens": output_tokens,
        }
        if self.request.kind == "chat":
            usage["completion_tokens_details"] = None
        return usage


def error_event(error: dict[str, Any]) -> bytes:
    """An error inside a 200, as vLLM sends it before its `[DONE]`."""
    return b"data: " + orjson.dumps({"error": error}) + b"\n\n"


@cache
def _event_tails(kind: Kind, with_ids: bool) -> tuple[bytes, ...]:
    """For each word of the vocabulary all of an event from its text on."""
    after = b'"}' if kind == "chat" else b'"'
    middle = b',"logprobs":null,"finish_reason":null,'
    if kind == "completion":
        middle += b'"stop_reason":null,"prompt_token_ids":null,'
    return tuple(
        b' %b%b%b"token_ids":%b}]}\n\n'
        % (word.encode(), after, middle, b"[%d]" % (index << FLAG_BITS) if with_ids else b"null")
        for index, word in enumerate(WORDS)
    )


def _message(role: str, text: str) -> dict[str, Any]:
    return {
        "role": role,
        "content": text,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "reasoning": None,
    }
