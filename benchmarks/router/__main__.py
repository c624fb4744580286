"""Heron's router beside its peers: requests/s, CPU, added latency, memory.

    .venv/bin/python -m benchmarks.router

Writes RESULTS.md and results.json beside itself, unless --quick or --only makes it a look and no campaign.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.router import arguments, measure
from benchmarks.router.heron import HERON, HERON_COMPILED
from benchmarks.router.load import LoadError
from benchmarks.router.measure import NotReadyError, Setting
from benchmarks.router.peers import PEERS, Peer
from benchmarks.router.process import run_command
from benchmarks.router.programs import MissingError
from benchmarks.router.report import command_line, machine, section, today, write_json, write_section
from benchmarks.router.site_ingress import SITE_INGRESS
from benchmarks.router.span_sink import HERON_SPANS, HERON_SPANS_SAMPLED
from benchmarks.router.table import Row, Sample, row, table

ALL = (*PEERS, HERON, HERON_COMPILED, HERON_SPANS, HERON_SPANS_SAMPLED, SITE_INGRESS)
DIRECT = "direct"
QUICK_SECONDS = 1.5


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 when every row asked for was measured without a wrong answer."""
    options = _options(argv)
    seconds = min(options.seconds, QUICK_SECONDS) if options.quick else options.seconds
    rounds = 1 if options.quick else options.rounds
    setting = arguments.setting(options, seconds=seconds)
    peers = [peer for peer in ALL if not options.only or peer.name in options.only]
    rows, skipped = _campaign(peers, setting, rounds)
    text = table(rows)
    print(f"\n{text}")
    for name, why in skipped.items():
        print(f"\nNOT MEASURED: {name}: {why.splitlines()[0]}", file=sys.stderr)
    document = {
        "date": today(),
        "machine": machine(),
        "command": command_line(),
        "seconds": seconds,
        "rounds": rounds,
        "auth": options.auth,
        "load_average": os.getloadavg(),
        "rows": [one.as_json() for one in rows],
        "not_measured": skipped,
    }
    is_campaign = not (options.quick or options.only or options.dry)
    if options.json is not None:
        options.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    if is_campaign:
        write_json(document)
        write_section("compare", section(document, rows, text))
    return 1 if skipped or any(one.errors for one in rows) else 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = arguments.parser("benchmarks.router", __doc__, seconds=4.0)
    known = ", ".join(peer.name for peer in ALL)
    parser.add_argument(
        "--only", metavar="NAME,NAME", type=arguments.names, help=f"of {known}; writes no results"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of all proxies in turn (default 3)")
    parser.add_argument("--quick", action="store_true", help="one round of 1.5 s; writes no results")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there")
    options = parser.parse_args(argv)
    unknown = set(options.only or ()) - {peer.name for peer in ALL} - {DIRECT}
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are direct, {known}")
    return options


def _campaign(peers: Sequence[Peer], setting: Setting, rounds: int) -> tuple[list[Row], dict[str, str]]:
    samples: dict[str, list[Sample]] = {DIRECT: [], **{peer.name: [] for peer in peers}}
    skipped: dict[str, str] = {}
    began = time.monotonic()
    with measure.upstream(setting) as ports:
        for turn in range(rounds):
            samples[DIRECT].append(measure.direct(setting, ports))
            _say(turn, began, DIRECT, samples[DIRECT][-1])
            for peer in peers:
                if peer.name in skipped:
                    continue
                try:
                    samples[peer.name].append(measure.one(peer, setting, ports))
                except (MissingError, NotReadyError, LoadError) as error:
                    skipped[peer.name] = str(error)
                    print(f"{peer.name}: {error}", file=sys.stderr)
                else:
                    _say(turn, began, peer.name, samples[peer.name][-1])
    versions = {peer.name: peer.version for peer in peers}
    rows = [
        row(name, versions[name]() if name in versions else "benchmarks/router/native", of)
        for name, of in samples.items()
        if of
    ]
    return rows, skipped


def _say(turn: int, began: float, name: str, sample: Sample) -> None:
    row_now = row(name, "", [sample])
    print(
        f"round {turn + 1}, {time.monotonic() - began:4.0f} s: {table([row_now]).splitlines()[2]}", flush=True
    )
    if sample.errors:
        print(f"  {sample.errors} wrong answers: {sample.first_error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_command(main))
