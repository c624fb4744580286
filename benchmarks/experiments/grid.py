"""Experiment 6: the same GPUs in one grid-powered data centre at constant power."""

from __future__ import annotations

from typing import Any

from benchmarks.experiments.setting import Setting, markdown, number, run_all, slim, write
from simulator import plots

GRID_DOLLARS_PER_KILOWATT_HOUR = 0.08
"""Assumed industrial price; United States' industrial mean of 2024 was about 8 cents (EIA). An input."""
WIND_DOLLARS_PER_KILOWATT_HOUR = 0.03
"""Assumed price of power that would otherwise be curtailed or sold at the farm: near a wind farm's cost."""
PER_MILLION = 1e6


def run(setting: Setting) -> None:
    """On every week and load (quick: the lower): heron on wind, the same fleet on the grid."""
    seed = setting.seeds[0]
    cells = {}
    for week in setting.weeks:
        for load in setting.loads[:1] if setting.is_quick else setting.loads:
            cells[week[1], load, "wind"] = setting.cell(week, "heron", load, seed)
            cells[week[1], load, "grid"] = setting.cell(
                week, "heron", load, seed, constant_power=True, round_trip_seconds=0.02
            )
    found = run_all(setting, list(cells.values()))
    lines, rows = [], []
    bars: dict[str, list[float]] = {}
    for (name, load, where), cell in cells.items():
        one = found[cell]["result"]
        tokens = one["all"]["output_tokens"] / PER_MILLION
        kilowatt_hours = one["kilowatt_hours"] / tokens if tokens else None
        price = WIND_DOLLARS_PER_KILOWATT_HOUR if where == "wind" else GRID_DOLLARS_PER_KILOWATT_HOUR
        cost = None if kilowatt_hours is None else kilowatt_hours * price
        wind = one["wind_available_kilowatt_hours"]
        lines.append(
            [
                name,
                f"{load:g}",
                where,
                f"{one['all']['goodput_requests_per_second']:.2f}",
                f"{one['all']['slo_attainment_ratio']:.1%}",
                number(kilowatt_hours, missing="–"),
                number(cost, "{:.3f}", "–"),
                "100 %" if where == "wind" else "0 %",
                f"{one['wind_used_kilowatt_hours'] / wind:.1%}" if where == "wind" and wind else "–",
            ]
        )
        rows.append({"week": name, "load": load, "where": where, **slim(found[cell])})
        bars[f"{name}, load {load:g}, {where}"] = [one["all"]["slo_attainment_ratio"]]
    head = (
        *("week", "load", "power", "goodput/s", "attained", "kWh per million output tokens"),
        *("energy cost, $ per million", "wind's share", "of the farms' wind used"),
    )
    text = (
        "# Against the grid\n\nThe same five servers with constant power and one round trip of 20 ms, "
        "against five wind farms. Energy only: the grid at "
        f"{GRID_DOLLARS_PER_KILOWATT_HOUR:g} $/kWh, wind at the farm at "
        f"{WIND_DOLLARS_PER_KILOWATT_HOUR:g} $/kWh (both assumed; `heron size`: whole cost).\n\n"
    )
    plot: dict[str, Any] = {
        "attained": plots.bars(bars, title="heron, wind and grid", x="share within the SLO")
    }
    write(setting, "grid", data=rows, text=text + markdown(head, lines), plots=plot)
