"""One Heron router with 1, 2 and 4 workers behind one port: CPU per request, and each worker's share.

    .venv/bin/python -m benchmarks.router.workers

All workers are on one core unless --proxy-core gives them more (1-4, say), so that CPU per request can be
compared; requests/s can only grow with N where there are N cores for them.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from dataclasses import asdict, dataclass
from statistics import median

from benchmarks.router import arguments, load, measure
from benchmarks.router.heron import HERON, operations_port
from benchmarks.router.measure import CONNECTIONS, MIB, Setting
from benchmarks.router.process import run_command
from benchmarks.router.report import command_line, machine, today, write_json, write_section

COUNTS = (1, 2, 4)
METHOD = f"""{CONNECTIONS} keep-alive connections in closed loop, as in the comparison; medians of the
rounds, in which the counts take turns. CPU: user and system of the parent and all workers. Share: of the
requests that the router itself counted per worker, the one farthest from the even part, over all rounds.
Waited: of all processes together; workers who share a core wait for each other. Goals: CPU per request
at most 1.1 times that of one worker, shares within ± 20 % of the even part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One router in one round."""

    requests_per_second: float
    cpu_us_per_request: float
    shares: tuple[float, ...]
    """Of each worker, times their number: 1 is even. Empty with one process."""
    memory_mib: float
    waited_ratio: float
    errors: int
    first_error: str


def main() -> int:
    """Exit 0 when every answer was right."""
    parser = arguments.parser("benchmarks.router.workers", __doc__, seconds=4.0)
    parser.add_argument("--counts", type=_counts, default=COUNTS, metavar="N,N", help="default 1,2,4")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rounds: dict[int, list[Round]] = {count: [] for count in options.counts}
    for turn in range(options.rounds):
        for count in options.counts:
            setting = arguments.setting(options, workers=count)
            try:
                rounds[count].append(_measure(setting))
            except measure.NotReadyError as error:
                print(f"NOT MEASURED: {count} workers: {error}", file=sys.stderr)
                return 1
            print(f"round {turn + 1}: {_line(count, rounds)}", flush=True)
    text = _section(rounds, options.proxy_core)
    print(f"\n{text}")
    if not options.dry:
        document = {"date": today(), "machine": machine(), "command": command_line()}
        rows = {str(count): [asdict(one) for one in of] for count, of in rounds.items()}
        write_json({"workers": {**document, "rounds_by_workers": rows}})
        write_section("workers", text)
    return 1 if any(one.errors for of in rounds.values() for one in of) else 0


def _counts(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _measure(setting: Setting) -> Round:
    with measure.upstream(setting) as ports, measure.proxy(HERON, setting, ports) as (process, place):
        before = _requests_by_worker(operations_port(place))
        run = load.run(
            "requests",
            port=place.port,
            core=setting.load_core,
            connections=CONNECTIONS,
            warm_up_seconds=measure.WARM_UP_SECONDS,
            seconds=setting.seconds,
            content=load.body(),
            clocks=process.clocks,
        )
        counts = [
            now - then for now, then in zip(_requests_by_worker(operations_port(place)), before, strict=True)
        ]
        return Round(
            requests_per_second=run.requests / run.seconds,
            cpu_us_per_request=1e6 * run.cpu_seconds / max(1, run.requests),
            shares=shares(counts),
            memory_mib=process.memory_bytes() / MIB,
            waited_ratio=run.waited_seconds / run.seconds,
            errors=run.errors,
            first_error=run.first_error,
        )


def shares(requests: list[int]) -> tuple[float, ...]:
    """Each worker's part of the requests, 1 being the even one."""
    total = sum(requests)
    return tuple(count * len(requests) / total for count in requests) if total else ()


def _requests_by_worker(port: int) -> list[int]:
    """As the router counts them; empty where it is one process."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/heron/v1/fleet", timeout=10) as answer:
        return [worker["requests"] for worker in json.load(answer).get("workers", ())]


def _line(count: int, rounds: dict[int, list[Round]]) -> str:
    of = rounds[count]
    cpu = median(one.cpu_us_per_request for one in of)
    base = median(one.cpu_us_per_request for one in rounds[1]) if rounds.get(1) else None
    uneven = max(
        (share for one in of for share in one.shares), key=lambda share: abs(share - 1), default=None
    )
    cells = [
        str(count),
        f"{median(one.requests_per_second for one in of):,.0f}",
        f"{cpu:.1f}",
        "–" if base is None else f"{cpu / base:.2f}×",
        "–" if uneven is None else f"{uneven - 1:+.0%}",
        f"{median(one.memory_mib for one in of):.0f}",
        f"{median(one.waited_ratio for one in of):.0%}",
        str(sum(one.errors for one in of)),
    ]
    return f"| {' | '.join(cells)} |"


def _section(rounds: dict[int, list[Round]], cores: str) -> str:
    titles = ["workers", "requests/s", "CPU µs/request", "to one worker", "most uneven share", "memory MiB"]
    titles += ["waited", "errors"]
    lines = [
        "## Workers",
        "",
        f"`{command_line()}`, {today()}, on {machine()}; the router has core {cores}.",
        "",
        f"| {' | '.join(titles)} |",
        "|---" * len(titles) + "|",
        *(_line(count, rounds) for count in rounds),
        "",
        METHOD,
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_command(main))
