"""One Heron router with 1, 2 and 4 workers behind one port: CPU per request, requests/s, each worker's share.

    .venv/bin/python -m benchmarks.router.workers

With four cores or more the load generator, the upstream and each worker have cores of their own, and
requests/s are judged too; with two, all workers share one, and only CPU per request and shares are.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median

from benchmarks.router import arguments, cores, measure
from benchmarks.router.heron import HERON, HERON_COMPILED, operations_port
from benchmarks.router.measure import CONNECTIONS, MIB, Setting
from benchmarks.router.peers import Peer
from benchmarks.router.process import Clocks, cpu_seconds, run_command
from benchmarks.router.programs import MissingError
from benchmarks.router.report import command_line, machine, today, write_json, write_section

COUNTS = (1, 2, 4)
GOAL_CPU_RATIO = 1.1
GOAL_SHARE_RATIO = 0.2
GOAL_SPEED_RATIO = 0.9
METHOD = f"""{CONNECTIONS} connections in closed loop, kept or a new one for each request; a body of 214
bytes, an answer of 611. Medians of the rounds, in which the counts take turns, each router started anew.

- CPU: user and system of the parent and all workers; of it the parent's.
- × one: requests/s beside those of one worker.
- Share: of the requests that the router itself counted per worker, the one farthest from the even part.
- Waited: of all its processes together; workers who share a core wait for each other.
- Direct: the upstream itself, on its core: no router can show more.
- Goals: CPU per request over kept connections at most {GOAL_CPU_RATIO} times that of one worker, shares
  within ± {GOAL_SHARE_RATIO:.0%}, requests/s at least {GOAL_SPEED_RATIO} × N where each worker has a core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One router in one round."""

    workers: int
    is_kept: bool
    """A connection serves many requests; else one each."""
    has_cores: bool
    """One for each worker."""
    requests_per_second: float
    cpu_us_per_request: float
    parent_cpu_us_per_request: float
    """0 with one worker, which has no parent."""
    shares: tuple[float, ...]
    """Of each worker, times their number: 1 is even. Empty with one process."""
    memory_mib: float
    waited_ratio: float
    errors: int
    first_error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The rounds of one kind."""

    workers: int
    is_kept: bool
    has_cores: bool
    requests_per_second: float
    cpu_us_per_request: float
    parent_cpu_us_per_request: float
    worst_share: float | None
    """The one farthest from 1."""
    memory_mib: float
    waited_ratio: float
    errors: int


def main() -> int:
    """Exit 0 when every answer was right and every goal that could be judged is met."""
    parser = arguments.parser("benchmarks.router.workers", __doc__, seconds=4.0)
    parser.set_defaults(proxy_core=None, load_core=None)
    parser.add_argument("--counts", type=_counts, default=COUNTS, metavar="N,N", help="default 1,2,4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compiled", action="store_true", help="the router of scripts/compile")
    options = parser.parse_args()
    peer = HERON_COMPILED if options.compiled else HERON
    order = cores.usable()
    settings = {count: _setting(options, order, count) for count in options.counts}
    rounds: list[Round] = []
    try:
        direct = _direct(settings[max(options.counts)])
        print(f"direct: {direct:,.0f} requests/s", flush=True)
        for turn in range(options.rounds):
            for count, setting in settings.items():
                rounds += _measure(peer, setting)
                print(f"round {turn + 1}: {count} workers", flush=True)
    except (measure.NotReadyError, MissingError) as error:
        print(f"NOT MEASURED: {error}", file=sys.stderr)
        return 1
    rows = summary(rounds)
    missed = misses(rows)
    text = _section(peer, rows, missed, direct, settings)
    print(f"\n{text}")
    if not options.dry:
        document = {
            "date": today(),
            "machine": machine(),
            "command": command_line(),
            "version": peer.version(),
        }
        values = {**document, "direct_requests_per_second": round(direct)}
        write_json({"workers": {**values, "rounds": [asdict(one) for one in rounds]}})
        write_section("workers", text)
    return 1 if missed or any(one.errors for one in rounds) else 0


def _counts(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _setting(options: argparse.Namespace, order: Sequence[int], count: int) -> Setting:
    placed = cores.place(order, count)
    if options.load_core is None:
        options.load_core = placed.load
    return arguments.setting(
        options,
        workers=count,
        load_core=options.load_core,
        upstream_core=placed.upstream if options.load_core == placed.load else options.load_core,
        proxy_core=options.proxy_core or placed.router_list,
    )


def _direct(setting: Setting) -> float:
    with measure.upstream(setting) as ports:
        return measure.direct(setting, ports).requests_per_second or 0.0


def _measure(peer: Peer, setting: Setting) -> list[Round]:
    """Over kept connections, and over new ones, of one router."""
    with measure.upstream(setting) as ports, measure.proxy(peer, setting, ports) as (process, place):
        made = []
        for is_kept in (True, False):
            before = _requests_by_worker(operations_port(place))
            parent: list[float] = []

            def clocks(parent: list[float] = parent) -> Clocks:
                parent.append(cpu_seconds(process.pid))
                return process.clocks()

            run = measure.requests(setting, place.port, CONNECTIONS, is_kept=is_kept, clocks=clocks)
            after = _requests_by_worker(operations_port(place))
            own = parent[-1] - parent[0] if before else 0.0
            made.append(
                Round(
                    workers=setting.workers,
                    is_kept=is_kept,
                    has_cores=len(cores.parse_list(str(setting.proxy_core))) >= setting.workers,
                    requests_per_second=run.requests / run.seconds,
                    cpu_us_per_request=1e6 * run.cpu_seconds / max(1, run.requests),
                    parent_cpu_us_per_request=1e6 * own / max(1, run.requests),
                    shares=shares([now - then for now, then in zip(after, before, strict=True)]),
                    memory_mib=process.memory_bytes() / MIB,
                    waited_ratio=run.waited_seconds / run.seconds,
                    errors=run.errors,
                    first_error=run.first_error,
                )
            )
        return made


def shares(requests: list[int]) -> tuple[float, ...]:
    """Each worker's part of the requests, 1 being the even one."""
    total = sum(requests)
    return tuple(count * len(requests) / total for count in requests) if total else ()


def _requests_by_worker(port: int) -> list[int]:
    """As the router counts them; empty where it is one process."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/heron/v1/fleet", timeout=10) as answer:
        return [worker["requests"] for worker in json.load(answer).get("workers", ())]


def summary(rounds: Sequence[Round]) -> list[Row]:
    """Medians, by kind of connection and number of workers."""
    kinds = sorted({(not one.is_kept, one.workers) for one in rounds})
    rows = []
    for is_new, workers in kinds:
        of = [one for one in rounds if (not one.is_kept, one.workers) == (is_new, workers)]
        rows.append(
            Row(
                workers=workers,
                is_kept=not is_new,
                has_cores=all(one.has_cores for one in of),
                requests_per_second=median(one.requests_per_second for one in of),
                cpu_us_per_request=median(one.cpu_us_per_request for one in of),
                parent_cpu_us_per_request=median(one.parent_cpu_us_per_request for one in of),
                worst_share=max(
                    (share for one in of for share in one.shares),
                    key=lambda share: abs(share - 1),
                    default=None,
                ),
                memory_mib=median(one.memory_mib for one in of),
                waited_ratio=median(one.waited_ratio for one in of),
                errors=sum(one.errors for one in of),
            )
        )
    return rows


def misses(rows: Sequence[Row]) -> list[str]:
    """Each goal that is not met, in words."""
    missed = []
    for row in rows:
        what = f"{row.workers} workers, {_kind(row)}"
        one = _one(rows, row)
        if row.worst_share is not None and abs(row.worst_share - 1) > GOAL_SHARE_RATIO:
            missed.append(f"{what}: a worker is {row.worst_share - 1:+.0%} from its even part")
        if one is None or not row.is_kept:
            continue
        if row.cpu_us_per_request > GOAL_CPU_RATIO * one.cpu_us_per_request:
            ratio = row.cpu_us_per_request / one.cpu_us_per_request
            missed.append(f"{what}: {ratio:.2f} × the CPU per request of one")
        speed = row.requests_per_second / one.requests_per_second
        if row.has_cores and speed < GOAL_SPEED_RATIO * row.workers:
            missed.append(f"{what}: {speed:.2f} × the requests/s of one, {speed / row.workers:.2f} × N")
    return missed


def _one(rows: Sequence[Row], row: Row) -> Row | None:
    return next((other for other in rows if other.workers == 1 and other.is_kept == row.is_kept), None)


def _kind(row: Row) -> str:
    return "kept" if row.is_kept else "new each time"


def _line(row: Row, rows: Sequence[Row]) -> str:
    one = _one(rows, row)
    speed = "–" if one is None else f"{row.requests_per_second / one.requests_per_second:.2f}"
    cells = [
        str(row.workers),
        _kind(row),
        f"{row.requests_per_second:,.0f}",
        speed if row.has_cores else f"({speed}, no cores)",
        f"{row.cpu_us_per_request:.1f}",
        "–" if one is None else f"{row.cpu_us_per_request / one.cpu_us_per_request:.2f}×",
        f"{row.parent_cpu_us_per_request:.1f}" if row.workers > 1 else "–",
        "–" if row.worst_share is None else f"{row.worst_share - 1:+.0%}",
        f"{row.memory_mib:.0f}",
        f"{row.waited_ratio:.0%}",
        str(row.errors),
    ]
    return f"| {' | '.join(cells)} |"


def _section(
    peer: Peer, rows: Sequence[Row], missed: list[str], direct: float, settings: dict[int, Setting]
) -> str:
    titles = ["workers", "connections", "requests/s", "× one", "CPU µs/request", "to one", "of it parent"]
    titles += ["most uneven share", "memory MiB", "waited", "errors"]
    some = next(iter(settings.values()))
    placed = "; ".join(f"{count} workers on {one.proxy_core}" for count, one in settings.items())
    lines = [
        "## Workers",
        "",
        f"`{command_line()}`, {today()}, {peer.version()}, on {machine()}.",
        f"Cores: load on {some.load_core}, upstream on {some.upstream_core}, {placed}.",
        f"Direct: {direct:,.0f} requests/s.",
        "",
        f"| {' | '.join(titles)} |",
        "|---" * len(titles) + "|",
        *(_line(row, rows) for row in rows),
        "",
        "Missed: " + "; ".join(missed) + "." if missed else "Every goal that could be judged is met.",
        "",
        METHOD,
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_command(main))
