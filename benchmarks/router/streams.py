"""Ten thousand streams at once through one router process: memory of each, and whether any stalls.

    .venv/bin/python -m benchmarks.router.streams

The router starts with a soft limit of 1,024 open files, as a shell gives it, and must raise that itself.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.router import arguments, load, measure
from benchmarks.router.__main__ import ALL
from benchmarks.router.measure import Setting
from benchmarks.router.process import run_command
from benchmarks.router.report import command_line, machine, today, write_json, write_section

GOAL_KIB = 50
SPARE_FILES = 300
"""Of the router's open files, for what is no stream."""
OPEN_PER_SECOND = 1000
SETTLE_SECONDS = 3.0
SOFT_FILES = 1024
METHOD = f"""They were opened at {OPEN_PER_SECOND:,} a second. Memory: growth of the resident set since
before the first stream, over the streams; the goal is {GOAL_KIB} KiB. The soft limit of open files was
{SOFT_FILES:,} when the proxy was started. `direct` has no proxy: what the load, the upstream and the
machine do to the pace. *Waited for it*: part of the window in which the proxy was ready and something else
ran on its core. Every stream's tokens and `[DONE]` are checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One proxy under so many streams."""

    name: str
    streams: int
    open_streams: int
    """At the end of the window."""
    kib_per_stream: float
    resident_mib: float
    late_ms_p50: float
    late_ms_p99: float
    late_ms_p999: float
    late_ms_max: float
    cpu_us_per_chunk: float
    cpu_ratio: float
    """Of its core."""
    waited_ratio: float
    """Of the window in which it was ready and others had its core."""
    errors: int
    first_error: str


def main() -> int:
    """Exit 0 when nothing was wrong or missing."""
    options = _options()
    count = _possible(options.streams)
    setting = arguments.setting(options)
    period_us = round(options.period * 1e6)
    with measure.upstream(setting, period_us=period_us) as ports:
        rows = [_without_proxy(setting, ports[0], count, period_us)]
        print(_line(rows[0]), flush=True)
        for name in options.only:
            rows.append(_through(name, setting, ports, count, period_us))
            print(_line(rows[-1]), flush=True)
    text = _section(rows, count, options)
    print(f"\n{text}")
    if not options.dry:
        document = {"date": today(), "machine": machine(), "command": command_line()}
        write_json({"streams": {**document, "rows": [asdict(row) for row in rows]}})
        write_section("streams", text)
    return 1 if any(row.errors for row in rows) else 0


def _options() -> argparse.Namespace:
    parser = arguments.parser("benchmarks.router.streams", __doc__, seconds=20.0)
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--period", type=float, default=1.0, help="seconds between two chunks (default 1)")
    parser.add_argument("--only", type=arguments.names, default=["heron"], metavar="NAME,NAME")
    options = parser.parse_args()
    unknown = set(options.only) - {peer.name for peer in ALL}
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    return options


def _possible(wanted: int) -> int:
    """So many of the streams as the hard limit of open files allows: a proxied one takes two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the load and the upstream inherit it
    if hard == resource.RLIM_INFINITY or wanted <= (hard - SPARE_FILES) // 2:
        return wanted
    count = (hard - SPARE_FILES) // 2
    print(f"only {count} streams: this machine's hard limit of open files is {hard}", file=sys.stderr)
    return count


def _run(setting: Setting, port: int, count: int, period_us: int, **callbacks: Any) -> load.Load:
    warm_up = 2 * count / OPEN_PER_SECOND + SETTLE_SECONDS  # load.c opens them over its first half
    tokens = round((warm_up + setting.seconds + SETTLE_SECONDS) * 1e6 / period_us)
    return load.run(
        "streams",
        port=port,
        core=setting.load_core,
        connections=count,
        warm_up_seconds=warm_up,
        seconds=setting.seconds,
        content=load.body(stream_tokens=tokens),
        tokens=tokens,
        period_us=period_us,
        **callbacks,
    )


def _without_proxy(setting: Setting, port: int, count: int, period_us: int) -> Result:
    """What the machine and the load themselves do to the pacing."""
    return _result("direct", count, _run(setting, port, count, period_us), before=0, during=0)


def _through(name: str, setting: Setting, ports: list[int], count: int, period_us: int) -> Result:
    peer = next(peer for peer in ALL if peer.name == name)
    with measure.proxy(peer, setting, ports, soft_files=SOFT_FILES) as (process, place):
        measure.requests(setting, place.port, measure.CONNECTIONS)  # what is made once is made
        time.sleep(SETTLE_SECONDS)
        before = process.resident_bytes()
        during: list[int] = []
        run = _run(
            setting,
            place.port,
            count,
            period_us,
            clocks=process.clocks,
            on_stop=lambda: during.append(process.resident_bytes()),
        )
        return _result(name, count, run, before=before, during=during[0])


def _result(name: str, count: int, run: load.Load, *, before: int, during: int) -> Result:
    return Result(
        name=name,
        streams=count,
        open_streams=run.open_streams,
        kib_per_stream=(during - before) / 1024 / count,
        resident_mib=during / measure.MIB,
        late_ms_p50=run.p50_us / 1e3,
        late_ms_p99=run.p99_us / 1e3,
        late_ms_p999=run.p999_us / 1e3,
        late_ms_max=run.late_max_us / 1e3,
        cpu_us_per_chunk=1e6 * run.cpu_seconds / max(1, run.chunks),
        cpu_ratio=run.cpu_seconds / run.seconds,
        waited_ratio=run.waited_seconds / run.seconds,
        errors=run.errors,
        first_error=run.first_error,
    )


def _line(row: Result) -> str:
    late = " / ".join(f"{value:.1f}" for value in (row.late_ms_p50, row.late_ms_p99, row.late_ms_max))
    cells = [row.name, f"{row.open_streams:,}", late]
    if row.name == "direct":
        cells += ["–"] * 4
    else:
        cells += [f"{row.kib_per_stream:.1f}", f"{row.cpu_us_per_chunk:.1f}", f"{row.cpu_ratio:.0%}"]
        cells.append(f"{row.waited_ratio:.1%}")
    return f"| {' | '.join([*cells, str(row.errors)])} |"


def _section(rows: list[Result], count: int, options: argparse.Namespace) -> str:
    titles = ["", "open streams", "chunk later than its pace, ms: p50 / p99 / most", "KiB per stream"]
    titles += ["CPU µs/chunk", "of its core", "waited for it", "errors"]
    lines = [
        f"## {count:,} streams at once",
        "",
        f"`{command_line()}`, {today()}, on {machine()}.",
        "",
        f"| {' | '.join(titles)} |",
        "|---" * len(titles) + "|",
        *map(_line, rows),
        "",
        f"One chunk each {options.period:g} s and stream, all open for {options.seconds:g} s.",
    ]
    if count < options.streams:
        lines.append(
            f"{options.streams:,} were wanted: the machine's hard limit of open files allows {count:,}."
        )
    lines.append(METHOD)
    lines += [f"{row.name}: {row.errors} wrong: {row.first_error}" for row in rows if row.errors]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_command(main))
