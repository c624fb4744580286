"""One HTML page of a simulation, self-contained: tables, plots as inline SVG, and what was simulated."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simulator import plots
from simulator.table import ROWS, by_policy, table_rows

Result = dict[str, Any]
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
svg { max-width: 100%; height: auto; }
.note { color: #555; } code { background: #f3f3f3; padding: .1em .3em; }
"""


def page(title: str, sections: Sequence[tuple[str, str]]) -> str:
    """A whole page; `sections` are headings with their HTML."""
    body = "\n".join(f"<h2>{html.escape(heading)}</h2>\n{content}" for heading, content in sections)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{html.escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table of plain text."""
    top = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    lines = ("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def write_report(path: Path, results: Sequence[Result], *, title: str) -> None:
    """Write the page of some cells that differ in policy and seed."""
    path.write_text(page("Heron: simulation", list(_sections(results, title))), encoding="utf-8")


def _sections(results: Sequence[Result], command: str) -> list[tuple[str, str]]:
    first = results[0]
    load, cell = first["result"]["load"], first["cell"]
    days = f"days {cell['first_day']} to {cell['last_day']}"
    where = f"{cell['wind']}, {days}, blocks {cell['sample'] or 'all'}"
    offered = (
        f"{load['mean_requests_per_second']:.2f} requests/s in the mean of the whole record, of a peak of "
        f"{load['peak_requests_per_second']:.2f} ({cell['load']:.0%})"
    )
    slo = (
        "TTFT and E2E within 5 times one request alone on the fastest configuration at full clock, by class "
        "of request; the network is not in the reference"
    )
    facts = [
        ("command", f"<code>{html.escape(command)}</code>"),
        ("wind", html.escape(where)),
        ("load", html.escape(load["description"])),
        ("offered", offered),
        ("SLO", slo),
    ]
    described = "".join(f"<p><b>{name}</b>: {text}</p>" for name, text in facts)
    head = ["policy", "seed", *(row.short for row in ROWS)]
    policies = by_policy(results)
    firsts = {name: found[0] for name, found in policies.items()}
    explained = "; ".join(f"{row.short}: {row.long}" for row in ROWS)
    explained += ". Percentiles count shed and broken requests as infinite."
    sections = [
        ("What was simulated", described),
        (
            "Results",
            table(head, table_rows(results)) + f'<p class="note">{html.escape(explained)}</p>',
        ),
        (
            "Goodput",
            plots.bars(
                {
                    name: [_number(one["all"]["goodput_requests_per_second"]) for one in found]
                    for name, found in policies.items()
                },
                title="Requests within the SLO",
                x="requests/s",
            ),
        ),
        (
            "Time to first token",
            plots.distributions(
                {name: one["all"]["ttft_sketch"] for name, one in firsts.items()},
                title="TTFT, first seed",
                x="seconds",
            ),
        ),
        (
            "Whole answer",
            plots.distributions(
                {name: one["all"]["e2e_sketch"] for name, one in firsts.items()},
                title="E2E, first seed",
                x="seconds",
            ),
        ),
    ]
    sections += [
        (f"Power with {name}", plots.power(one["blocks"], title=f"{name}: mean of each block"))
        for name, one in firsts.items()
    ]
    return sections


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
