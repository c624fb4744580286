"""The plot of `heron size`: four panels on one page."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from cli.size_result import SizeResult
from simulator.sizing import Ratios, duration_curves

MAX_CURVE_POINTS = 500
"""Of a duration curve: more cannot be seen, and an SVG would hold a year of steps."""
_WIND, _GRID, _FARM = "#1b6ca8", "#b5532a", "#9aa5b1"


def draw(result: SizeResult, path: Path) -> None:
    """Write the plot; the suffix of `path` chooses the format.

    Raises:
        OSError: it cannot be written.
    """
    figure, axes = plt.subplots(2, 2, figsize=(11, 8), constrained_layout=True)
    figure.suptitle(
        f"{result.series.name}: {len(result.shown.farms)} farms,"
        f" {sum(result.sizing.farm_megawatts.values()):,.0f} MW of wind, {result.kind.name}"
    )
    try:
        _use(axes[0][0], result)
        _curves(axes[0][1], result)
        _shortages(axes[1][0], result)
        _costs(axes[1][1], result)
        figure.savefig(path, dpi=130)
    finally:
        plt.close(figure)


def _style(axis: Axes, title: str, x: str, y: str) -> None:
    axis.set_title(title, fontsize=11)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def _use(axis: Axes, result: SizeResult) -> None:
    percents = [fleet.percentile for fleet in result.fleets]
    for index in range(len(result.shown.farms)):
        alone = [fleet.farms[index].use_ratio for fleet in result.fleets]
        axis.plot(percents, alone, color=_FARM, lw=1, label="a farm alone" if index == 0 else None)
    together = [fleet.use_ratio for fleet in result.fleets]
    axis.plot(percents, together, color=_WIND, lw=2.5, marker="o", label="all farms")
    for percent, use, fleet in zip(percents, together, result.fleets, strict=True):
        label = f"{fleet.gpus:,}"
        axis.annotate(label, (percent, use), textcoords="offset points", xytext=(4, 8), fontsize=8)
    axis.set_ylim(0, 1.05)
    axis.set_xlim(right=percents[-1] + 6)
    axis.legend(frameon=False, loc="lower left")
    _style(axis, "Use of the clusters (labels: GPUs)", "cluster peak: percentile of the farm's power", "use")


def _curves(axis: Axes, result: SizeResult) -> None:
    alone, together = duration_curves(result.power, result.shown)
    for index, curve in enumerate(alone):
        axis.plot(*_thinned(curve), color=_FARM, lw=1, label="a farm alone" if index == 0 else None)
    if len(together):
        axis.plot(*_thinned(together), color=_WIND, lw=2.5, label="all farms together")
    axis.axhline(result.sizing.shortage_ratio, color=_GRID, lw=1, ls="--", label="deep shortage below")
    axis.set_ylim(0, 1.05)
    axis.legend(frameon=False, loc="lower left")
    title = f"Power for the clusters at p{result.shown.percentile:g}"
    _style(axis, title, "% of the time", "share of the peak")


def _thinned(curve: Ratios) -> tuple[Ratios, Ratios]:
    """% of the time and value, at most so many points; first and last are kept."""
    places = np.linspace(0, len(curve) - 1, min(len(curve), MAX_CURVE_POINTS))
    share = places / max(1, len(curve) - 1) * 100
    return share, np.asarray(np.interp(places, np.arange(len(curve)), curve), dtype=np.float64)


def _shortages(axis: Axes, result: SizeResult) -> None:
    places = np.arange(len(result.fleets))
    alone = [fleet.shortage_hours_alone for fleet in result.fleets]
    together = [fleet.shortage_hours_per_year for fleet in result.fleets]
    axis.bar(places - 0.2, alone, 0.38, color=_FARM, label="a farm alone (mean)")
    axis.bar(places + 0.2, together, 0.38, color=_WIND, label="all farms together")
    axis.set_xticks(places, [f"p{fleet.percentile:g}" for fleet in result.fleets])
    axis.legend(frameon=False, loc="upper left")
    title = f"Hours a year below {result.sizing.shortage_ratio:.0%} of the peak"
    _style(axis, title, "cluster peak", "hours")


def _costs(axis: Axes, result: SizeResult) -> None:
    known = [(fleet, money) for fleet, money in zip(result.fleets, result.costs, strict=True) if money]
    percents = [fleet.percentile for fleet, _ in known]
    wind = [money.wind_usd_per_gpu_hour for _, money in known]
    axis.plot(percents, wind, color=_WIND, lw=2.5, marker="o", label="at the wind farms")
    if known:
        grid = known[0][1].grid_usd_per_gpu_hour
        axis.axhline(grid, color=_GRID, lw=2, label=f"on the grid, always on: ${grid:.2f}")
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False, loc="lower left")
    _style(axis, "Cost of an available GPU-hour", "cluster peak: percentile of the farm's power", "US $")
