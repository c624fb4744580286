"""`heron power-feed backtest --wind FILE`: how good the forecast is on a record, against point
persistence.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import exit_codes
from fleet.config import ConfigError

if TYPE_CHECKING:
    from power_feed.backtest import Score

MEASURED_FORECASTS = 200
Totals = dict[float, dict[str, "Score"]]

NOTE = """Pinball loss: mean over p10, p50, p90, in thousandths of nameplate, all columns together.
point: the last measurement, with the quantiles of its errors in the first three quarters.
level: what the feed runs (persistence, errors by level). moods: by recent change and unrest too.
Scored on the last quarter, from which nothing was fitted. Below p10 should be 10 %, below p90 90 %."""


def run(arguments: argparse.Namespace) -> int:
    """Print the table, or with `--json` the figures.

    Raises:
        ConfigError: no file was named, it is no wind file, or it is too short.
    """
    from cli.data import resolve
    from power_feed.backtest import BacktestError, backtest
    from power_feed.wind_files import read_wind_file
    from power_feed.wind_series import WindFileError

    if arguments.wind is None:
        raise ConfigError(
            "heron power-feed backtest: --wind FILE is missing: a wind file, or a name of `heron data`"
        )
    path = resolve(arguments.wind)
    totals: Totals = {}
    try:
        series = read_wind_file(path)
        times = _measure(tuple(series.ratios[series.sites[0]]), series.period_seconds)
        for site in series.sites:
            for horizon, scores in backtest(tuple(series.ratios[site]), series.period_seconds).items():
                kept = totals.setdefault(horizon, {})
                for name, score in scores.items():
                    kept[name] = kept[name].merged(score) if name in kept else score
    except WindFileError as error:
        raise ConfigError(f"heron power-feed backtest: {error}") from None
    except BacktestError as error:
        raise ConfigError(f"heron power-feed backtest: {path}: {error}") from None
    if arguments.json:
        figures = {
            "file": path.name,
            "horizons": [_figures(at, totals[at]) for at in totals],
            "times": {name: kept.figures() for name, kept in times.items()},
        }
        print(json.dumps(figures, indent=1))
    else:
        _show(path, series.sites, series.period_seconds, totals)
        _show_times(times)
    return exit_codes.DONE


@dataclass(frozen=True, slots=True, kw_only=True)
class _Times:
    """What one model took, on this machine as it was just then."""

    measurements: int
    learning_seconds: float
    forecasts: int
    forecasting_seconds: float

    def figures(self) -> dict[str, float]:
        return {
            "measurements": self.measurements,
            "learning_seconds_per_measurement": self.learning_seconds / max(1, self.measurements),
            "seconds_per_forecast": self.forecasting_seconds / max(1, self.forecasts),
            "learning_seconds": self.learning_seconds,
        }


def _measure(ratios: Sequence[float], period_seconds: float) -> dict[str, _Times]:
    """Of one column: learnt from its first step to its last at a feed's horizons, then asked for forecasts.

    There is no fit but this: a model learns from each measurement as it comes.
    """
    from power_feed.backtest import models
    from power_feed.forecast import STANDARD_HORIZONS_SECONDS

    known = [(step * period_seconds, ratio) for step, ratio in enumerate(ratios) if ratio == ratio]
    times: dict[str, _Times] = {}
    for name, model in models(STANDARD_HORIZONS_SECONDS).items():
        begin = time.perf_counter()
        for at, ratio in known:
            model.observe(ratio, at)
        learnt = time.perf_counter()
        for _ in range(MEASURED_FORECASTS):
            model.quantiles()
        times[name] = _Times(
            measurements=len(known),
            learning_seconds=learnt - begin,
            forecasts=MEASURED_FORECASTS,
            forecasting_seconds=time.perf_counter() - learnt,
        )
    return times


def _show_times(times: dict[str, _Times]) -> None:
    for name, kept in times.items():
        figures = kept.figures()
        print(
            f"{name}: {1e6 * figures['learning_seconds_per_measurement']:.0f} µs to learn from a measurement "
            f"({kept.measurements:,} in {kept.learning_seconds:.2f} s), "
            f"{1e3 * figures['seconds_per_forecast']:.2f} ms for a forecast of all horizons"
        )


def _figures(horizon: float, scores: dict[str, Score]) -> dict[str, Any]:
    reference = scores["point"].mean_loss_ratio
    return {
        "horizon_seconds": horizon,
        "models": {
            name: {
                "forecasts": score.forecasts,
                "pinball_loss_ratio": score.mean_loss_ratio,
                "better_than_point_ratio": 1 - score.mean_loss_ratio / reference if reference else 0.0,
                "below_p10_ratio": score.coverage_ratio(0),
                "below_p90_ratio": score.coverage_ratio(2),
            }
            for name, score in scores.items()
        },
    }


def _show(path: Path, sites: tuple[str, ...], period_seconds: float, totals: Totals) -> None:
    print(f"{path.name}: {len(sites)} columns ({', '.join(sites)}), a step of {period_seconds:g} s")
    print("horizon  model   loss ‰   better   below p10   below p90   forecasts")
    for horizon, scores in totals.items():
        for name, figures in _figures(horizon, scores)["models"].items():
            print(
                f"{horizon / 60:4.0f} min  {name:6}  {1000 * figures['pinball_loss_ratio']:6.2f}  "
                f"{100 * figures['better_than_point_ratio']:6.1f} %  "
                f"{100 * figures['below_p10_ratio']:8.1f} %  {100 * figures['below_p90_ratio']:8.1f} %  "
                f"{figures['forecasts']:10,}"
            )
    print(NOTE)
    print("Horizons below the file's step cannot be judged by it, and are left out.")


def wind_argument(parser: argparse.ArgumentParser) -> None:
    """The arguments of this action alone."""
    parser.add_argument("--wind", metavar="FILE", help="backtest: a wind file, or a name of `heron data`")
    parser.add_argument("--json", action="store_true", help="backtest: figures as JSON")
