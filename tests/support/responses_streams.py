"""Parsers' deltas, of which `record_as_chat_responses` compares the streams that vLLM makes of them."""

from __future__ import annotations

from typing import Any

from support.responses_cases import CALENDAR, CLOCK, REQUESTS, SPACE, WEATHER


def call(index: int, arguments: str, name: str | None = None, call_id: str | None = None) -> dict[str, Any]:
    """A piece of a tool call, as a parser gives it."""
    piece: dict[str, Any] = {"index": index, "function": {"arguments": arguments}}
    if name is not None:
        piece["function"]["name"] = name
        piece |= {"type": "function"} | ({} if call_id is None else {"id": call_id})
    return piece


Deltas = list[dict[str, Any] | None]
WORDS: Deltas = [{"content": text} for text in ("Hel", "lo, ", 'w"ö\n😀', "rld.")]
THINKS: Deltas = [{"reasoning": "Hm"}, {"reasoning": ", yes."}]
CALLS: Deltas = [
    {"tool_calls": [call(0, "", "weather", "call_a")]},
    {"tool_calls": [call(0, '{"city":')]},
    {"tool_calls": [call(0, ' "Oslo"}')]},
    {"tool_calls": [call(1, '{"city": "Rome"}', "weather", "call_b")]},
]
SPACED: Deltas = [
    {"tool_calls": [call(2, "", "space__weather", "call_c")]},
    {"tool_calls": [call(2, '{"city": "Oslo"}')]},
    {"tool_calls": [call(3, "{}", "space__moon", "call_d"), call(4, "{}", "clock", "call_e")]},
]
ASKED: dict[str, Any] = {"input": "Hello", "max_output_tokens": 50}
TOOLS: dict[str, Any] = {**ASKED, "tools": [WEATHER, CLOCK]}

STREAMS: list[dict[str, Any]] = [
    {"name": "text", "body": ASKED, "deltas": WORDS},
    {"name": "cut", "body": ASKED, "deltas": WORDS, "finish": "length"},
    {"name": "stopped", "body": {**ASKED, "stop": "END"}, "deltas": WORDS, "stop_reason": "END"},
    {"name": "nothing", "body": ASKED, "deltas": [None]},
    {"name": "empty pieces", "body": ASKED, "deltas": [{"content": ""}, None, *WORDS, {"content": ""}, {}]},
    {"name": "reasoning", "body": ASKED, "deltas": [*THINKS, None, *WORDS], "reasoning_tokens": 2},
    {"name": "reasoning alone", "body": ASKED, "deltas": [{"reasoning": ""}, *THINKS], "finish": "length"},
    {"name": "reasoning again", "body": ASKED, "deltas": [*THINKS, *WORDS, *THINKS, *WORDS]},
    {"name": "cache", "body": ASKED, "deltas": WORDS, "cached": 12, "created": 3, "reasoning_tokens": 2},
    {"name": "calls", "body": TOOLS, "deltas": CALLS},
    {"name": "all", "body": TOOLS, "deltas": [*THINKS, *WORDS, *CALLS], "reasoning_tokens": 2},
    {"name": "text between calls", "body": TOOLS, "deltas": [*CALLS[:3], {"content": "\n"}, *CALLS[3:]]},
    {"name": "a call that was cut", "body": TOOLS, "deltas": [*WORDS, *CALLS[:2]], "finish": "length"},
    {"name": "a call without id", "body": TOOLS, "deltas": [{"tool_calls": [call(0, "{}", "clock")]}]},
    {
        "name": "all at once",
        "body": TOOLS,
        "deltas": [
            {
                "reasoning": "Hm.",
                "content": "Hello.",
                "tool_calls": [
                    call(0, "{", "clock", "call_a"),
                    call(0, "}"),
                    call(1, "{}", "clock", "call_b"),
                ],
            }
        ],
    },
    {
        "name": "larger pieces",
        "body": TOOLS,
        "deltas": [
            {"content": "Hello, world. " * 9},
            CALLS[0],
            {"tool_calls": [call(0, '{"city": "Oslo"}'), call(1, "{}", "clock", "call_b")]},
        ],
    },
    {"name": "a call in a namespace", "body": {**ASKED, "tools": [SPACE, CLOCK]}, "deltas": SPACED},
    {
        "name": "a call in a namespace and a web search",
        "body": {
            **ASKED,
            "tools": [
                CLOCK,
                {"type": "web_search", "external_web_access": True},
                {**SPACE, "tools": [WEATHER]},
            ],
        },
        "deltas": [*THINKS, *CALLS, *SPACED],
    },
    {"name": "no function", "body": TOOLS, "deltas": [{"tool_calls": [{"index": 0}]}, *WORDS]},
    {"name": "one call, by a grammar", "body": {**TOOLS, "parallel_tool_calls": False}, "deltas": CALLS},
    {"name": "greedy", "body": {**ASKED, "temperature": 0, "top_p": 0.5}, "deltas": WORDS},
    {
        "name": "repeated",
        "deltas": WORDS,
        "body": {
            **REQUESTS["sampling"],
            **REQUESTS["without effect"],
            "tools": [WEATHER, CLOCK, CALENDAR],
            "tool_choice": "none",
            "instructions": "Be kind.",
            "reasoning": {"effort": "low", "summary": "concise"},
        },
    },
    {
        "name": "nulls",
        "body": {**REQUESTS["nulls"], "max_output_tokens": 9, "reasoning": {}},
        "deltas": WORDS,
    },
    {"name": "least", "body": {**ASKED, "temperature": 0.001, "text": {}}, "deltas": WORDS},
    *(
        {
            "name": f"like {name}",
            "body": REQUESTS[name] | {"max_output_tokens": 9},
            "deltas": [WORDS[0], *CALLS[:2]],
        }
        for name in REQUESTS
        if "grammar" in name or "JSON" in name or "vLLM" in name or "arguments" in name
    ),
    {
        "name": "a text, but a grammar for one call",
        "body": {**TOOLS, "parallel_tool_calls": False, "text": {"format": {"type": "text"}}},
        "deltas": CALLS,
    },
]
