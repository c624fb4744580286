"""What affinity keeps of the prefix-cache hit rate, on real vLLM's own counters.

HERON_VLLM_COMMAND="$(scripts/vllm-env)" .venv/bin/python -m benchmarks.affinity
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.affinity.fleet import SITES, Fleet, running
from benchmarks.affinity.replay import WORDS, Replay, Shape, highest_to_mean, quantile

GOAL_HIT_RATIO = 0.9
"""Of the single instance's hit rate."""
GOAL_LOAD_RATIO = 1.25
"""The most loaded site against the mean."""
ONE, TWO, REPLICAS, PLAIN = (
    "one instance",
    "two sites, affinity",
    "two sites, affinity, two routers in turn",
    "two sites, no affinity",
)
RUNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    ONE: (("affinity",), SITES[:1]),
    TWO: (("affinity",), SITES),
    REPLICAS: (("affinity", "affinity too"), SITES),
    PLAIN: (("plain",), SITES),
}
"""Name → routers, sites."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One run of the table."""

    name: str
    requests: int
    prompt_tokens: int
    hit_rate: float
    hit_rate_beyond_prefix: float
    """Of the tokens that follow the shared prefix."""
    requests_highest_to_mean: float
    in_flight_highest_to_mean: float
    ttft_seconds_p50: float
    ttft_seconds_p99: float
    seconds: float
    decisions: dict[str, float]


async def measure(fleet: Fleet, name: str, shape: Shape, seed: int) -> Row:
    """One run, on a prefix of its own."""
    routers, sites = RUNS[name]
    await fleet.serve_with(*sites)
    shared = await shared_prefix(fleet, shape.shared_tokens, random.Random(seed))
    replay = Replay(clients=[fleet.routers[router] for router in routers], shape=shape, seed=seed)
    before = await fleet.counters()
    decided = [await fleet.decisions(router) for router in routers]
    began = time.monotonic()
    await replay.run(shared)
    seconds = time.monotonic() - began
    after = await fleet.counters()
    queries, hits = after[0] - before[0], after[1] - before[1]
    in_prefix = len(replay.turns) * shape.shared_tokens
    decisions: dict[str, float] = {}
    for router, earlier in zip(routers, decided, strict=True):
        for result, count in (await fleet.decisions(router)).items():
            decisions[result] = decisions.get(result, 0) + count - earlier.get(result, 0)
    ttft = [turn.ttft_seconds for turn in replay.turns]
    return Row(
        name=name,
        requests=len(replay.turns),
        prompt_tokens=int(queries),
        hit_rate=hits / queries,
        hit_rate_beyond_prefix=(hits - in_prefix) / (queries - in_prefix),
        requests_highest_to_mean=highest_to_mean(replay.requests_by_site(), len(sites)),
        in_flight_highest_to_mean=highest_to_mean(replay.mean_in_flight_by_site(), len(sites)),
        ttft_seconds_p50=quantile(ttft, 0.5),
        ttft_seconds_p99=quantile(ttft, 0.99),
        seconds=seconds,
        decisions=decisions,
    )


async def shared_prefix(fleet: Fleet, tokens: int, rng: random.Random) -> str:
    """A text of this many tokens, or one or two more; no two runs share its beginning."""
    text = f"{rng.getrandbits(64):x} " + " ".join(rng.choices(WORDS, k=tokens // 2))
    while (have := await fleet.count_tokens(text)) < tokens:
        text += " " + " ".join(rng.choices(WORDS, k=max(1, (tokens - have) // 4)))
    return text


async def benchmark(directory: Path, command: str, shape: Shape, seed: int) -> list[Row]:
    """All runs; the first, on both engines, only warms them up."""
    async with running(directory, command) as fleet:
        await measure(fleet, PLAIN, replace(shape, conversations=shape.clients, turns=2), seed * 100)
        rows = []
        for number, name in enumerate(RUNS):
            rows.append(await measure(fleet, name, shape, seed * 100 + 1 + number))
            print(f"{name}: hit rate {rows[-1].hit_rate:.3f}, {rows[-1].seconds:.0f} s", flush=True)
        return rows


def table(rows: list[Row]) -> str:
    """As in RESULTS.md."""
    single = rows[0].hit_rate
    head = (
        *("", "hit rate", "of one instance's", "beyond the prefix", "requests, highest ÷ mean"),
        *("in flight, highest ÷ mean", "TTFT p50 ms", "p99 ms", "hit / miss / overridden"),
    )
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        counts = [row.decisions.get(each, 0) for each in ("hit", "miss", "overridden")]
        decisions = " / ".join(f"{count:.0f}" for count in counts) if any(counts) else "–"
        cells = (
            row.name,
            f"{row.hit_rate:.3f}",
            f"{row.hit_rate / single:.3f}",
            f"{row.hit_rate_beyond_prefix:.3f}",
            f"{row.requests_highest_to_mean:.2f}",
            f"{row.in_flight_highest_to_mean:.2f}",
            f"{row.ttft_seconds_p50 * 1000:.0f}",
            f"{row.ttft_seconds_p99 * 1000:.0f}",
            decisions,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Exit 0 when the goal is reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    usual = Shape()
    parser.add_argument("--conversations", type=int, default=usual.conversations)
    parser.add_argument("--turns", type=int, default=usual.turns)
    parser.add_argument("--clients", type=int, default=usual.clients)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write every row there")
    options = parser.parse_args()
    command = os.environ.get("HERON_VLLM_COMMAND")
    if not command:
        parser.error('HERON_VLLM_COMMAND is not set: HERON_VLLM_COMMAND="$(scripts/vllm-env)"')
    shape = Shape(conversations=options.conversations, turns=options.turns, clients=options.clients)
    with tempfile.TemporaryDirectory(prefix="heron-affinity-") as directory:
        rows = asyncio.run(benchmark(Path(directory), command, shape, options.seed))
    print(f"\n{table(rows)}")
    if options.json is not None:
        page = {"shape": asdict(shape), "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(page, indent=1) + "\n")
    one, two = rows[0], rows[1]
    load = max(two.requests_highest_to_mean, two.in_flight_highest_to_mean)
    ratio = two.hit_rate / one.hit_rate
    print(f"\n{ratio:.1%} of one instance's hit rate, goal {GOAL_HIT_RATIO:.0%};", end=" ")
    print(f"load {load:.2f} of the mean, goal {GOAL_LOAD_RATIO}")
    return 0 if ratio >= GOAL_HIT_RATIO and load <= GOAL_LOAD_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
