"""Streams of Messages and Responses as chats, held against what a real vLLM makes of them itself."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from benchmarks.resume import parsed, talking_model
from benchmarks.resume.fleet import MODEL, EngineSetting, Fleet, running
from gateway.upstream import Origin
from router.policy.messages_as_chat import messages_as_chat
from router.policy.responses_as_chat import responses_as_chat
from site_agent.drivers.probe import Prober

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not os.environ.get("HERON_VLLM_COMMAND"),
        reason="HERON_VLLM_COMMAND is not set: scripts/test-vllm installs vLLM's CPU build and runs this",
    ),
]

QUESTIONS = [one.question for one in talking_model.CONVERSATIONS]
FUNCTIONS = [one["function"] for one in talking_model.TOOLS]
ANTHROPIC_TOOLS = [
    {"name": one["name"], "description": one["description"], "input_schema": one["parameters"]}
    for one in FUNCTIONS
]
OPENAI_TOOLS = [{"type": "function", "strict": False, **one} for one in FUNCTIONS]
STRICT_TOOLS = [one | {"strict": True} for one in OPENAI_TOOLS]


def _message(question: str, **more: Any) -> tuple[str, dict[str, Any]]:
    messages = [{"role": "user", "content": [{"type": "text", "text": question}]}]
    body = {"model": MODEL, "max_tokens": 400, "messages": messages, "temperature": 0, "stream": True}
    return "/v1/messages", body | {"tools": ANTHROPIC_TOOLS} | more


def _response(question: str, **more: Any) -> tuple[str, dict[str, Any]]:
    body = {"model": MODEL, "max_output_tokens": 400, "input": question, "temperature": 0, "stream": True}
    return "/v1/responses", body | {"tools": OPENAI_TOOLS} | more


ASKED = [
    *(_message(question) for question in QUESTIONS),
    _message(QUESTIONS[2], tools=None, stop_sequences=["six"], system="Be short."),
    _message(QUESTIONS[2], max_tokens=30, thinking={"type": "adaptive"}, metadata={"user_id": "x"}),
    *(_response(question) for question in QUESTIONS),
    _response(QUESTIONS[0], tools=STRICT_TOOLS),
    _response(QUESTIONS[2], tools=[], instructions="Be short.", max_output_tokens=30),
    _response(
        QUESTIONS[2],
        input=[
            {"role": "user", "content": "Say hello."},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello."}]},
            {"role": "user", "content": [{"type": "input_text", "text": QUESTIONS[2]}]},
        ],
    ),
]
RECORDED = Path(__file__).parents[1] / "support/recorded"
OF_AGENTS = [
    (f"/v1/{api}", one["body"] | {"model": MODEL} | limit)
    for api, limit in (
        ("messages", {"max_tokens": 100, "thinking": {"type": "adaptive"}}),
        ("responses", {"max_output_tokens": 100}),
    )
    for one in json.loads((RECORDED / f"agents_{api}.json").read_text())
    if "tool_reference" not in str(one)  # this model's template cannot write it
]
"""As Claude Code and Codex ask, with fewer words: this model has no answer to them."""
AS_CHAT: dict[str, Callable[[dict[str, Any]], Any]] = {
    "/v1/messages": lambda body: messages_as_chat(body, "in_place"),
    "/v1/responses": responses_as_chat,
}
CHOSEN_BY_ANYBODY = ("id", "item_id", "call_id", "created_at", "sequence_number", "signature", "obfuscation")
OF_A_RESPONSE = ("object", "status", "output", "incomplete_details", "model", "tools", "instructions")


def told(data: bytes) -> list[Any]:
    """Events; deltas in a row are one, and what may differ between two unbroken answers is left out."""
    made: list[Any] = []
    for event in data.split(b"\n\n"):
        if not event or event.startswith(b":"):
            continue
        value = _plain(orjson.loads(event.partition(b"data: ")[2]))
        delta = value.get("delta")
        text = ""
        if isinstance(delta, str):
            text = value.pop("delta")
        elif isinstance(delta, dict):
            names = delta.keys() & {"text", "thinking", "partial_json"}
            text = "".join(delta.pop(name) for name in names)
        if text and made and made[-1][0] == value:
            made[-1][1] += text
        else:
            made.append([value, text])
    return made


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    if value.get("object") == "response":
        usage = value.get("usage") or {}
        kept = {name: value.get(name) for name in OF_A_RESPONSE}
        value = kept | {"tokens": [usage.get("input_tokens"), usage.get("output_tokens")]}
    return {
        name: _plain(one)
        for name, one in value.items()
        if name not in CHOSEN_BY_ANYBODY and one is not None and not name.endswith("_details")
    }


async def ask(client: httpx.AsyncClient, path: str, body: Mapping[str, Any]) -> bytes:
    answer = await client.post(path, json=dict(body))
    assert answer.status_code == 200, answer.text
    return answer.content


async def rendered(client: httpx.AsyncClient, path: str, body: Mapping[str, Any]) -> Any:
    """What the engine is going to generate from, and how."""
    made = orjson.loads(await ask(client, f"{path}/render", body))
    sampling = {name: value for name, value in made["sampling_params"].items() if value}
    return made["token_ids"], sampling, made["reasoning_parser_kwargs"]


async def broken(fleet: Fleet, path: str, body: Mapping[str, Any], at: int) -> bytes:
    """Its site ends it behind so many bytes."""
    struck: list[int] = []

    def once(said: bytes) -> int | None:
        if struck or len(said) < at:
            return None
        struck.append(at)
        return at

    for site in fleet.sites.values():
        site.rule = once
    data = await ask(fleet.client, path, body)
    for site in fleet.sites.values():
        site.rule = None
        await site.announce()
    assert struck
    return data


async def said_to_be_in_place(port: int) -> None:
    """This model's template takes a system message anywhere."""
    prober = Prober()
    described = await prober.describe(Origin.parse(f"http://127.0.0.1:{port}"), MODEL)
    await prober.aclose()
    assert described.inline_system == "in_place"


async def test_the_engine_makes_the_same_of_both_and_a_break_changes_nothing(tmp_path: Path):
    """The prompt's ids and the sampling; the events; and these with the site gone in the middle."""
    setting = EngineSetting(command=os.environ["HERON_VLLM_COMMAND"])
    async with running(tmp_path, parsed.setting_for(setting)) as fleet:
        port = next(iter(fleet.engines.values())).port
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=180) as engine:
            await said_to_be_in_place(port)
            for path, body in OF_AGENTS:
                made = AS_CHAT[path](body)
                assert made is not None, body
                native = await rendered(engine, path, body)
                assert await rendered(engine, "/v1/chat/completions", made.fields) == native, body
            for number, (path, body) in enumerate(ASKED):
                made = AS_CHAT[path](body)
                assert made is not None, body
                native = await rendered(engine, path, body)
                assert await rendered(engine, "/v1/chat/completions", made.fields) == native, body
                whole = await ask(fleet.client, path, body)
                assert told(whole) == told(await ask(engine, path, body)), body
                said = await ask(engine, "/v1/chat/completions", made.fields | {"return_token_ids": True})
                if "stop_sequences" in body:  # no chat with reasoning and stop strings goes on
                    continue
                cut = len(said) * (2 + number % 4) // 7
                assert told(await broken(fleet, path, body, cut)) == told(whole), body
        assert sum((await fleet.resumes()).values()) >= len(ASKED) - 2
