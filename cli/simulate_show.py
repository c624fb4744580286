"""What `heron simulate` prints: policies as rows, seeds averaged. However narrow, nothing is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from simulator.table import COLUMNS, ROWS, by_policy, shown

Result = dict[str, Any]
WIDEST = 1000
"""More characters than any table here has."""
EXPLAINED = (
    "attained: within the SLO, of the offered; refused: shed, of the offered; broken: ended with an error;"
    " TTFT and E2E in s; over cap: beyond the ride-through; all figures of each run: --json, --report"
)


def show(cells: Sequence[Result]) -> None:
    """What was simulated, figures, and what they mean.

    Several policies are compared in one table. One alone, or several where that table is wider than the
    terminal, has a table of all figures, a figure a line.
    """
    console = Console()
    cell, load = cells[0]["cell"], cells[0]["result"]["load"]
    wind = "constant power" if cell["constant_power"] else escape(Path(cell["wind"]).name)
    console.print(
        f"[bold]{wind}[/bold]: days {cell['first_day']}–{cell['last_day']}, sample {cell['sample'] or 'all'};"
        f" {len(load['nameplate_watts'])} sites sized at p{cell['size_percentile']:g}"
    )
    seeds = max(one["cell"]["seed"] for one in cells)
    console.print(
        f"{escape(Path(cell['trace']).name)} at load {cell['load']:g}, sizes of {cell['sizes']},"
        f" {cell['mode']}; {'seed 1' if seeds == 1 else f'seeds 1–{seeds}'}"
    )
    console.print(load["description"])
    console.print(
        f"offered in the mean {load['mean_requests_per_second']:.2f} requests/s of a peak of "
        f"{load['peak_requests_per_second']:.2f}; SLO: 5 times alone, by class"
    )
    policies = by_policy(cells)
    compared = _compared(policies)
    if len(policies) > 1 and _fits(compared, console):
        console.print(compared)
        console.print(EXPLAINED)
    else:
        for name, results in policies.items():
            console.print(_alone(name, results))
    if seeds > 1:
        console.print(f"±: 95 % interval over {seeds} seeds: other turbulence and requests, the same hours")
    console.print("percentiles count shed and broken requests as infinite (∞)")


def _compared(policies: Mapping[str, Sequence[Result]]) -> Table:
    """A row for each policy; the interval below its mean."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0, 0, 1), pad_edge=False)
    table.add_column("policy", no_wrap=True)
    for row in COLUMNS:
        table.add_column(row.short.replace(" ", "\n", 1), justify="right", no_wrap=True)
    for name, results in policies.items():
        table.add_row(name, *(_two_lines(shown(row, results)) for row in COLUMNS))
    return table


def _two_lines(figure: str) -> Text:
    mean, _, half = figure.partition(" ± ")
    return Text.assemble(mean, (f"\n±{half}", "dim")) if half else Text(mean)


def _fits(table: Table, console: Console) -> bool:
    return console.measure(table, options=console.options.update(max_width=WIDEST)).maximum <= console.width


def _alone(name: str, results: Sequence[Result]) -> Table:
    """All figures of one policy; what is too wide goes on in the next line."""
    table = Table()
    table.add_column("", overflow="fold")
    table.add_column(name, justify="right", overflow="fold")
    for row in ROWS:
        table.add_row(row.long, shown(row, results))
    return table
