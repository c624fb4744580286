"""What a chat's answer holds beside its text: reasoning and tool calls, as a client has got them. Pure.

An engine's parsers make them of the model's text, and a stream tells them piece by piece. They are kept so
that a stream can go on elsewhere: the next engine's parsers tell the whole anew, and the client gets what it
lacks.
"""

from __future__ import annotations

from typing import Any

import orjson

REASONING_NAMES = ("reasoning", "reasoning_content")
"""Of a delta; vLLM's, and what it was called before and elsewhere still is. An engine may write both."""
MAX_CALLS = 1024
"""Tool calls of one answer; what has more is not continued."""


class ToolCall:
    """One call, as far as it has come."""

    __slots__ = ("_arguments", "call_id", "name")

    def __init__(self) -> None:
        self._arguments = bytearray()
        self.call_id = ""
        self.name = ""

    @property
    def arguments(self) -> str:
        """JSON, or the beginning of some."""
        return self._arguments.decode()

    def add_arguments(self, text: str) -> None:
        """A further piece of them."""
        self._arguments += text.encode()


class ParsedOutput:
    """Reasoning and tool calls so far; deltas come one after the other."""

    __slots__ = ("_reasoning", "calls", "reasoning_names")

    def __init__(self) -> None:
        self._reasoning = bytearray()
        """Escaped as in a JSON string: so it comes."""
        self.reasoning_names: tuple[str, ...] = ()
        """The names under which the reasoning came."""
        self.calls: dict[int, ToolCall] = {}
        """By index."""

    @property
    def reasoning(self) -> str:
        """All of it.

        Raises:
            ValueError: an engine's JSON was not valid.
        """
        return str(orjson.loads(b'"%b"' % bytes(self._reasoning)))

    def add_raw_reasoning(self, escaped: bytes) -> None:
        """A further piece of reasoning under the same name, as it stands in the event."""
        self._reasoning += escaped

    def add(self, delta: dict[str, Any]) -> bool:
        """Take what a delta has; False where it is not understood."""
        names = tuple(name for name in REASONING_NAMES if delta.get(name))
        if names:
            text = delta[names[0]]
            if not isinstance(text, str):
                return False
            self._reasoning += orjson.dumps(text)[1:-1]
            self.reasoning_names = names
        calls = delta.get("tool_calls") or []
        return isinstance(calls, list) and all(self._add_call(call) for call in calls)

    def _add_call(self, piece: Any) -> bool:
        index = piece.get("index") if isinstance(piece, dict) else None
        if not isinstance(index, int) or not 0 <= index < MAX_CALLS:
            return False
        function, call_id = piece.get("function"), piece.get("id")
        function = {} if function is None else function
        call_id = "" if call_id is None else call_id
        if not isinstance(function, dict) or not isinstance(call_id, str):
            return False
        name, arguments = function.get("name") or "", function.get("arguments") or ""
        if not isinstance(name, str) or not isinstance(arguments, str):
            return False
        call = self.calls.setdefault(index, ToolCall())
        call.call_id = call.call_id or call_id
        call.name += name
        call.add_arguments(arguments)
        return True


def missing_text(sent: str, whole: str) -> str | None:
    """What a client with `sent` lacks of `whole`; "" where it has more already; None: they do not agree."""
    if whole.startswith(sent):
        return whole[len(sent) :]
    return "" if sent.startswith(whole) else None
