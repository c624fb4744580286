"""`python -m benchmarks.agreement.record FOLDER`: records a short live run for tests/golden/simulator.

`live_run.jsonl.gz` is the router's, with an SLO and a planner; `live_site.jsonl.gz` is that of the site whose
power falls.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "recording"
SECONDS, RATE, SLO_FACTOR = 6, 80, 5


def main() -> None:
    """`heron demo`, with a router and a site that note what they hear and decide."""
    folder = Path(sys.argv[1]).resolve()
    out, site = folder / "live_run.jsonl", folder / "live_site.jsonl"
    root = FOLDER.parents[2]
    environment = os.environ | {
        "HERON_RECORD": str(out),
        "HERON_RECORD_SITE": str(site),
        "HERON_ROUTER_PLANNER__ENABLED": "true",
        "HERON_ROUTER_PLANNER__LEARN_SECONDS": "1",
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
        "--slo-factor",
        str(SLO_FACTOR),
    ]
    subprocess.run([sys.executable, "-m", "cli.main", *words], check=True, env=environment)
    for path in (out, site):
        data = path.read_bytes()
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(data, mtime=0))
        path.unlink()
        print(f"{len(data.splitlines())} events: {path}.gz")


if __name__ == "__main__":
    main()
