"""µs of processor time to write, read and believe a record, without a signature and with one:

.venv/bin/python -m benchmarks.signing [--out benchmarks/signing/results.json] [--rounds 7]

Each figure is the best of the rounds: other processes only ever add time. A router reads a report and a
reading of every site once a second, and each report that is published at once on change.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet.records import ForecastPoint, ModelReport, PowerReading, SitePower, SiteReport
from fleet.signing import BELIEVES_ALL, RecordSigner, RecordTrust
from fleet.wire import Record

NOW = 1_800_000_000.0
CALLS = 500


def reading() -> PowerReading:
    """As a feed writes it."""
    return PowerReading(
        feed_id="feed-7f3a9c",
        sequence=1_800_000_000_000,
        site_id="north",
        farm_id="north-farm",
        observed_at_unix_seconds=NOW,
        period_seconds=5.0,
        available_power_watts=52_000.0,
        granted_power_watts=20_000.0,
        nameplate_capacity_watts=60_000.0,
        quality="good",
        source="csv:north.csv",
        forecast=tuple(
            ForecastPoint(horizon_seconds=seconds, p10_watts=17e3, p50_watts=20e3, p90_watts=22e3)
            for seconds in (60.0, 300.0, 900.0)
        ),
    )


def report() -> SiteReport:
    """As an agent of one model writes it."""
    model = ModelReport(
        model="llama-3.1-70b",
        ready_instances=2,
        max_concurrency=256,
        running_requests=40,
        waiting_requests=0,
        headroom_requests=90,
        prefill_tokens_per_second=9000.0,
        itl_seconds_p50=0.03,
    )
    return SiteReport(
        agent_id="d1f0",
        sequence=1_800_000_000_000,
        site_id="north",
        observed_at_unix_seconds=NOW,
        ingress_url="http://10.0.0.1:8101",
        state="serving",
        power=SitePower(cap_watts=20e3, draw_watts=15e3, headroom_watts=5e3, quality="good"),
        models=(model,),
    )


def least_microseconds(rounds: int, run: Callable[[], object]) -> float:
    """Per call, in the best of the rounds."""
    best = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(CALLS):
            run()
        best = min(best, (time.process_time() - began) / CALLS)
    return best * 1e6


def measure(record: Record, rounds: int) -> dict[str, float]:
    """Of one record."""
    key = Ed25519PrivateKey.generate()
    plain, signer = RecordSigner(), RecordSigner("default", key)
    public = [key.public_key()]
    trust = RecordTrust(
        "default", keys={"power_feed": public}, site_keys={"north": public}, max_clock_skew_seconds=30.0
    )
    kind, raw, signed = type(record), record.to_json(), signer.to_json(record, unix_now=NOW)
    calls: dict[str, Callable[[], object]] = {
        "write": lambda: plain.to_json(record, unix_now=NOW),
        "signed_write": lambda: signer.to_json(record, unix_now=NOW),
        "read": lambda: BELIEVES_ALL.read(kind, raw, unix_now=NOW),
        "signed_read": lambda: trust.read(kind, signed, unix_now=NOW),
    }
    found = {f"{name}_microseconds": least_microseconds(rounds, call) for name, call in calls.items()}
    return {"bytes": len(raw), "signed_bytes": len(signed), **found}


def main() -> None:
    """Measure, print, and write JSON where that is asked for."""
    parser = argparse.ArgumentParser(prog="benchmarks.signing", description="What signed records cost.")
    parser.add_argument("--out", type=Path, help="write JSON there")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    found = {record.kind: measure(record, arguments.rounds) for record in (reading(), report())}
    print(f"{'':14}{'bytes':>14}{'write, µs':>16}{'read, µs':>16}")
    for kind, row in found.items():
        sizes = f"{row['bytes']} → {row['signed_bytes']}"
        write = f"{row['write_microseconds']:.1f} → {row['signed_write_microseconds']:.1f}"
        read = f"{row['read_microseconds']:.1f} → {row['signed_read_microseconds']:.1f}"
        print(f"{kind:14}{sizes:>14}{write:>16}{read:>16}")
    if arguments.out is not None:
        value = {"python": platform.python_version(), "machine": platform.machine(), "records": found}
        arguments.out.write_text(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    main()
