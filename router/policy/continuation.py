"""Turns the answer of the site that continues a stream back into the client's stream. Pure, sans-IO.

The client sees one stream: the `id`, `created` and `model` it began with, no second role, nothing missing or
doubled, one usage that adds up, one terminal event. What is sent is noted in the same record, so that a
stream can break and go on any number of times.

Only resumed streams pass through here, so this parses every event.
"""

from __future__ import annotations

from typing import Any

import orjson

from gateway.sse import EventSplitter, EventTooLargeError, data_of
from router.policy.body import Api
from router.policy.resume_plan import Continue, ResumableRequest
from router.policy.stop_search import StopSearch
from router.policy.stop_text import StopText
from router.policy.stream_record import StreamRecord
from router.policy.stream_scan import Ending, is_abort, text_of

DONE = b"data: [DONE]\n\n"
_IN_EVERY_EVENT = ("id", "object", "created", "model", "system_fingerprint", "service_tier")
"""Of the first event; what else it has (a prompt's text) is said once."""


class ClientStream:
    """Writes events in the shape that the client's stream began with."""

    def __init__(self, request: ResumableRequest, record: StreamRecord) -> None:
        self._is_chat = request.api is Api.CHAT
        self._include_usage = request.include_usage
        self._asks_token_ids = request.asks_token_ids
        self.tells_counts = request.include_usage or request.asks_token_ids
        """Whether the client is told how many tokens there were."""
        self._record = record
        first = orjson.loads(data_of(record.first_event) or b"{}")
        self._head = {name: first[name] for name in _IN_EVERY_EVENT if name in first}

    def chunk(
        self, text: str, *, ids: list[Any] | None = None, finish: str | None = None, stop_reason: Any = None
    ) -> bytes:
        """One event of text, ids, or the end; b"" where there is nothing to say."""
        if not text and finish is None and not (ids and self._asks_token_ids):
            return b""
        choice: dict[str, Any] = {"index": 0}
        if self._is_chat:
            choice["delta"] = {"content": text} if text or finish is None else {}
        else:
            choice["text"] = text
        choice |= {"logprobs": None, "finish_reason": finish}
        if stop_reason is not None:
            choice["stop_reason"] = stop_reason
        if self._asks_token_ids:
            choice["token_ids"] = ids
        self._record.add_text(text)
        if finish is not None:
            self._record.finish_reason = finish
        return self._event({"choices": [choice]})

    def delta(self, delta: dict[str, Any]) -> bytes:
        """One event of a chat with reasoning or tool calls."""
        self._record.add_parsed(delta)
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        return self._event({"choices": [choice]})

    def usage(self, prompt_tokens: int | None, output_tokens: int) -> bytes:
        """The usage event, once, if the client asked for it and the numbers are known."""
        if not self._include_usage or self._record.usage_sent or prompt_tokens is None:
            return b""
        self._record.usage_sent = True
        usage = {
            "prompt_tokens": prompt_tokens,
            "total_tokens": prompt_tokens + output_tokens,
            "completion_tokens": output_tokens,
        }
        return self._event({"choices": [], "usage": usage})

    def close(self, finish: str) -> bytes:
        """All that a stream lacks whose tokens were all sent: finish (unless seen), usage, terminal event."""
        out = b"" if self._record.finish_reason is not None else self.chunk("", finish=finish)
        record = self._record
        return out + self.usage(record.prompt_tokens, record.output_tokens) + DONE

    def _event(self, body: dict[str, Any]) -> bytes:
        return b"data: " + orjson.dumps({**self._head, **body}) + b"\n\n"


class Continuation:
    """One site's continuation of a stream."""

    def __init__(self, request: ResumableRequest, record: StreamRecord, plan: Continue) -> None:
        self._request = request
        self.record = record
        self._by_ids = plan.method == "ids"
        self._plan = plan
        self._client = ClientStream(request, record)
        self._splitter = EventSplitter()
        self._tokens_here = 0
        stops = plan.stop if plan.min_tokens == 0 else ()
        self._stop = StopText(stops, keeps_stop=plan.keeps_stop, sent=record.sent_text)
        self.events = 0
        """Events with data: what a stall is measured by."""
        self.tokens = 0
        """Events with a token or text: whether it got anywhere."""
        self.ending: Ending | None = None
        self.is_stopped_here = False
        """A stop string over the seam was found: the site need not go on."""
        self.stop_search: StopSearch | None = None
        """It was found in an event of many ids: once they are counted, `end` writes what the client lacks."""
        self._last_ids: list[Any] = []
        self.error: Any = None
        if not self._by_ids:
            record.has_missing_ids = True
            # From here on tokens can only be counted by events; those before may have been counted by ids.
            record.text_events = plan.tokens_before

    @property
    def is_over(self) -> bool:
        """As `ChatStreamScanner.is_over`."""
        return self.ending is not None

    def begin(self, owed: str) -> bytes:
        """The text that the ids so far hold and the client has not got."""
        out = self._client.chunk(self._stop.feed(owed))
        return out + self._stopped() if self._stop.stopped_by is not None else out

    def feed(self, data: bytes) -> bytes:
        """Take a piece of the site's answer; returns what goes to the client."""
        if self.is_over:
            return b""
        try:
            events = self._splitter.feed(data)
        except EventTooLargeError:
            self.ending = "malformed"
            return b""
        pieces = []
        for event in events:
            pieces.append(self._event(event))
            if self.is_over:
                break
        return b"".join(pieces)

    def _event(self, event: bytes) -> bytes:
        payload = data_of(event)
        if payload is None:
            return event
        self.events += 1
        if payload.strip() == b"[DONE]":
            if self.record.finish_reason is None:
                self.ending = "no_finish"
                return b""
            self.ending = "complete"
            return self._usage_known() + DONE
        try:
            value = orjson.loads(payload)
        except orjson.JSONDecodeError:
            value = None
        if not isinstance(value, dict):
            self.ending = "malformed"
            return b""
        if value.get("error"):
            self.error = value["error"]
            self.ending = "error_event"
            return b""
        choices = value.get("choices")
        if isinstance(choices, list) and choices and isinstance(choices[0], dict):
            if choices[0].get("index", 0) != 0:  # of an answer that nobody asked for
                self.ending = "malformed"
                return b""
            return self._choice(choices[0])
        usage = value.get("usage")
        return self._usage_reported(usage) if isinstance(usage, dict) else b""

    def _choice(self, choice: dict[str, Any]) -> bytes:
        finish = choice.get("finish_reason")
        if is_abort(finish):
            self.ending = "aborted"
            return b""
        text, has_other_output = text_of(choice)
        if has_other_output:  # the engine thinks anew, or calls a tool: the client's answer had only text
            self.ending = "other_output"
            return b""
        ids = choice.get("token_ids")
        ids = ids if isinstance(ids, list) else None
        if ids:
            self.record.add_ids(orjson.dumps(ids)[1:-1])
        elif self._by_ids and text:
            self.record.has_missing_ids = True
        if ids or text:
            self.tokens += 1
            self._tokens_here += len(ids) if ids else 1
        count = len(ids) if ids else 0
        stop_reason = choice.get("stop_reason")
        if self._stop.is_active and isinstance(stop_reason, str) and not self._plan.engine_keeps_stop:
            # The engine took its stop string off: with it the whole text is there again, and an earlier match
            # that begins in what was held back here is found.
            text += stop_reason
        elif self._must_drop(finish, stop_reason) and count == 1:
            text = ""
        sent_characters = self._stop.sent_characters
        out = self._stop.feed(text, is_last=finish is not None)
        if self._stop.stopped_by is not None and ids and count > 1:
            return self._client.chunk(out) + self._stopped_among(ids, sent_characters)
        ids = self._without_known(ids)
        if self._stop.stopped_by is not None:
            return self._client.chunk(out, ids=ids) + self._stopped()
        finish = None if finish is None else str(finish)
        return self._client.chunk(out, ids=ids, finish=finish, stop_reason=stop_reason)

    def _must_drop(self, finish: Any, stop_reason: Any) -> bool:
        """Whether the last token is one that ends answers: told to keep stop strings, an engine keeps its
        text too. (With most tokenizers it is a special token, and has none.)"""
        keeps_unasked = self._plan.engine_keeps_stop and not self._plan.keeps_stop
        return keeps_unasked and finish == "stop" and not isinstance(stop_reason, str)

    def _without_known(self, ids: list[Any] | None) -> list[Any] | None:
        """Ids less those that were taken back: the client has them."""
        known = self.record.ids_again
        if not ids or not known:
            return ids
        count = min(len(ids), len(known))
        if ids[:count] != known[:count]:  # a sampler took another way
            known.clear()
            return ids
        del known[:count]
        return ids[count:]

    def _stopped(self) -> bytes:
        """A stop string over the seam: the answer ends here, whatever the site still writes."""
        self.ending = "complete"
        self.is_stopped_here = True
        stop = self._stop.stopped_by
        return self._client.chunk("", finish="stop", stop_reason=stop) + self._usage_known() + DONE

    def _stopped_among(self, ids: list[Any], sent_characters: int) -> bytes:
        """The same, where some of the event's ids may come after it."""
        if not self._client.tells_counts:
            return self._stopped()
        self.ending = "complete"
        self.is_stopped_here = True
        self._last_ids = ids
        whole = self.record.listed_ids.split(b",")
        stop = self._stop.stopped_by
        assert stop is not None
        self.stop_search = StopSearch(
            model=orjson.loads(self._request.raw).get("model"),
            before=whole[: -len(ids)],
            ids=whole[-len(ids) :],
            stop=stop,
            sent_characters=sent_characters,
        )
        return b""

    def end(self, count: int) -> bytes:
        """What is left to write after a `stop_search`: `count` of the last event's ids are the answer's."""
        self._tokens_here -= len(self._last_ids) - count
        ids = self._without_known(self._last_ids[:count])
        stop = self._stop.stopped_by
        return self._client.chunk("", ids=ids, finish="stop", stop_reason=stop) + self._usage_known() + DONE

    def _usage_known(self) -> bytes:
        """The usage from what was counted here."""
        return self._client.usage(self.record.prompt_tokens, self._tokens_all())

    def _usage_reported(self, usage: dict[str, Any]) -> bytes:
        """The usage of a continuation by text: its prompt holds the answer so far.

        Without a finish before it, it is that of an engine which gives up.
        """
        prompt, output = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if self.record.finish_reason is None:
            return b""
        if self._by_ids or not isinstance(prompt, int) or not isinstance(output, int):
            return b""
        before = self._plan.tokens_before
        known = self.record.prompt_tokens
        return self._client.usage(max(0, prompt - before) if known is None else known, before + output)

    def _tokens_all(self) -> int:
        return self._plan.tokens_before + self._tokens_here
