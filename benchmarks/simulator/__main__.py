"""`python -m benchmarks.simulator`: simulated requests per second of one core, by number of sites and policy.

No file is needed: synthetic wind and load, at half the cluster's peak, in one process. Memory is its peak.
Bars: 5,000 requests/s at 5 sites with the default policy; 20,000 the goal.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from router.policy.policies import DEFAULT_POLICY
from simulator.cell import Cell, Sample
from simulator.run import run_cell

RESULTS = Path(__file__).parent / "results.json"
BAR, GOAL = 5_000, 20_000


def no_file(name: str) -> Path:
    """Nothing here reads a file."""
    raise FileNotFoundError(name)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulator", description=__doc__)
    parser.add_argument("--sites", type=int, action="append", help="may be repeated (default 5 and 20)")
    parser.add_argument("--policy", action="append", help=f"may be repeated (default {DEFAULT_POLICY})")
    arguments = parser.parse_args()
    rows = []
    for policy in arguments.policy or [DEFAULT_POLICY]:
        for sites in arguments.sites or [5, 20]:
            cell = Cell(
                wind="synthetic-far",
                first_day=1,
                last_day=1,
                trace="synthetic-conv",
                sample=Sample.parse("8h:20m:5m"),
                load=0.5,
                policy=policy,
                site_count=sites,
            )
            cost = run_cell(cell, no_file)["cost"]
            rows.append({"policy": policy, "sites": sites, **cost})
            print(
                f"{policy}, {sites} sites: {cost['requests_per_cpu_second']} requests per second of one "
                f"core, {cost['peak_memory_bytes'] / 2**20:.0f} MiB (bar {BAR}, goal {GOAL}, at 5 sites)"
            )
    RESULTS.write_text(json.dumps({"load_average": os.getloadavg()[0], "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
