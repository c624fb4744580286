"""The tables of `heron size`."""

from __future__ import annotations

import math
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.size_result import SizeResult
from simulator.sizing import FIRM_SHARE
from simulator.sizing_cost import SOURCES


def show(result: SizeResult) -> None:
    """Farms, sizes, costs, and where the prices come from."""
    console = Console()
    days = result.power.shape[1] * result.series.period_seconds / 86_400
    console.print(
        f"[bold]{escape(result.series.name)}[/bold]: {len(result.shown.farms)} farm(s), {days:,.0f} days of"
        f" {result.series.period_seconds:g} s"
        + (f", {result.left_out_steps:,} steps left out (not measured)" if result.left_out_steps else "")
        + f". {result.kind.name}: {result.sizing.gpu_watts:,.0f} W each, host and overhead in it."
    )
    console.print(_farms(result))
    console.print(_sizes(result))
    console.print(_shortages(result))
    console.print(_costs(result))
    console.print(_prices(result))
    console.print(
        f"[dim]Watts and tokens per second: {escape(result.kind.source)}. Mean: of the farm's nameplate."
        " Corr.: with each other farm. Use: mean share of its peak that the wind lets the cluster run."
        " Hours and energy are for a year."
        f" Firm: the share of the peak that is there {FIRM_SHARE:.0%} of the time. Power is taken as capacity"
        " (docs/sizing.md).[/dim]"
    )


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _number(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)


def _farms(result: SizeResult) -> Table:
    fleet = result.shown
    table = _table(
        f"Each farm alone, cluster at p{fleet.percentile:g}",
        "farm",
        "MW",
        "mean",
        "corr.",
        "peak MW",
        "GPUs",
        "use",
        "short h",
        "firm",
    )
    for index, farm in enumerate(fleet.farms):
        others = [
            value
            for other, value in enumerate(result.correlations[index])
            if other != index and not math.isnan(value)
        ]
        spread = f"{min(others):.2f}…{max(others):.2f}" if others else "–"
        table.add_row(
            escape(farm.name),
            f"{farm.farm_megawatts:,.1f}".removesuffix(".0"),
            f"{farm.capacity_factor:.2f}",
            spread,
            f"{farm.cluster_megawatts:,.1f}",
            f"{farm.gpus:,}",
            _number(farm.use_ratio, ".2f"),
            _number(farm.shortage_hours_per_year, ",.0f"),
            _number(farm.firm_ratio, ".2f"),
        )
    return table


def _sizes(result: SizeResult) -> Table:
    table = _table("All farms, each sized by its own percentile", "", "MW", "GPUs", "use", "wind used")
    for name in ("else curtailed", "of it used"):
        table.add_column(name, justify="right")
    for fleet in result.fleets:
        wind = fleet.wind_megawatt_hours
        table.add_row(
            f"p{fleet.percentile:g}",
            f"{fleet.cluster_megawatts:,.1f}",
            f"{fleet.gpus:,}",
            _number(fleet.use_ratio, ".2f"),
            f"{fleet.used_megawatt_hours / wind:.1%}" if wind else "–",
            f"{fleet.curtailed_megawatt_hours / 1000:,.1f} GWh",
            f"{fleet.curtailed_used_megawatt_hours / 1000:,.1f} GWh",
        )
    return table


def _shortages(result: SizeResult) -> Table:
    table = _table(
        f"Alone and together (short: below {result.sizing.shortage_ratio:.0%} of the peak)",
        "",
        "short h alone",
        "together",
        "firm alone",
        "together",
    )
    for fleet in result.fleets:
        table.add_row(
            f"p{fleet.percentile:g}",
            _number(fleet.shortage_hours_alone, ",.0f"),
            _number(fleet.shortage_hours_per_year, ",.0f"),
            _number(fleet.firm_ratio_alone, ".2f"),
            _number(fleet.firm_ratio, ".2f"),
        )
    return table


def _costs(result: SizeResult) -> Table:
    table = _table(
        "Cost against the same GPUs on the grid",
        "",
        "$/GPU-hour",
        "grid",
        "÷ grid",
        "$/M tokens",
        "grid",
        "even: use",
        "grid $/MWh",
    )
    for fleet, money in zip(result.fleets, result.costs, strict=True):
        if money is None:
            table.add_row(f"p{fleet.percentile:g}", *["–"] * 7)
            continue
        table.add_row(
            f"p{fleet.percentile:g}",
            f"{money.wind_usd_per_gpu_hour:.2f}",
            f"{money.grid_usd_per_gpu_hour:.2f}",
            f"{money.wind_usd_per_gpu_hour / money.grid_usd_per_gpu_hour:.2f}",
            f"{money.wind_usd_per_million_tokens:.2f}",
            f"{money.grid_usd_per_million_tokens:.2f}",
            f"{money.even_use_ratio:.2f}" if money.even_use_ratio <= 1 else "never",
            f"{money.even_grid_usd_per_megawatt_hour:,.0f}",
        )
    return table


def _prices(result: SizeResult) -> Table:
    table = Table(title="Prices", title_justify="left")
    table.add_column("")
    table.add_column("value", justify="right")
    table.add_column("source")
    for name, value in asdict(result.prices).items():
        source = result.kind.price_source if name == "gpu_usd" else SOURCES[name]
        source = "given" if name in result.given else source
        table.add_row(f"--{name.replace('_', '-')}", f"{value:,g}", source)
    return table
