"""What is kept of a stream so that it can be continued elsewhere. Pure, and small: ten thousand streams are
open at once, so ids and text are kept as the bytes they came in, and parsed only when a stream breaks.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from gateway.sse import data_of
from router.policy.parsed_output import ParsedOutput

END_OF_EVENT = b", "
_SILENCE = ord("\n")
"""Stands for the blank behind an event that told the client nothing."""
_IDS = re.compile(rb"(?:\s*\d{1,18}\s*,)*")
"""Each with its comma."""
_NOT_CONTINUED = ("function_call", "refusal", "audio")
"""Of a delta."""


class StreamRecord:
    """What a client has been sent of one stream."""

    __slots__ = (
        "finish_reason",
        "first_event",
        "has_missing_ids",
        "has_other_output",
        "ids",
        "ids_again",
        "parsed",
        "prompt_ids",
        "text",
        "text_events",
        "usage_sent",
    )

    def __init__(self) -> None:
        self.first_event = b""
        """The first event as the client got it: `id`, `created`, `model` of the whole stream."""
        self.prompt_ids: bytes | None = None
        """`1,2,3` as the engine wrote them; None where it sent none."""
        self.ids = bytearray()
        """Ids of the answer so far, each followed by a comma, and each event's last by a blank, too (a line
        break where the event told nothing)."""
        self.ids_again: list[int] = []
        """Ids taken back (`take_back_last_id`), in order: the next site is to generate them again."""
        self.text = bytearray()
        """Text sent so far, still escaped as in a JSON string."""
        self.text_events = 0
        """Events that carried text: tokens, where there are no ids to count."""
        self.has_missing_ids = False
        """Text came without ids: only the text can be continued."""
        self.has_other_output = False
        """Something was sent that is neither text, reasoning nor a tool call."""
        self.parsed: ParsedOutput | None = None
        """Reasoning and tool calls, once some were sent: the next engine's parsers must tell them on."""
        self.finish_reason: str | None = None
        """A real one, once seen."""
        self.usage_sent = False

    def add_ids(self, raw: bytes) -> None:
        """Those of one event; `raw` is `1,2,3` or empty."""
        if raw:
            self.ids += raw
            self.ids += END_OF_EVENT

    def note_silence(self) -> None:
        """The ids that were added last came with nothing for the client."""
        self.ids[-1] = _SILENCE

    def take_back_untold_ids(self) -> None:
        """The answer ends with the last event that told something: what has begun since is begun anew."""
        end = self.ids.rfind(END_OF_EVENT)
        del self.ids[end + len(END_OF_EVENT) if end >= 0 else 0 :]

    def shorten_last_event(self, count: int) -> None:
        """Keep so many of its ids."""
        listed = self.listed_ids
        start = max(listed.rfind(b" "), listed.rfind(b"\n")) + 1
        self.ids[start:] = b",".join(listed[start:].split(b",")[:count]) + b"," + b" "

    @property
    def listed_ids(self) -> bytes:
        """`1,2,3`, maybe with white space behind commas."""
        return bytes(self.ids).rstrip(b", \n")

    def take_back_last_id(self) -> None:
        """The answer ends before its last id, whose text the client has not got."""
        end = self.ids.rfind(b",")
        start = self.ids.rfind(b",", 0, end) + 1
        self.ids_again.insert(0, int(self.ids[start:end]))
        del self.ids[start:]
        if start:
            self.ids += b" "

    @property
    def ids_by_event(self) -> list[int]:
        """How many ids came with each event."""
        return [part.count(b",") for part in bytes(self.ids).split() if part]

    def add_text(self, text: str) -> None:
        """Text that was sent."""
        if text:
            self.text += orjson.dumps(text)[1:-1]
            self.text_events += 1

    def add_parsed(self, delta: dict[str, Any]) -> None:
        """Take what a chat's delta has beside text."""
        if self.parsed is None:
            self.parsed = ParsedOutput()
        if any(delta.get(name) for name in _NOT_CONTINUED) or not self.parsed.add(delta):
            self.has_other_output = True

    @property
    def has_ids(self) -> bool:
        """Whether the token ids of prompt and answer are all there."""
        return self.prompt_ids is not None and not self.has_missing_ids

    @property
    def is_readable(self) -> bool:
        """Whether an engine's JSON was valid where it matters; events pass unread while they come."""
        try:
            first = orjson.loads(data_of(self.first_event) or b"{}")
            _ = self.sent_text, self.parsed and self.parsed.reasoning
        except ValueError:
            return False
        prompt = b"" if self.prompt_ids is None or not self.prompt_ids.strip() else self.prompt_ids + b","
        return isinstance(first, dict) and _are_ids(prompt) and _are_ids(self.ids)

    @property
    def sent_text(self) -> str:
        """The text sent so far.

        Raises:
            ValueError: an engine's JSON was not valid.
        """
        text = orjson.loads(b'"%b"' % bytes(self.text))
        assert isinstance(text, str)
        return text

    @property
    def prompt_tokens(self) -> int | None:
        """Length of the prompt, None where unknown."""
        return None if self.prompt_ids is None else count_ids(self.prompt_ids)

    @property
    def output_tokens(self) -> int:
        """Tokens of the answer so far; where ids are missing, the events that carried text."""
        return self.text_events if self.has_missing_ids or not self.ids else self.ids.count(b",")


def _are_ids(raw: bytes | bytearray) -> bool:
    """Of a long prompt there are a hundred thousand: the expression is for those with blanks."""
    raw = raw.replace(END_OF_EVENT, b",").replace(b",\n", b",")
    if raw.translate(None, b"0123456789,"):
        return _IDS.fullmatch(raw) is not None
    return not raw.startswith(b",") and b",," not in raw


def count_ids(raw: bytes) -> int:
    """How many ids `1,2,3` holds."""
    return raw.count(b",") + 1 if raw.strip() else 0
