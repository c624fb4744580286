"""`python -m benchmarks.agreement`: the same requests through `heron demo`'s live fleet and the simulator.

Live: three sites of three emulated engines behind real HTTP, in wind that is enough for all of them. The
simulator gets the very same schedule, sites of the same kind, and the round trip of this machine. Bars: TTFT
and E2E p50 within 10 %, p99 within 20 %; on a machine that does little else.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from cli.demo_config import INSTANCES, MAX_CONCURRENCY, POWER_MODEL, PROFILE, SITES
from cli.demo_inputs import LOADS
from replay.load import open_load
from replay.schedule import ScheduleRule
from replay.synthetic import SyntheticSpec
from simulator.settings import RouterSettings, SiteSettings, Telemetry
from simulator.workload import Arrivals
from simulator.world import MAX_DRAIN_SECONDS, TAIL_SECONDS, Scene, simulate

RESULTS = Path(__file__).parent / "results.json"
WARM_UP_SECONDS = 20
ROUND_TRIP_SECONDS = 0.002
"""Router to site and back on one machine, with the agent's hop (FACTS.md: some 0.2 ms each of four)."""
BARS = {"p50": 0.10, "p99": 0.20}


def schedule_of(seconds: float, rate: float, seed: int) -> Arrivals:
    """What `heron demo --seconds … --rate … --seed …` sends, after the simulator's warm-up."""
    shape = LOADS["emulated"]
    spec = SyntheticSpec(
        requests_per_second=rate,
        arrivals="poisson",
        mean_prompt_tokens=shape.mean_prompt_tokens,
        mean_output_tokens=shape.mean_output_tokens,
        max_output_tokens=shape.max_output_tokens,
    )
    rule = ScheduleRule(max_seconds=seconds, max_total_tokens=shape.max_model_len)
    with open_load(spec, rule, seed=seed) as load:
        rows = [(one.due_seconds, one.prompt_tokens, one.output_tokens) for one in load.requests]
    at, prompts, outputs = zip(*rows, strict=True)
    return Arrivals(
        at_seconds=np.array(at) + WARM_UP_SECONDS,
        prompt_tokens=np.array(prompts),
        output_tokens=np.array(outputs),
    )


def simulated(seconds: int, rate: float, seed: int) -> dict[str, dict[str, float]]:
    """Quantiles by the simulator."""
    sites = tuple(
        SiteSettings(
            site_id=name,
            wind=name,
            round_trip_seconds=ROUND_TRIP_SECONDS,
            instances=INSTANCES["emulated"],
            profile_id=PROFILE.profile_id,
            other_profile_ids=(),
            max_concurrency=MAX_CONCURRENCY,
            start_seconds=2.0,
            overhead_ratio=POWER_MODEL.overhead_ratio,
            host_idle_watts=POWER_MODEL.host_idle_watts,
            has_server_switch=False,
        )
        for name in SITES["emulated"]
    )
    end = WARM_UP_SECONDS + seconds
    total = end + TAIL_SECONDS + MAX_DRAIN_SECONDS + 1
    nameplate = 30_000.0
    block = simulate(
        Scene(
            sites=sites,
            router=RouterSettings(),
            telemetry=Telemetry(),
            watts={site.site_id: np.full(total, nameplate) for site in sites},
            nameplate_watts={site.site_id: nameplate for site in sites},
            arrivals=schedule_of(seconds, rate, seed),
            warm_up_seconds=WARM_UP_SECONDS,
            seconds=end,
            seed=str(seed),
        )
    )
    record = block.record
    return {
        "ttft_seconds": _quantiles(record.ttft_seconds),
        "e2e_seconds": _quantiles(record.e2e_seconds),
    }


def _quantiles(values: Any) -> dict[str, float]:
    return {name: float(np.quantile(values, level)) for name, level in (("p50", 0.5), ("p99", 0.99))}


def live(seconds: int, rate: float, seed: int) -> dict[str, dict[str, float]]:
    """Quantiles of the live fleet."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo.json"
        words = ["demo", "--headless", "--scenario", "calm", "--seconds", str(seconds), "--rate", str(rate)]
        subprocess.run(
            [sys.executable, "-m", "cli.main", *words, "--seed", str(seed), "--json", str(out)], check=True
        )
        found = json.loads(out.read_text())
    return {kind: found[kind] for kind in ("ttft_seconds", "e2e_seconds")}


def main() -> None:
    """Run both, compare, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agreement", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--rate", type=float, action="append", help="requests/s; may be repeated")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rows = []
    for rate in arguments.rate or [20.0, 40.0]:
        ours = simulated(arguments.seconds, rate, arguments.seed)
        theirs = live(arguments.seconds, rate, arguments.seed)
        for kind, quantiles in theirs.items():
            for name, bar in BARS.items():
                off = ours[kind][name] / quantiles[name] - 1
                rows.append(
                    {
                        "rate": rate,
                        "figure": f"{kind} {name}",
                        "live": quantiles[name],
                        "simulated": ours[kind][name],
                        "off_ratio": off,
                        "bar_ratio": bar,
                        "is_met": abs(off) <= bar,
                    }
                )
                print(
                    f"{rate:g}/s {kind} {name}: live {quantiles[name]:.4f} s, simulated "
                    f"{ours[kind][name]:.4f} s, {off:+.1%} (bar ±{bar:.0%})"
                )
    load = os.getloadavg()[0]
    head = {"seconds": arguments.seconds, "seed": arguments.seed, "load_average": load, "rows": rows}
    RESULTS.write_text(json.dumps(head, indent=1) + "\n")
    sys.exit(0 if all(row["is_met"] for row in rows) else 1)


if __name__ == "__main__":
    main()
