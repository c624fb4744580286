"""Conversations of several turns over one shared prefix, and what engines say of their prefix caches."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

WORDS = (
    "wind",
    "heron",
    "blade",
    "tower",
    "cable",
    "grid",
    "storm",
    "calm",
    "north",
    "coast",
    "import",
    "class",
)
Ask = Callable[[list[dict[str, str]]], Awaitable[str]]
"""Sends the messages so far; the answer's text."""


def prompt(words: int, seed: int) -> str:
    """So many words; other ones for another seed."""
    return " ".join(random.Random(seed).choices(WORDS, k=words))


async def talk(
    ask: Ask, *, conversations: int, turns: int, clients: int, shared_words: int, own_words: int, seed: int
) -> None:
    """`clients` at once, each one conversation after the other, each turn after the answer to the last."""
    system = {"role": "system", "content": prompt(shared_words, seed)}
    waiting = list(range(conversations))

    async def client() -> None:
        while waiting:
            number = waiting.pop()
            messages = [system]
            for turn in range(turns):
                own = prompt(own_words, hash((seed, number, turn)))
                messages = [*messages, {"role": "user", "content": own}]
                messages = [*messages, {"role": "assistant", "content": await ask(messages)}]

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())


def cache_counters(pages: Sequence[str]) -> tuple[float, float]:
    """Tokens looked for and tokens found, summed over engines' `/metrics` pages."""
    sums = {"vllm:prefix_cache_queries_total": 0.0, "vllm:prefix_cache_hits_total": 0.0}
    for page in pages:
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name in sums:
                    sums[sample.name] += sample.value
    return sums["vllm:prefix_cache_queries_total"], sums["vllm:prefix_cache_hits_total"]


def requests_at_work(page: str) -> float:
    """Running and waiting in one engine, by its `/metrics` page."""
    names = ("vllm:num_requests_running", "vllm:num_requests_waiting")
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name in names
    )


def body_of(model: str, messages: list[dict[str, str]], max_tokens: int) -> dict[str, Any]:
    """A chat request's body."""
    return {"model": model, "messages": messages, "max_tokens": max_tokens}
