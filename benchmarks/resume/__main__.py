"""How well streams go on, on real vLLM: cut at random bytes, or their engine killed.

HERON_VLLM_COMMAND="$(scripts/vllm-env)" .venv/bin/python -m benchmarks.resume
    180 cuts and 20 kills of greedy streams: the issue's figure (goal: 99 % the same)
  … -m benchmarks.resume --cuts 0 --kills 0 --stop 12 --faithful 12 --text 12
    other kinds, each counted apart
  … -m benchmarks.resume --cuts 0 --kills 0 --parsed 30
    streams with reasoning and tool calls, by a model that has learnt to (made in a minute, once)
HERON_VLLM_COMMAND=vllm … -m benchmarks.resume --gpus 0 --engine-arguments "--gpu-memory-utilization 0.3"
    both engines on GPU 0 (--gpus 0,1: each on its own)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.resume import campaign, parsed
from benchmarks.resume.campaign import KINDS_OF, Group, Result
from benchmarks.resume.fleet import EngineSetting

GOAL_RATIO = 0.99
JUDGED: tuple[tuple[tuple[Group, ...], float], ...] = (
    (("exact", "killed"), GOAL_RATIO),
    (("stop",), GOAL_RATIO),
    (("faithful",), 1.0),
    (("text",), 1.0),
    (("parsed",), GOAL_RATIO),
)
"""Groups that are judged together, and which part of their answers must be as they must be."""


def main() -> int:
    """Exit 0 when the goals are reached."""
    parser = _parser()
    options = parser.parse_args()
    command = os.environ.get("HERON_VLLM_COMMAND")
    if not command:
        parser.error('HERON_VLLM_COMMAND is not set: HERON_VLLM_COMMAND="$(scripts/vllm-env)"')
    found = shutil.which(command)
    if found is None:
        parser.error(f"HERON_VLLM_COMMAND={command!r}: there is no such command")
    setting = EngineSetting(
        command=found,
        model=options.model,
        arguments=tuple(shlex.split(options.engine_arguments)),
        gpus=tuple(options.gpus.split(",")) if options.gpus else (),
    )
    counts: dict[Group, int] = {
        "exact": options.cuts,
        "killed": options.kills,
        "stop": options.stop,
        "faithful": options.faithful,
        "text": options.text,
    }
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="heron-resume-") as directory:
        results = asyncio.run(_run(Path(directory), setting, counts, options))
    print("\n" + "\n".join(table(results)))
    print(f"\n{time.monotonic() - began:.0f} s")
    if options.json is not None:
        rows = [asdict(one) for one in results]
        options.json.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    missed = misses(results)
    print("\n".join(missed) if missed else "as it must be")
    return 1 if missed or not results else 0


async def _run(
    directory: Path, setting: EngineSetting, counts: dict[Group, int], options: argparse.Namespace
) -> list[Result]:
    results = []
    if any(counts.values()):
        results += await campaign.run(directory, setting, counts, seed=options.seed, report=_show)
    if options.parsed:
        results += await parsed.run(directory, setting, options.parsed, seed=options.seed, report=_show)
    return results


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, default, text in (
        ("cuts", 180, "greedy streams cut at four kinds of places"),
        ("kills", 20, "greedy streams whose engine is killed; each takes half a minute on a CPU"),
        ("stop", 0, "greedy streams with a stop string, cut before, inside and after it"),
        ("faithful", 0, "streams with a seed or penalties, which cannot go on word for word"),
        ("text", 0, "greedy streams of engines without token ids"),
        ("parsed", 0, "greedy streams with reasoning and tool calls"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default {default})")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write every result there")
    parser.add_argument("--model", type=Path, help="a model's directory (default: a tiny random Llama)")
    parser.add_argument(
        "--engine-arguments", default="", help="more arguments of `vllm serve`, in one string; they win"
    )
    parser.add_argument("--gpus", default="", help="GPU of each engine: 0 (both share it) or 0,1")
    return parser


def table(results: list[Result]) -> list[str]:
    """A row for each kind, and a sum for those that must be exact by the issue's figure."""
    lines = [
        "| cut | tries | as it must be | the same text | by ids | by text | by parsers | no site asked |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for group, kinds in {**KINDS_OF, "parsed": parsed.KINDS}.items():
        for kind in kinds:
            lines += _row(kind, [one for one in results if (one.group, one.kind) == (group, kind)])
        if group == "killed":
            lines += _row("all of these", [one for one in results if one.group in ("exact", "killed")])
    return lines


def _row(name: str, results: list[Result]) -> list[str]:
    if not results:
        return []
    right = sum(not one.difference for one in results)
    same = sum(one.is_same_text for one in results)
    ways = [sum(way in one.methods.split() for one in results) for way in ("ids", "text", "parsed", "none")]
    return [f"| {name} | {len(results)} | {right} | {same} | {' | '.join(map(str, ways))} |"]


def misses(results: list[Result]) -> list[str]:
    """What is below its goal, in words."""
    missed = []
    for groups, goal in JUDGED:
        these = [one for one in results if one.group in groups]
        right = sum(not one.difference for one in these)
        if these and right < goal * len(these):
            missed.append(f"{' and '.join(groups)}: {right / len(these):.1%} as it must be, goal {goal:.0%}")
    return missed


def _show(result: Result) -> None:
    print("." if not result.difference else f"\n{result.kind}, {result.path}: {result.difference}", end="")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
