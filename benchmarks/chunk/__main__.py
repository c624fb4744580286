"""`python -m benchmarks.chunk`: what one chunk of a chat's stream costs inside the router, sockets left out.

Beside each row its ratio to `orjson.loads` of the same chunk, which tells more than microseconds of a noisy
machine. The scanner looks for ids and cuts them out; an outlet makes the chunk another API's.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from router.policy.body import Api
from router.policy.messages_outlet import MessagesOutlet
from router.policy.responses_outlet import ResponsesOutlet
from router.policy.stream_scan import ChatStreamScanner

FOLDER = Path(__file__).parent
CHUNKS, ROUNDS = 20_000, 7


def chunk(delta: dict[str, Any], *, ids: list[int] | None, prompt_ids: list[int] | None = None) -> bytes:
    """As vLLM writes it."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, "token_ids": ids}
    value: dict[str, Any] = {"id": "chatcmpl-859e4f1101c60e79", "object": "chat.completion.chunk"}
    value |= {"created": 1_795_000_000, "model": "llama-3.1-70b", "choices": [choice]}
    if prompt_ids is not None:
        value["prompt_token_ids"] = prompt_ids
    return b"data: " + orjson.dumps(value) + b"\n\n"


def streams(field: str) -> tuple[list[bytes], list[bytes]]:
    """With ids, as a site sends them, and without, as an outlet gets them."""
    role = {"role": "assistant", "content": ""}
    sent = [chunk(role, ids=None, prompt_ids=[1, 2, 3])]
    plain = [chunk(role, ids=None)]
    for number in range(CHUNKS):
        delta = {field: f" word{number % 97}"}
        sent.append(chunk(delta, ids=[number]))
        plain.append(chunk(delta, ids=None).replace(b',"token_ids":null', b""))
    return sent, plain


def seconds(feed: Callable[[bytes], object], events: list[bytes]) -> float:
    """CPU, of one chunk."""
    began = time.process_time()
    for event in events:
        feed(event)
    return (time.process_time() - began) / len(events)


def measured() -> list[dict[str, Any]]:
    """A row per step and kind of chunk; medians over rounds in which all take turns."""
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(ROUNDS):
        for kind, field in (("text", "content"), ("reasoning", "reasoning")):
            sent, plain = streams(field)
            steps: dict[str, tuple[Callable[[bytes], object], list[bytes]]] = {
                "orjson.loads": (lambda event: orjson.loads(event[6:]), plain),
                "scanner": (ChatStreamScanner(Api.CHAT, "ids", cut=True).feed, sent),
                "outlet, Messages": (MessagesOutlet().feed, plain),
                "outlet, Responses": (ResponsesOutlet({"model": "m", "input": "x"}).feed, plain),
            }
            for step, (feed, events) in steps.items():
                found.setdefault((step, kind), []).append(seconds(feed, events))
    rows = []
    for (step, kind), times in found.items():
        ratio = median(one / base for one, base in zip(times, found["orjson.loads", kind], strict=True))
        rows.append({"step": step, "chunk": kind, "microseconds": 1e6 * median(times), "ratio": ratio})
    return rows


def main() -> None:
    """Print the table; write it and results.json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chunk", description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, help="where results go (benchmarks/chunk)")
    arguments = parser.parse_args()
    rows = measured()
    lines = ["| step | chunk | µs | × `orjson.loads` |", "|---|---|---|---|"]
    lines += [
        f"| {one['step']} | {one['chunk']} | {one['microseconds']:.1f} | {one['ratio']:.1f} |" for one in rows
    ]
    table = "\n".join(lines)
    print(table)
    arguments.out.mkdir(parents=True, exist_ok=True)
    said = (
        "`python -m benchmarks.chunk`: CPU of one chunk inside the router, sockets left out; medians of "
        f"{ROUNDS} rounds of {CHUNKS:,} chunks. A stream of `/v1/messages` or `/v1/responses` that is asked "
        "for as a chat passes the scanner, then its outlet; any other the scanner alone."
    )
    (arguments.out / "RESULTS.md").write_text(f"# What a chunk costs\n\n{said}\n\n{table}\n")
    (arguments.out / "results.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
