"""What `heron size` found, for its tables, plot and JSON."""

from __future__ import annotations

from dataclasses import dataclass

from power_feed.wind_series import WindSeries
from simulator.sizing import FleetSize, Ratios, Sizing
from simulator.sizing_cost import Cost, GpuKind, Prices


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SizeResult:
    """Input and answer together."""

    series: WindSeries
    power: Ratios
    sizing: Sizing
    kind: GpuKind
    prices: Prices
    given: frozenset[str]
    """Prices that the user gave."""
    fleets: tuple[FleetSize, ...]
    costs: tuple[Cost | None, ...]
    shown: FleetSize
    """The one whose farms and curves are shown."""
    correlations: list[list[float]]
    left_out_steps: int
