"""Records what vLLM makes of Messages requests and of chats' streams, and holds the router's code to it.

Run with vLLM's python, whose path gets this project's packages behind its own, from the project's root:

    PYTHONPATH=. VLLM_TARGET_DEVICE=cpu VLLM_PYTHON tests/support/record_as_chat_messages.py SITE_PACKAGES

Every request that the router translates, those of `BODIES` and some thousand mutations of them, must be the
same chat as vLLM makes of it, field by field; every stream must become the same bytes. It stops at the first
that is not; then nothing is written.
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
import re
import sys
from pathlib import Path
from typing import Any

sys.path.append(sys.argv[1])

import orjson
from vllm.entrypoints.anthropic.protocol import AnthropicMessagesRequest
from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

from router.policy.messages_as_chat import messages_as_chat
from router.policy.messages_outlet import MessagesOutlet

RECORDED = Path(__file__).parent / "recorded"
MUTATIONS = 30_000
STREAMS = 5_000

PIXEL = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "weather", "description": "What it is like outside", "input_schema": SCHEMA}
CLOCK = {"type": "custom", "name": "clock", "input_schema": {"properties": {}}, "strict": True}
EPHEMERAL = {"cache_control": {"type": "ephemeral"}}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Ærø", "days": [1, 2.5]}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1"}


def text(words: str, **more: Any) -> dict[str, Any]:
    """A block of text."""
    return {"type": "text", "text": words} | more


def after_call(*blocks: dict[str, Any]) -> list[dict[str, Any]]:
    """A conversation in which a tool was called, and what the user's turn then holds."""
    asked = {"role": "user", "content": "How is it?"}
    return [asked, {"role": "assistant", "content": [CALL]}, {"role": "user", "content": list(blocks)}]


BODIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "system": {"system": "Be brief."},
    "empty system": {"system": ""},
    "system blocks": {"system": [text("Be "), text(""), text("brief.", **EPHEMERAL)]},
    "billing header": {"system": [text("x-anthropic-billing-header: cch=1;"), text("Be brief.")]},
    "turns": {
        "messages": [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": [text("Hi."), text(" You?")]},
            {"role": "user", "content": [text("Fine.", citations=None, **EPHEMERAL)]},
        ]
    },
    "images": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image", "source": PIXEL} | EPHEMERAL,
                    text("What is it?"),
                    {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
                ],
            }
        ]
    },
    "one image": {"messages": [{"role": "user", "content": [{"type": "image", "source": PIXEL}]}]},
    "empty blocks": {
        "messages": [
            {"role": "user", "content": [text("")]},
            {"role": "assistant", "content": []},
            {"role": "user", "content": ""},
        ]
    },
    "tools": {"tools": [WEATHER | EPHEMERAL, CLOCK]},
    "choice auto": {"tools": [WEATHER], "tool_choice": {"type": "auto"}},
    "choice any": {"tools": [WEATHER], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
    "choice none": {"tools": [WEATHER], "tool_choice": {"type": "none"}},
    "choice none without tools": {"tool_choice": {"type": "none"}},
    "choice tool": {
        "tools": [CLOCK, WEATHER],
        "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": False},
    },
    "call and result": {"tools": [WEATHER], "messages": after_call(RESULT | {"content": "Rain"})},
    "result blocks": {
        "messages": after_call(
            text("Here:"), RESULT | {"content": [text("Rain"), text("Wind")], "is_error": False} | EPHEMERAL
        )
    },
    "result image": {
        "messages": after_call(
            RESULT | {"content": [{"type": "image", "source": PIXEL}, text("Seen")]},
            RESULT | {"tool_use_id": "toolu_2", "is_error": True},
            text("Well?"),
        )
    },
    "thinking before": {
        "messages": [
            {"role": "user", "content": "Hello"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "They greet", "signature": "aa"},
                    {"type": "thinking", "thinking": " me."},
                    {"type": "redacted_thinking", "data": "xx"},
                    text("Hi."),
                    CALL | {"input": {}},
                    CALL | {"id": "toolu_2"},
                ],
            },
            {"role": "user", "content": "Fine."},
        ]
    },
    "thinking": {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 4096},
    "deferred tools": {
        "tools": [WEATHER | {"defer_loading": True}, CLOCK | {"defer_loading": False, "description": None}],
        "messages": after_call(
            RESULT
            | {
                "content": [
                    {"type": "tool_reference", "tool_name": "weather"},
                    text("Found."),
                    {"type": "image", "source": PIXEL},
                    {"type": "tool_reference", "tool_name": "clock"},
                    {"type": "tool_reference", "tool_name": ""},
                ]
            }
        ),
    },
    "a document that a tool gave": {
        "messages": after_call(
            RESULT
            | {
                "content": [
                    text("A file."),
                    {"type": "document", "source": PIXEL, "title": None, "citations": {"enabled": True}},
                ]
            }
        )
    },
    "adaptive thinking": {
        "thinking": {"type": "adaptive", "display": "summarized"},
        "output_config": {"effort": "xhigh"},
    },
    "json": {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    "sampling": {"temperature": 0, "top_p": 0.5, "top_k": 20, "stop_sequences": ["\n\n", "END"]},
    "own fields": {
        "cache_salt": "grain",
        "watermarking": False,
        "vllm_xargs": {"a": 1, "b": "x", "c": [0.5, 1, "y"]},
        "chat_template_kwargs": {"enable_thinking": False, "deep": {"x": [None, True, 1e3]}},
    },
    "ignored fields": {
        "metadata": {"user_id": "u"},
        "service_tier": "standard_only",
        "safeguards": [{"type": "dangerous_tool_use", "classifier_context": {"v": 1}}],
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "top_p": None,
        "tools": None,
        "stop_sequences": None,
    }
    | EPHEMERAL,
}
HELLO = {"role": "user", "content": "Hello"}
BILLING = "x-anthropic-billing-header: cch=1;"
INLINE: dict[str, dict[str, Any]] = {
    "a reminder": {"system": "Be brief.", "messages": [HELLO, {"role": "system", "content": " And kind."}]},
    "reminders": {
        "messages": [
            {"role": "system", "content": [text("Be "), text(BILLING), text("brief.", **EPHEMERAL)]},
            HELLO,
            {"role": "system", "content": [text(BILLING)]},
            {"role": "system", "content": BILLING},
            {"role": "system", "content": [text("x-anthropic-"), text("billing-header")]},
            {"role": "assistant", "content": [text("Hi.")]},
            {"role": "system", "content": ""},
            {"role": "system", "content": []},
            {"role": "system", "content": "Go on."},
        ]
    },
}
"""With system messages amid the others: engines differ in what becomes of them."""
DEFAULTS: dict[str, Any] = {
    "model": "m",
    "max_tokens": 100,
    "stream": True,
    "messages": [HELLO],
}


def of_vllm(raw: str, inline_system: str | None) -> ChatCompletionRequest:
    """The chat that vLLM makes of a request."""
    return AnthropicServingMessages.to_chat_completion_request(
        AnthropicMessagesRequest.model_validate(json.loads(raw)),
        merge_inline_system=inline_system == "merged",
    )


def compare(raw: str, inline_system: str | None = None) -> ChatCompletionRequest | None:
    """vLLM's chat, which is the router's, too; None: the router leaves it to vLLM."""
    fields = orjson.loads(raw)
    as_chat = messages_as_chat(fields, inline_system)
    assert fields == orjson.loads(raw), "the body was changed"
    if as_chat is None:
        return None
    by_http = orjson.dumps({name: value for name, value in as_chat.fields.items() if name != "service_tier"})
    ours, theirs = ChatCompletionRequest.model_validate(json.loads(by_http)), of_vllm(raw, inline_system)
    for chat in (ours, theirs):
        chat.stop = chat.stop or []  # of a chat without any it is None or []: all the same
        chat.request_id = ""
    assert dumped(ours) == dumped(theirs), f"{raw}\nours:   {dumped(ours)}\ntheirs: {dumped(theirs)}"
    assert type(ours.messages) is type(theirs.messages)
    assert repr(ours.to_sampling_params(9, {})) == repr(theirs.to_sampling_params(9, {}))
    assert repr(ours.build_chat_params(None, "auto")) == repr(theirs.build_chat_params(None, "auto"))
    assert not ours.model_extra, "a field that vLLM does not know"
    return theirs


def dumped(chat: ChatCompletionRequest) -> str:
    """Every field, in order; 1 and 1.0 and True differ."""
    return json.dumps(chat.model_dump(mode="json"))


def mutated(rng: random.Random, pieces: list[Any]) -> dict[str, Any]:
    """A body with one to three things changed."""
    body = copy.deepcopy(DEFAULTS | rng.choice([*BODIES.values(), *INLINE.values()]))
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(nested(body))
        place = rng.choice(places)
        value = copy.deepcopy(rng.choice(pieces))
        if isinstance(place, dict):
            names = [*place, *rng.choice(places), "type", "name", "content", "defer_loading", "x"]
            name = str(rng.choice(names))
            if rng.random() < 0.3:
                place.pop(name, None)
            else:
                place[name] = value
        else:
            place.insert(rng.randrange(len(place) + 1), value)
    return body


def nested(value: Any) -> Any:
    """Every object and list within."""
    if isinstance(value, (dict, list)):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from nested(item)


def fuzz_requests(rng: random.Random) -> None:
    """Mutations are made of the pieces of all bodies and of values that types are often mistaken for."""
    pieces: list[Any] = [None, True, False, 0, 1, -1, 5, 2048, 1.0, 0.5, "", "1", "true", [], {}, [""], 2**70]
    pieces += [10**30, 2**63, "auto", "system", "disabled", "web_search_20250305", {"type": "disabled"}]
    for body in (*BODIES.values(), *INLINE.values()):
        pieces += nested(DEFAULTS | body)
    translated = 0
    for _ in range(MUTATIONS):
        inline_system = rng.choice((None, "in_place", "merged"))
        translated += compare(json.dumps(mutated(rng, pieces)), inline_system) is not None
    print(f"{translated} of {MUTATIONS} mutated requests are translated, and are vLLM's")  # noqa: T201


def chunk(
    delta: dict[str, Any], *, finish: str | None = None, stop: Any = None, **more: Any
) -> dict[str, Any]:
    """One event of a chat's stream."""
    choice: dict[str, Any] = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    if finish is not None:
        choice["stop_reason"] = stop
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
    } | more


def usage(prompt: int, output: int, details: dict[str, Any] | None = None) -> dict[str, Any]:
    """The counts of a chat."""
    told = {"prompt_tokens": prompt, "total_tokens": prompt + output, "completion_tokens": output}
    return {"usage": told if details is None else told | {"prompt_tokens_details": details}}


def call(
    index: int, call_id: str | None = None, name: str | None = None, arguments: str | None = None
) -> dict[str, Any]:
    """A piece of a tool call."""
    function = {"name": name, "arguments": arguments}
    made = {"index": index, "id": call_id, "type": None if call_id is None else "function"}
    made["function"] = {key: value for key, value in function.items() if value is not None}
    return {key: value for key, value in made.items() if value is not None}


def stream(*chunks: dict[str, Any], told: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """A whole stream: the role comes first, the usage last."""
    first = chunk({"role": "assistant", "content": ""}, prompt_token_ids=[1, 2], **usage(7, 0))
    return [first, *chunks, chunk({}, **(told or usage(7, 5))) | {"choices": []}]


CITY = call(0, "call-1", "weather", "")
STREAMED: dict[str, list[dict[str, Any]]] = {
    "text": stream(
        chunk({"content": "Ærø"}), chunk({"content": '"\n\u2028\x07\\'}), chunk({}, finish="stop")
    ),
    "nothing": stream(chunk({"content": ""}, finish="stop", stop=2)),
    "length": stream(chunk({"content": "x", "tool_calls": []}, finish="length")),
    "stop string": stream(chunk({"content": "x"}, finish="stop", stop="END")),
    "abort": stream(chunk({"content": "x"}, finish="abort")),
    "no finish": stream(chunk({"content": "x"})),
    "cached": stream(
        chunk({"content": "x"}, finish="stop"),
        told=usage(7, 1, {"cached_tokens": 4, "created_cache_tokens": 1, "multimodal_tokens": None}),
    ),
    "more cached than asked": stream(
        chunk({"content": "x"}, finish="stop"), told=usage(7, 1, {"cached_tokens": 9})
    ),
    "reasoning": stream(
        chunk({"reasoning": "Hm"}), chunk({"reasoning": "m."}), chunk({"content": "So."}, finish="stop")
    ),
    "reasoning alone": stream(chunk({"reasoning": "Hm"}, finish="length")),
    "call": stream(
        chunk({"content": None, "tool_calls": [CITY]}),
        chunk({"tool_calls": [call(0, arguments='{"city": ')]}),
        chunk({"tool_calls": [call(0, arguments='"Oslo"}')]}),
        chunk({}, finish="tool_calls"),
    ),
    "all in one": stream(
        chunk(
            {
                "reasoning": "Hm",
                "content": "Look:",
                "tool_calls": [
                    call(0, "c1", "a", "{}"),
                    call(1, "c2", "b", '{"x":'),
                    call(1, arguments="1}"),
                ],
            },
            finish="tool_calls",
        )
    ),
    "text in a call": stream(
        chunk({"content": "a"}),
        chunk({"tool_calls": [CITY]}),
        chunk({"content": "b"}),
        chunk({"content": "c", "tool_calls": [call(0, arguments="{}")]}),
        chunk({"tool_calls": [call(1, "call-2", "clock", "{}")]}),
        chunk({"content": "d"}, finish="stop"),
    ),
    "call cut by a stop string": stream(
        chunk({"tool_calls": [call(0, "c1", "a", '{"x": "')]}, finish="tool_calls", stop="END")
    ),
    "whole call before a stop string": stream(
        chunk({"tool_calls": [call(0, "c1", "a", "{}")]}), chunk({}, finish="stop", stop="END")
    ),
    "named call": stream(chunk({"tool_calls": [call(0, "c1", "a", "{")]}, finish="stop")),
    "calls in turn": stream(
        chunk({"tool_calls": [call(0, "c1", "a")]}),
        chunk({"tool_calls": [call(1, "c2", "b")]}),
        chunk({"tool_calls": [call(0, arguments="lost"), call(1, arguments="{}")]}),
        chunk({"tool_calls": [call(2, "c3", None, "{}"), call(5, arguments="{}")]}),
        chunk({}, finish="tool_calls"),
    ),
}


def events_of_vllm(chunks: list[dict[str, Any]]) -> str:
    """The Messages events that vLLM makes of a chat's."""

    async def items() -> Any:
        for one in chunks:
            yield f"data: {json.dumps(one)}\n\n"
        yield "data: [DONE]\n\n"

    async def made() -> str:
        serving = object.__new__(AnthropicServingMessages)
        return "".join([event async for event in serving.message_stream_converter(items())])

    return asyncio.run(made())


def compare_stream(chunks: list[dict[str, Any]]) -> str:
    """vLLM's events, which are the router's, too."""
    outlet = MessagesOutlet()
    pieces = [outlet.feed(b"data: " + orjson.dumps(one) + b"\n\n") for one in chunks]
    ours = b"".join([*pieces, outlet.feed(b"data: [DONE]\n\n")]).decode()
    theirs = events_of_vllm(chunks)
    assert "event: error" not in theirs, theirs
    assert unsigned(ours) == unsigned(theirs), f"ours:\n{ours}\ntheirs:\n{theirs}"
    return theirs


def unsigned(events: str) -> str:
    """Without the signatures, which are random."""
    return re.sub(r'"signature":"[0-9a-f]{32}"', '"signature":""', events)


def fuzz_streams(rng: random.Random) -> None:
    """Deltas in every order."""
    for _ in range(STREAMS):
        chunks = []
        for _ in range(rng.randrange(12)):
            delta: dict[str, Any] = {}
            if rng.random() < 0.3:
                delta["reasoning"] = rng.choice(("", "r", None))
            if rng.random() < 0.5:
                delta["content"] = rng.choice(("", "t", None, "ø"))
            if rng.random() < 0.4:
                delta["tool_calls"] = [
                    call(
                        rng.randrange(3),
                        rng.choice((None, "c1", "c2")),
                        rng.choice((None, "a")),
                        rng.choice((None, "", "{", "}")),
                    )
                    for _ in range(rng.randrange(3))
                ]
            finish = rng.choice(("stop", "tool_calls", "length", "abort")) if rng.random() < 0.2 else None
            chunks.append(chunk(delta, finish=finish, stop=rng.choice((None, 3, "END"))))
        compare_stream(stream(*chunks))
    print(f"{STREAMS} random streams are vLLM's")  # noqa: T201


def main() -> None:
    """Compare, then write."""
    samples = json.loads((RECORDED / "agents_messages.json").read_text())
    cases = [(name, DEFAULTS | fields, None) for name, fields in BODIES.items()]
    for inline_system in ("in_place", "merged"):
        cases += [
            (f"{name}, {inline_system}", DEFAULTS | fields, inline_system) for name, fields in INLINE.items()
        ]
        cases += [(f"{one['name']}, {inline_system}", one["body"], inline_system) for one in samples]
    requests = []
    for name, body, inline_system in cases:
        chat = compare(json.dumps(body), inline_system)
        assert chat is not None, f"{name} is not translated"
        made = chat.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
        told = {key: value for key, value in made.items() if key != "request_id" and value != []}
        requests.append({"name": name, "inline_system": inline_system, "body": body, "chat": told})
    streams = [
        {"name": name, "chunks": chunks, "events": unsigned(compare_stream(chunks))}
        for name, chunks in STREAMED.items()
    ]
    rng = random.Random(7)
    fuzz_requests(rng)
    fuzz_streams(rng)
    recorded = {"requests": requests, "streams": streams}
    path = RECORDED / "as_chat_messages.json"
    path.write_text(json.dumps(recorded, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
