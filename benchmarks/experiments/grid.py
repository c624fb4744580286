"""Experiment 6: the same GPUs in one grid-powered data centre at constant power."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.experiments.figures import markdown
from benchmarks.experiments.setting import Result, Runs, Setting, Week, write
from simulator import plots
from simulator.cell import Cell, pairs
from simulator.estimates import Estimate, estimate
from simulator.fleet_size import model_of
from simulator.inputs import Inputs, read_inputs
from simulator.settings import SiteSettings
from simulator.sizing import HOURS_PER_YEAR
from simulator.sizing_cost import fixed_usd_per_hour

GRID_ROUND_TRIP_SECONDS = 0.02
MILLION, SECONDS_PER_HOUR, KILOWATT_HOURS_PER_MEGAWATT_HOUR = 1e6, 3600.0, 1000.0
HEAD = (
    *("week", "load", "power", "goodput/s", "attained", "kWh", "energy, $", "all costs, $"),
    *(
        "without the sites' yearly sum",
        "all costs, of tokens in good time",
        "wind's share",
        "of the farms' wind used",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What is paid for by the hour, whatever runs."""

    gpus: int
    peak_watts: float
    wind_sites: int

    @classmethod
    def of(cls, inputs: Inputs, *, is_wind: bool) -> Fleet:
        """The cell's servers."""
        return cls(
            gpus=sum(model_of(site).gpu_count for site in inputs.sites),
            peak_watts=sum(model_of(site).full_watts for site in inputs.sites),
            wind_sites=len(inputs.sites) if is_wind else 0,
        )


def run(setting: Setting) -> None:
    """On every week and load (quick: the lower): heron on wind, the same GPUs on the grid."""
    loads = setting.loads[:1] if setting.is_quick else setting.loads
    cells = {
        (week[1], load, where): cell
        for week in setting.weeks
        for load in loads
        for where, cell in _pair(setting, week, load).items()
    }
    runs = Runs(setting, cells)
    fleets = {
        name: Fleet.of(read_inputs(cell, setting.resolve()), is_wind=name[2] == "wind")
        for name, cell in cells.items()
    }
    lines, rows = [], []
    bars: dict[str, list[float]] = {}
    for (week, load, where), fleet in fleets.items():
        results = runs.of((week, load, where))
        costs = [_costs(setting, fleet, one) for one in results]
        lines.append(_line(week, load, where, results, costs, runs.share((week, load, where))))
        rows += [
            row | {"per_million_output_tokens": cost}
            for row, cost in zip(
                runs.rows((week, load, where), week=week, load=load, where=where), costs, strict=True
            )
        ]
        bars[f"{week}, load {load:g}, {where}"] = runs.attained((week, load, where))
    said = _said(setting)
    table = markdown(HEAD, lines)
    write(
        setting,
        "grid",
        text=f"# Against the grid\n\n{said}\n\n{table}\n",
        summary=f"{said}\n\n{table}",
        plots={"attained": plots.bars(bars, title="heron, wind and grid", x="share within the SLO")},
        rows=rows,
    )


def _pair(setting: Setting, week: Week, load: float) -> dict[str, Cell]:
    """Wind as in the paper table; the grid: all servers as one site with one agent, in one data centre."""
    wind = setting.cell(week, "heron", load, 1)
    count = len(read_inputs(wind, setting.resolve()).sites)
    default = SiteSettings(site_id="one", wind="")
    whole = {
        "instances": default.instances * count,
        "host_idle_watts": default.host_idle_watts * count,
    }
    grid = wind.with_(
        constant_power=True,
        round_trip_seconds=GRID_ROUND_TRIP_SECONDS,
        site_count=1,
        site_overrides=pairs(whole),
    )
    return {"wind": wind, "grid": grid}


def _costs(setting: Setting, fleet: Fleet, result: Result) -> dict[str, float | None]:
    """$ and kWh per million output tokens; None: there were none."""
    prices, whole = setting.prices, result["all"]
    millions = whole["output_tokens"] / MILLION
    if not millions:
        return dict.fromkeys(("kilowatt_hours", "energy_usd", "usd", "usd_without_sites", "usd_of_good"))
    fixed = fixed_usd_per_hour(
        prices, gpus=fleet.gpus, gpu_watts=fleet.peak_watts / fleet.gpus, wind_sites=fleet.wind_sites
    )
    price = prices.wind_usd_per_megawatt_hour if fleet.wind_sites else prices.grid_usd_per_megawatt_hour
    energy = result["kilowatt_hours"] / KILOWATT_HOURS_PER_MEGAWATT_HOUR * price
    hours = whole["seconds"] / SECONDS_PER_HOUR
    usd = fixed * hours + energy
    sites = fleet.wind_sites * prices.wind_site_usd_per_year / HOURS_PER_YEAR * hours
    part = whole["good"] / whole["served"] if whole["served"] else 0.0
    return {
        "kilowatt_hours": result["kilowatt_hours"] / millions,
        "energy_usd": energy / millions,
        "usd": usd / millions,
        "usd_without_sites": (usd - sites) / millions,
        "usd_of_good": usd / millions / part if part else None,
    }


def _line(
    week: str,
    load: float,
    where: str,
    results: list[Result],
    costs: list[dict[str, float | None]],
    attained: Estimate,
) -> list[str]:
    def shown(name: str, form: str) -> str:
        known = [value for cost in costs if (value := cost[name]) is not None]
        return estimate(known).text(form) if known else "–"

    def of(values: list[Any]) -> Estimate:
        return estimate([value or 0.0 for value in values])

    is_wind = where == "wind"
    used = sum(one["wind_used_kilowatt_hours"] for one in results)
    available = sum(one["wind_available_kilowatt_hours"] for one in results)
    return [
        week,
        f"{load:g}",
        where,
        of([one["all"]["goodput_requests_per_second"] for one in results]).text("{:.2f}"),
        attained.text(),
        shown("kilowatt_hours", "{:.2f}"),
        shown("energy_usd", "{:.3f}"),
        shown("usd", "{:.2f}"),
        shown("usd_without_sites", "{:.2f}"),
        shown("usd_of_good", "{:.2f}"),
        "100 %" if is_wind else "0 %",
        f"{used / available:.1%}" if is_wind and available else "–",
    ]


def _said(setting: Setting) -> str:
    prices = setting.prices
    return (
        f"{setting.said()} The same GPUs as one data centre with constant power, "
        f"{GRID_ROUND_TRIP_SECONDS * 1000:g} ms away, against sites at wind farms. kWh and costs are per "
        "million output tokens of these blocks. All costs: servers, buildings, sites and energy by `heron "
        "size`'s prices and sources (docs/sizing.md), every one an argument; energy "
        f"{prices.grid_usd_per_megawatt_hour:g} $/MWh from the grid and "
        f"{prices.wind_usd_per_megawatt_hour:g} from the farm, for what is drawn. Servers cost the same "
        "busy or not, so at a low load a token is dear in both; a site here is one server of eight GPUs, on "
        f"which a remote site's yearly {prices.wind_site_usd_per_year:,.0f} $ weighs more than on a farm's "
        "hundreds. *Of tokens in good time*: divided by those of requests within the SLO, in their share of "
        "the served. *Of the farms' wind used*: the farms have no other outlet here, so all else is "
        "curtailed."
    )
