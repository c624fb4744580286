"""`python -m benchmarks.agreement.record OUT.jsonl`: records a short live run for tests/golden/simulator."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "recording"
SECONDS, RATE = 6, 15


def main() -> None:
    """`heron demo`, with a router that notes what it hears and decides."""
    out = Path(sys.argv[1]).resolve()
    root = FOLDER.parents[2]
    environment = os.environ | {
        "HERON_RECORD": str(out),
        "PYTHONPATH": os.pathsep.join([str(FOLDER), str(root)]),
    }
    words = [
        "demo",
        "--headless",
        "--scenario",
        "sudden-drop",
        "--seconds",
        str(SECONDS),
        "--rate",
        str(RATE),
    ]
    subprocess.run([sys.executable, "-m", "cli.main", *words], check=True, env=environment)
    print(f"{len(out.read_text().splitlines())} events: {out}")


if __name__ == "__main__":
    main()
