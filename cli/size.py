"""`heron size`: how large clusters at wind farms should be, and what their GPU-hours cost."""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import exit_codes
from cli.data import resolve
from cli.files import check_writable
from cli.wind_notes import tell
from fleet.config import ConfigError
from fleet.version import extra_hint

if TYPE_CHECKING:
    from cli.size_result import SizeResult
    from power_feed.wind_series import WindSeries

DEFAULT_FARM_MEGAWATTS = 100.0
DAYS_PER_YEAR = 365
DEFAULT_PLOTTED_PERCENTILE = 40.0
LEFT_OUT_RATIO = 0.03
"""More steps than these left out are worth a note: a gap is seldom in weather like the rest's."""
MIN_YEARS, MAX_YEARS = 0.1, 100.0
"""Of a server or a building: beyond, a number is a slip."""
PLOT_SUFFIXES = (".png", ".svg", ".pdf")
UNITS = ("per_unit", "mw")
GPU_NAMES = ("h100", "b200")
"""As in `simulator.sizing_cost.GPUS`, which is not imported before it is needed (numpy)."""


class SizeError(ConfigError):
    """Arguments or a wind file from which nothing can be sized; the command line prints it and exits 2."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments, in three groups."""
    parser.add_argument(
        "--wind", required=True, metavar="FILE|NAME", help="a wind file, or a name of `heron data list`"
    )
    parser.add_argument("--farms", metavar="A,B,…", help="only these farms of the file (default: all)")
    parser.add_argument(
        "--farm-mw",
        metavar="MW|FARM=MW",
        action="append",
        default=[],
        help="nameplate of each farm, or of one; may be repeated (default: the file's where it is in MW, else"
        f" {DEFAULT_FARM_MEGAWATTS:g})",
    )
    parser.add_argument("--unit", choices=UNITS, help="of the file's values (default: by what they are)")
    parser.add_argument(
        "--nameplate-mw",
        metavar="MW|FARM=MW",
        action="append",
        default=[],
        help="of a file in MW, what its values are a share of (default: as known, else the largest value)",
    )
    parser.add_argument("--gpu", choices=GPU_NAMES, default="h100", help="default %(default)s")
    parser.add_argument(
        "--percentiles",
        metavar="P,P,…",
        default="20,30,40,50,60",
        help="of a farm's power (default %(default)s)",
    )
    parser.add_argument(
        "--shortage",
        type=float,
        default=0.5,
        metavar="RATIO",
        help="deep shortage: less than this of the peak",
    )
    parser.add_argument(
        "--export",
        type=float,
        default=0.0,
        metavar="RATIO",
        help="what the grid connection takes, as a share of nameplate (default 0: it waits for one)",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", metavar="FILE", type=Path, help="write everything there")
    output.add_argument("--plot", metavar="FILE", type=Path, help="draw it there: .png, .svg or .pdf")
    output.add_argument("--at", type=float, metavar="P", help="percentile of the farms' table and curves")
    output.add_argument("--quiet", action="store_true", help="no tables")
    prices = parser.add_argument_group("prices and watts (each has a default with its source: see the table)")
    for option, kind, what in (
        ("--gpu-watts", float, "one GPU at its peak, host and overhead included"),
        ("--overhead", float, "site watts ÷ IT watts"),
        ("--tokens-per-second", float, "output tokens of one GPU at its peak"),
        ("--gpu-usd", float, "one GPU with its share of the server"),
        ("--server-years", float, "life of a server"),
        ("--facility-usd-per-watt", float, "data centre on the grid, per IT watt"),
        ("--wind-facility-usd-per-watt", float, "modular data centre at the farm, per IT watt"),
        ("--facility-years", float, "life of a building"),
        ("--interest-ratio", float, "cost of capital a year"),
        ("--maintenance-ratio", float, "of what was invested, a year"),
        ("--wind-site-usd-per-year", float, "one more site: fibre, visits"),
        ("--grid-usd-per-megawatt-hour", float, "energy from the grid"),
        ("--wind-usd-per-megawatt-hour", float, "energy from the farm"),
    ):
        prices.add_argument(option, type=kind, metavar="X", default=None, help=what)


def run(arguments: argparse.Namespace) -> int:
    """Run `heron size`.

    Raises:
        ConfigError: arguments or files from which nothing can be sized.
    """
    if arguments.plot is not None and arguments.plot.suffix not in PLOT_SUFFIXES:
        raise SizeError(f"{arguments.plot}: a plot ends in {', '.join(PLOT_SUFFIXES)}")
    check_writable("--json", arguments.json)
    check_writable("--plot", arguments.plot)
    result = _compute(arguments)
    if not arguments.quiet:
        from cli.size_show import show

        show(result)
    try:
        if arguments.json is not None:
            text = json.dumps(_finite(_document(result)), indent=2)
            arguments.json.write_text(text + "\n", encoding="utf-8")
        if arguments.plot is not None:
            _plot(result, arguments.plot)
    except OSError as error:
        print(f"{error.filename or 'the output'}: cannot be written: {error.strerror}", file=sys.stderr)
        return exit_codes.BAD_RUN
    return exit_codes.DONE


def _compute(arguments: argparse.Namespace) -> SizeResult:
    try:
        from cli.size_result import SizeResult
        from power_feed.wind_series import WindFileError
        from simulator.sizing import Sizing, SizingError, correlations, known_power, size_fleet
        from simulator.sizing_cost import DEFAULT_OVERHEAD_RATIO, GPUS, Prices, cost
    except ModuleNotFoundError as error:
        raise SizeError(f"heron size needs {error.name}: {extra_hint('simulate')}") from None
    kind = GPUS[arguments.gpu]
    overhead = DEFAULT_OVERHEAD_RATIO if arguments.overhead is None else arguments.overhead
    gpu_watts = kind.peak_watts(overhead) if arguments.gpu_watts is None else arguments.gpu_watts
    if arguments.tokens_per_second is not None:
        kind = type(kind)(**(asdict(kind) | {"tokens_per_second": arguments.tokens_per_second}))
    given = {field.name: getattr(arguments, field.name) for field in fields(Prices)}
    given = {name: value for name, value in given.items() if value is not None}
    prices = Prices(**({"gpu_usd": kind.usd} | given))
    _check_prices(given | {"tokens_per_second": kind.tokens_per_second, "overhead": overhead})
    try:
        series = _series(arguments)
        tell(series)
        chosen = [name.strip() for name in arguments.farms.split(",")] if arguments.farms else series.sites
        names = tuple(chosen)
        power = known_power(series, names)
        _tell_short(series, power.shape[1])
        sizing = Sizing(
            farm_megawatts=_farm_megawatts(arguments.farm_mw, series, names),
            gpu_watts=gpu_watts,
            shortage_ratio=arguments.shortage,
            export_ratio=arguments.export,
        )
        percentiles = _percentiles(arguments.percentiles)
        at = arguments.at if arguments.at is not None else _nearest(percentiles, DEFAULT_PLOTTED_PERCENTILE)
        fleets = tuple(size_fleet(power, percent, sizing) for percent in percentiles)
        shown = next((one for one in fleets if one.percentile == at), None) or size_fleet(power, at, sizing)
        costs = tuple(cost(one, kind, prices, gpu_watts=gpu_watts, overhead_ratio=overhead) for one in fleets)
    except (WindFileError, SizingError, ValueError) as error:
        raise SizeError(str(error)) from error
    return SizeResult(
        series=series,
        power=power,
        sizing=sizing,
        kind=kind,
        prices=prices,
        given=frozenset(given),
        fleets=fleets,
        costs=costs,
        shown=shown,
        correlations=correlations(power),
        left_out_steps=series.steps - power.shape[1],
    )


def _series(arguments: argparse.Namespace) -> WindSeries:
    from power_feed.wind_files import WindOptions, read_wind_file

    common, single = _megawatts("--nameplate-mw", arguments.nameplate_mw)
    options = WindOptions(
        unit=arguments.unit,
        nameplate_megawatts=common,
        nameplates_megawatts=single,
        unit_advice="say --unit per_unit or --unit mw to be sure",
        nameplate_advice="say --nameplate-mw to be sure",
    )
    series = read_wind_file(resolve(arguments.wind), options)
    _check_names("--nameplate-mw", single, series.sites)
    if arguments.nameplate_mw and not series.nameplates_megawatts:
        raise SizeError(f"--nameplate-mw: {series.name} is not in MW: say --farm-mw, or --unit mw if it is")
    return series


def _farm_megawatts(words: list[str], series: WindSeries, names: tuple[str, ...]) -> dict[str, float]:
    """A farm's own, that of all, the file's."""
    common, single = _megawatts("--farm-mw", words)
    _check_names("--farm-mw", single, names)
    usual = dict.fromkeys(names, DEFAULT_FARM_MEGAWATTS) | dict(series.nameplates_megawatts)
    return {name: single.get(name, usual[name] if common is None else common) for name in names}


def _megawatts(option: str, words: list[str]) -> tuple[float | None, dict[str, float]]:
    """`100` is of all farms, the last one counts; `FARM=100` of one."""
    common, single = None, {}
    for word in words:
        name, separator, number = word.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            raise SizeError(f"{option} {word}: {number!r} is no number of MW") from None
        if not 0 < value < math.inf:
            raise SizeError(f"{option} {word}: it must be above 0")
        if separator:
            single[name] = value
        else:
            common = value
    return common, single


def _check_names(option: str, given: dict[str, float], names: tuple[str, ...]) -> None:
    for name in given:
        if name not in names:
            raise SizeError(
                f"{option} {name}={given[name]:g}: no farm called {name}; there are {', '.join(names)}"
            )


def _percentiles(text: str) -> tuple[float, ...]:
    try:
        found = sorted({float(word) for word in text.split(",")})
    except ValueError:
        raise SizeError(f"--percentiles {text}: numbers with commas between them, as 20,30,40") from None
    if any(not 0 <= value <= 100 for value in found):
        raise SizeError(f"--percentiles {text}: each lies between 0 and 100")
    return tuple(found)


def _nearest(values: tuple[float, ...], wanted: float) -> float:
    return min(values, key=lambda value: (abs(value - wanted), value))


def _check_prices(given: dict[str, float]) -> None:
    for name, value in given.items():
        if name in ("server_years", "facility_years"):
            is_meant, wanted = MIN_YEARS <= value <= MAX_YEARS, f"{MIN_YEARS:g} to {MAX_YEARS:g}"
        elif name == "tokens_per_second":
            is_meant, wanted = value > 0, "above 0"
        elif name == "overhead":
            is_meant, wanted = value >= 1, "1 or more"
        else:
            is_meant, wanted = value >= 0, "0 or more"
        if not is_meant or not math.isfinite(value):
            raise SizeError(f"--{name.replace('_', '-')} {value:g}: it must be {wanted}")


def _tell_short(series: WindSeries, steps: int) -> None:
    """Say on stderr what makes figures of a year out of little."""
    left_out_ratio = 1 - steps / series.steps
    if left_out_ratio > LEFT_OUT_RATIO:
        print(
            f"{series.name}: {left_out_ratio:.0%} of its steps are left out, where a farm was not measured: "
            "the rest stands for them",
            file=sys.stderr,
        )
    days = series.steps * series.period_seconds / 86_400
    if days < DAYS_PER_YEAR:
        print(
            f"{series.name}: {days:,.2f} days, less than a year: what is said of a year is scaled up, "
            "without the seasons that are not in it",
            file=sys.stderr,
        )


def _document(result: SizeResult) -> dict[str, Any]:
    from simulator.sizing_cost import SOURCES

    return {
        "wind": result.series.name,
        "period_seconds": result.series.period_seconds,
        "steps": int(result.power.shape[1]),
        "left_out_steps": result.left_out_steps,
        "farm_megawatts": dict(result.sizing.farm_megawatts),
        "gpu": asdict(result.kind),
        "gpu_watts": result.sizing.gpu_watts,
        "shortage_ratio": result.sizing.shortage_ratio,
        "export_ratio": result.sizing.export_ratio,
        "prices": asdict(result.prices),
        "price_sources": {
            name: "given" if name in result.given else source for name, source in SOURCES.items()
        },
        "correlations": {
            name: dict(zip(result.sizing.farm_megawatts, row, strict=True))
            for name, row in zip(result.sizing.farm_megawatts, result.correlations, strict=True)
        },
        "fleets": [
            asdict(fleet)
            | {
                "gpus": fleet.gpus,
                "cluster_megawatts": fleet.cluster_megawatts,
                "shortage_hours_alone": fleet.shortage_hours_alone,
                "firm_ratio_alone": fleet.firm_ratio_alone,
                "cost": None if money is None else asdict(money),
            }
            for fleet, money in zip(result.fleets, result.costs, strict=True)
        ],
    }


def _finite(value: Any) -> Any:
    """JSON has neither NaN nor infinity: null."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plot(result: SizeResult, path: Path) -> None:
    try:
        from cli.size_plot import draw
    except ModuleNotFoundError as error:
        raise SizeError(f"--plot needs {error.name}: {extra_hint('simulate')}") from None
    draw(result, path)
