"""Cuts streams with reasoning and tool calls, as real vLLM's parsers make them of a model that has learnt to.

As `campaign`, but for the model (`talking_model`) and what is asked: one of its conversations, greedily, with
tools, some of them strict, or with a grammar for the answer. The broken stream must be the unbroken one:
reasoning, text, each call's name and arguments, one id each, the same finish and usage.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.resume import talking_model
from benchmarks.resume.campaign import MAX_DRAWS, Result, ask_broken, ask_whole
from benchmarks.resume.cases import PAST_EVENT_BYTES, Case
from benchmarks.resume.cutting_site import CutRule
from benchmarks.resume.fleet import MODEL, EngineSetting, Fleet, running
from site_agent.drivers import tiny_model

STRICT = {"tools": [one | {"function": {**one["function"], "strict": True}} for one in talking_model.TOOLS]}
STRUCTURED = {"tools": None, "structured_outputs": {"regex": r"[\s\S]*"}}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "reasoning": ("reasoning", {}),
    "content": ("content", {}),
    "tool_calls": ("tool_calls", {}),
    "reasoning before strict calls": ("reasoning", STRICT),
    "content before strict calls": ("content", STRICT),
    "reasoning before a structured answer": ("reasoning", STRUCTURED),
}
"""The field of a delta in which a stream is cut, and what is asked for beside."""
MAX_TOKENS = 400
"""More than any of its answers has."""


def setting_for(setting: EngineSetting) -> EngineSetting:
    """The same engines with the model that talks, and what makes them tell what ids mean."""
    model = talking_model.ensure(Path(setting.command), tiny_model.cache_dir(os.environ))
    length = ("--max-model-len", str(talking_model.MAX_POSITIONS))
    arguments = (*talking_model.VLLM_ARGUMENTS, "--enable-scale-out", *length, *setting.arguments)
    return replace(setting, model=model, arguments=arguments, parses_ids=True)


def draw(rng: random.Random, asked: dict[str, Any]) -> Case:
    """One of the conversations."""
    question = rng.choice(talking_model.CONVERSATIONS).question
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": question}],
        "tools": talking_model.TOOLS,
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
    } | asked
    return Case(path="/v1/chat/completions", body=body)


def deltas_in(body: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """(byte behind it, delta) of each event of an answer, each within one chunk of the body."""
    position = 0
    while (start := body.find(b"data: {", position)) >= 0 and (end := body.find(b"\n\n", start)) >= 0:
        position = end + 2
        try:
            choices = json.loads(body[start + 6 : end])["choices"]
        except json.JSONDecodeError:
            continue  # a chunk ended in it
        if choices:
            yield position, choices[0]["delta"]


def rule_for(kind: str, said: bytes, rng: random.Random) -> CutRule | None:
    """A cut near an event that has such output; None where the answer has none."""
    count = sum(bool(delta.get(kind)) for _, delta in deltas_in(said))
    if not count:
        return None
    wanted, past = rng.randrange(count), rng.randrange(PAST_EVENT_BYTES)

    def rule(body: bytes) -> int | None:
        ends = [end for end, delta in deltas_in(body) if delta.get(kind)]
        if len(ends) <= wanted or len(body) < ends[wanted] + past:
            return None
        return ends[wanted] + past

    return rule


async def run_one(fleet: Fleet, kind: str, rng: random.Random) -> Result | None:
    """One cut; None where there was nothing to cut."""
    field, asked = KINDS[kind]
    case = draw(rng, asked)
    whole, said = await ask_whole(fleet, case)
    rule = rule_for(field, said, rng)
    cut = None if rule is None else await ask_broken(fleet, case, rule)
    return cut and cut.result("parsed", kind, case, whole, cut.told.differs_from(whole))


async def run(
    directory: Path,
    setting: EngineSetting,
    count: int,
    *,
    seed: int = 1,
    report: Callable[[Result], None] | None = None,
) -> list[Result]:
    """So many cuts, their kinds in turn; `report` is called with each result.

    Raises:
        RuntimeError: an engine or the router did not start, or ended what was to be cut.
    """
    results: list[Result] = []
    kinds = tuple(KINDS)
    async with running(directory, setting_for(setting)) as fleet:
        for number in range(count):
            for attempt in range(MAX_DRAWS):
                rng = random.Random(seed * 10_000 + number + attempt * 1_000_000)
                result = await run_one(fleet, kinds[number % len(kinds)], rng)
                if result is not None:
                    break
            else:
                raise RuntimeError(f"{MAX_DRAWS} streams in a row ended before they were cut")
            results.append(result)
            if report is not None:
                report(result)
    return results
