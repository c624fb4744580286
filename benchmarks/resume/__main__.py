"""How exact resume is on real vLLM.

HERON_VLLM_COMMAND="$(scripts/vllm-env)" .venv/bin/python -m benchmarks.resume
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.resume import campaign
from benchmarks.resume.campaign import Result
from benchmarks.resume.cases import KINDS

GOAL_RATIO = 0.99


def main() -> int:
    """Exit 0 when the goal is reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=180)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write every result there")
    options = parser.parse_args()
    command = os.environ.get("HERON_VLLM_COMMAND")
    if not command:
        parser.error('HERON_VLLM_COMMAND is not set: HERON_VLLM_COMMAND="$(scripts/vllm-env)"')
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="heron-resume-") as directory:
        results = asyncio.run(
            campaign.run(
                Path(directory),
                command,
                cuts=options.cuts,
                kills=options.kills,
                seed=options.seed,
                report=_show,
            )
        )
    exact = sum(not one.difference for one in results)
    print("\n| cut | tries | same | resumed on another site |\n|---|---|---|---|")
    for kind in (*KINDS, "engine killed"):
        these = [one for one in results if one.kind == kind]
        same = sum(not one.difference for one in these)
        print(f"| {kind} | {len(these)} | {same} | {sum(one.resumed > 0 for one in these)} |")
    print(f"| all | {len(results)} | {exact} | {sum(one.resumed > 0 for one in results)} |")
    share = exact / max(1, len(results))
    print(f"\n{share:.1%} the same, goal {GOAL_RATIO:.0%}; {time.monotonic() - began:.0f} s")
    if options.json is not None:
        rows = [
            {"kind": one.kind, "path": one.path, "resumed": one.resumed, "difference": one.difference}
            for one in results
        ]
        options.json.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    return 0 if results and exact >= GOAL_RATIO * len(results) else 1


def _show(result: Result) -> None:
    print("." if not result.difference else f"\n{result.kind}, {result.path}: {result.difference}", end="")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
