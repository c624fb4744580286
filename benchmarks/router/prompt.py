"""A prompt of 1 MB: what it costs a proxy in CPU time and in memory, beside what a small one costs.

    .venv/bin/python -m benchmarks.router.prompt

Copies do not show from outside, but their two effects do: CPU per megabyte, and how much the resident set
swells per prompt under way (what is held at once, each copy counted).
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass

from benchmarks.router import arguments, load, measure
from benchmarks.router.__main__ import ALL
from benchmarks.router.measure import MIB, Setting
from benchmarks.router.process import Process, run_command
from benchmarks.router.programs import MissingError
from benchmarks.router.report import command_line, machine, today, write_json, write_section

DEFAULT = ["nginx", "haproxy", "envoy", "vllm-router", "sglang-router", "heron", "heron-site-ingress"]
CONNECTIONS = 8
METHOD = f"""CPU: of a request with a prompt of 1 MiB, less that of one with none, both at one connection.
Memory: how far the resident set rises, at most, above what it was before the first such prompt, over the
{CONNECTIONS} that are under way at once. What passes a body on in pieces stays near 0; what reads it whole
needs 1 for each copy that it holds. nginx reads it whole here (`client_body_buffer_size 2m`); ratios are to
nginx."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One proxy."""

    name: str
    cpu_us_per_mib: float
    requests_per_second: float
    """At one connection."""
    peak_mib_per_prompt: float
    errors: int
    first_error: str


def main() -> int:
    """Exit 0 when every answer was right."""
    parser = arguments.parser("benchmarks.router.prompt", __doc__, seconds=3.0)
    parser.add_argument("--only", type=arguments.names, default=DEFAULT, metavar="NAME,NAME")
    options = parser.parse_args()
    unknown = set(options.only) - {peer.name for peer in ALL}
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    setting = arguments.setting(options)
    rows: list[Result] = []
    missing: list[str] = []
    with measure.upstream(setting) as ports:
        for peer in ALL:
            if peer.name not in options.only:
                continue
            try:
                with measure.proxy(peer, setting, ports) as (process, place):
                    rows.append(_measure(peer.name, process, place.port, setting))
            except (MissingError, measure.NotReadyError, load.LoadError) as error:
                missing.append(f"{peer.name}: {str(error).splitlines()[0]}")
                print(f"NOT MEASURED: {missing[-1]}", file=sys.stderr)
            else:
                print(_line(rows[-1], rows), flush=True)
    text = _section(rows, missing)
    print(f"\n{text}")
    if not options.dry:
        document = {"date": today(), "machine": machine(), "command": command_line()}
        write_json({"prompt": {**document, "rows": [asdict(row) for row in rows]}})
        write_section("prompt", text)
    return 1 if missing or any(row.errors for row in rows) else 0


def _measure(name: str, process: Process, port: int, setting: Setting) -> Result:
    large = load.body(prompt_bytes=MIB)
    small = _run(process, port, setting, load.body(), 1)
    process.forget_peak()
    before = process.resident_bytes()
    one = _run(process, port, setting, large, 1)
    many = _run(process, port, setting, large, CONNECTIONS)
    peak = process.peak_bytes()
    runs = (small, one, many)
    return Result(
        name=name,
        cpu_us_per_mib=_cpu_us(one) - _cpu_us(small),
        requests_per_second=one.requests / one.seconds,
        peak_mib_per_prompt=(peak - before) / MIB / CONNECTIONS,
        errors=sum(run.errors for run in runs),
        first_error=next((run.first_error for run in runs if run.first_error), ""),
    )


def _run(process: Process, port: int, setting: Setting, content: bytes, connections: int) -> load.Load:
    return load.run(
        "requests",
        port=port,
        core=setting.load_core,
        connections=connections,
        warm_up_seconds=measure.WARM_UP_SECONDS,
        seconds=setting.seconds,
        content=content,
        clocks=process.clocks,
    )


def _cpu_us(run: load.Load) -> float:
    return 1e6 * run.cpu_seconds / max(1, run.requests)


def _line(row: Result, rows: list[Result]) -> str:
    base = next((one.cpu_us_per_mib for one in rows if one.name == "nginx"), None)
    ratio = "–" if base is None else f"{row.cpu_us_per_mib / base:.2f}×"
    cells = [row.name, f"{row.cpu_us_per_mib:,.0f}", ratio, f"{row.requests_per_second:,.0f}"]
    return f"| {' | '.join([*cells, f'{row.peak_mib_per_prompt:.2f}', str(row.errors)])} |"


def _section(rows: list[Result], missing: list[str]) -> str:
    titles = ["", "CPU µs per MiB", "ratio", "requests/s at one connection", "MiB per prompt under way"]
    lines = [
        "## A prompt of 1 MiB",
        "",
        f"`{command_line()}`, {today()}, on {machine()}.",
        "",
        f"| {' | '.join([*titles, 'errors'])} |",
        "|---" * (len(titles) + 1) + "|",
        *(_line(row, rows) for row in rows),
        "",
        METHOD,
        *(f"Not measured: {text}" for text in missing),
        *(f"{row.name}: {row.errors} wrong: {row.first_error}" for row in rows if row.errors),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_command(main))
