"""Conversations of several turns over one shared prefix, against any of several routers.

Closed loop: so many clients at once, each one conversation after the other, each turn after the answer to the
last, as people's clients do. Every conversation has words of its own after the shared prefix; a run's prefix
is its own too, so that runs on the same engines find nothing of each other.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

MODEL = "tiny"
WORDS = (
    *("wind", "heron", "class", "import", "the", "value", "of", "None", "object", "method", "return"),
    *("string", "module", "function", "list", "if", "name", "is", "an", "attribute", "statement"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How much is said."""

    conversations: int = 16
    turns: int = 8
    clients: int = 8
    shared_tokens: int = 2000
    own_words: int = 120
    """Of each question, a token or two each."""
    answer_tokens: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One request as its client saw it; seconds on one clock."""

    site: str
    began_at: float
    ended_at: float
    ttft_seconds: float


@dataclass(slots=True)
class Replay:
    """One run."""

    clients: Sequence[httpx.AsyncClient]
    """One per router; each request takes one of them at random."""
    shape: Shape
    seed: int
    turns: list[Turn] = field(default_factory=list)

    async def run(self, shared: str) -> None:
        """Until every conversation is over; the turns are in `turns`."""
        waiting = list(range(self.shape.conversations))

        async def client() -> None:
            while waiting:
                await self._talk(shared, random.Random(self.seed * 1000 + waiting.pop()))

        async with asyncio.TaskGroup() as group:
            for _ in range(self.shape.clients):
                group.create_task(client())

    async def _talk(self, shared: str, rng: random.Random) -> None:
        messages = [{"role": "system", "content": shared}]
        for _ in range(self.shape.turns):
            own = " ".join(rng.choices(WORDS, k=self.shape.own_words))
            messages = [*messages, {"role": "user", "content": own}]
            answer = await self._ask(messages, rng)
            messages = [*messages, {"role": "assistant", "content": answer}]

    async def _ask(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        body = {
            "model": MODEL,
            "messages": messages,
            "max_tokens": self.shape.answer_tokens,
            "ignore_eos": True,
            "temperature": 0,
            "repetition_penalty": 1.3,
            "stream": True,
        }
        client = rng.choice(self.clients)
        began_at = time.monotonic()
        first_at: float | None = None
        text = ""
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != 200:
                raise RuntimeError(f"status {response.status_code}: {(await response.aread())[:300]!r}")
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                for choice in json.loads(line[6:])["choices"]:
                    piece = choice["delta"].get("content") or ""
                    if piece and first_at is None:
                        first_at = time.monotonic()
                    text += piece
        ended_at = time.monotonic()
        self.turns.append(
            Turn(
                site=response.headers["x-heron-site"],
                began_at=began_at,
                ended_at=ended_at,
                ttft_seconds=(ended_at if first_at is None else first_at) - began_at,
            )
        )
        return text

    def requests_by_site(self) -> dict[str, int]:
        """How many each site answered."""
        counts: dict[str, int] = defaultdict(int)
        for turn in self.turns:
            counts[turn.site] += 1
        return dict(counts)

    def mean_in_flight_by_site(self) -> dict[str, float]:
        """Requests under way at each site, averaged over the run."""
        seconds: dict[str, float] = defaultdict(float)
        for turn in self.turns:
            seconds[turn.site] += turn.ended_at - turn.began_at
        length = max(turn.ended_at for turn in self.turns) - min(turn.began_at for turn in self.turns)
        return {site: total / length for site, total in seconds.items()}


def highest_to_mean(load: dict[str, float] | dict[str, int], sites: int) -> float:
    """The most loaded site's part, 1.0 being the mean over all `sites`."""
    return max(load.values()) * sites / sum(load.values())


def quantile(values: Sequence[float], ratio: float) -> float:
    """The value that `ratio` of them do not exceed."""
    return sorted(values)[min(len(values) - 1, int(ratio * len(values)))]
