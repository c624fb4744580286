"""How large a cluster at a wind farm should be, and what many farms do for each other. Pure.

Right-sizing: a farm's cluster draws at its peak what the farm gives at the p-th percentile of its record. It
uses min(power, peak); its *use* is the mean of that ÷ its peak, the share of its peak that it can run in the
mean. Sites cannot lend each other power, only work: *together*, the fleet has Σ min(power, peak) ÷ Σ peak at
each moment, so its mean is that of the sites (weighted), but its bad hours are fewer.

Power is taken as capacity here, watt for watt. It is not (below its idle draw a server does nothing, at lower
clocks a watt does more): what of it becomes goodput is the simulator's business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from power_feed.wind_series import WindSeries
from simulator.weeks import percentile

Ratios = npt.NDArray[np.float64]

HOURS_PER_YEAR = 8760.0
DEFAULT_PERCENTILES = (20.0, 30.0, 40.0, 50.0, 60.0)
DEFAULT_SHORTAGE_RATIO = 0.5
"""A deep shortage: less than half the peak."""
FIRM_SHARE = 0.95
GPUS_PER_SERVER = 8


class SizingError(ValueError):
    """Input from which no cluster can be sized; says what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """What to size, and how."""

    farm_megawatts: Mapping[str, float]
    """Nameplate by farm, in the record's names."""
    gpu_watts: float
    """One GPU at its peak, with its share of host and overhead."""
    shortage_ratio: float = DEFAULT_SHORTAGE_RATIO
    export_ratio: float = 0.0
    """What the farm's grid connection can take, as a share of its nameplate; 0: it waits for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FarmSize:
    """One farm with its cluster."""

    name: str
    farm_megawatts: float
    capacity_factor: float
    peak_ratio: float
    """Cluster's peak ÷ nameplate, in whole servers."""
    gpus: int
    use_ratio: float
    """NaN where no server fits."""
    shortage_hours_per_year: float
    firm_ratio: float
    """Share of its peak that it has for 95 % of the time."""

    @property
    def cluster_megawatts(self) -> float:
        """At its peak."""
        return self.peak_ratio * self.farm_megawatts


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSize:
    """All farms, each sized by the same percentile of its own power."""

    percentile: float
    farms: tuple[FarmSize, ...]
    use_ratio: float
    shortage_hours_per_year: float
    """Of the fleet together."""
    firm_ratio: float
    wind_megawatt_hours: float
    """Available, in a year; the same below."""
    used_megawatt_hours: float
    curtailed_megawatt_hours: float
    """Without clusters: what the grid connection cannot take."""
    curtailed_used_megawatt_hours: float

    @property
    def gpus(self) -> int:
        """Of all clusters."""
        return sum(farm.gpus for farm in self.farms)

    @property
    def cluster_megawatts(self) -> float:
        """Sum of the peaks."""
        return math.fsum(farm.cluster_megawatts for farm in self.farms)

    @property
    def shortage_hours_alone(self) -> float:
        """Mean over the farms that have a cluster, each weighted by its peak."""
        return self._weighted([farm.shortage_hours_per_year for farm in self.farms])

    @property
    def firm_ratio_alone(self) -> float:
        """Likewise."""
        return self._weighted([farm.firm_ratio for farm in self.farms])

    def _weighted(self, values: Sequence[float]) -> float:
        total = self.cluster_megawatts
        if total == 0:
            return math.nan
        pairs = zip(values, self.farms, strict=True)
        return math.fsum(v * f.cluster_megawatts for v, f in pairs if f.gpus) / total


def known_power(series: WindSeries, farms: Sequence[str]) -> Ratios:
    """Farms × steps, shares of nameplate; steps at which some farm was not measured are left out.

    Raises:
        SizingError: a farm that the record has not or that is named twice, or no step with all of them.
    """
    missing = [farm for farm in farms if farm not in series.ratios]
    if missing or not farms:
        raise SizingError(
            f"{series.name}: no farm called {', '.join(missing) or '(none given)'};"
            f" it has {', '.join(series.sites)}"
        )
    if len(set(farms)) < len(farms):
        raise SizingError(f"{', '.join(farms)}: each farm counts once")
    power = np.array([np.asarray(series.ratios[farm], dtype=np.float64) for farm in farms])
    power = power[:, ~np.isnan(power).any(axis=0)]
    if power.shape[1] == 0:
        raise SizingError(f"{series.name}: no step at which all of {', '.join(farms)} were measured")
    return np.asarray(np.clip(power, 0.0, 1.0), dtype=np.float64)


def size_fleet(power: Ratios, percent: float, sizing: Sizing) -> FleetSize:
    """Clusters at the `percent`-th percentile; `power` as `known_power` gives it, in the order of the farms.

    Raises:
        SizingError: a percentile outside 0–100, a nameplate or GPU that is not positive.
    """
    _check(percent, sizing)
    names = list(sizing.farm_megawatts)
    megawatts = np.array([sizing.farm_megawatts[name] for name in names])
    server_megawatts = GPUS_PER_SERVER * sizing.gpu_watts / 1e6
    wanted = np.array([percentile(row.tolist(), percent) for row in power]) * megawatts
    servers = np.floor(wanted / server_megawatts + 1e-9)
    peaks = servers * server_megawatts
    available = power * megawatts[:, None]
    used = np.minimum(available, peaks[:, None])
    farms = tuple(
        _farm(name, float(megawatts[i]), power[i], used[i], float(peaks[i]), int(servers[i]), sizing)
        for i, name in enumerate(names)
    )
    together = used.sum(axis=0) / peaks.sum() if peaks.sum() > 0 else np.full(power.shape[1], math.nan)
    surplus = np.maximum(available - sizing.export_ratio * megawatts[:, None], 0.0)
    curtailed_used = np.minimum(surplus, peaks[:, None])
    return FleetSize(
        percentile=percent,
        farms=farms,
        use_ratio=float(together.mean()),
        shortage_hours_per_year=_shortage_hours(together, sizing.shortage_ratio),
        firm_ratio=_firm(together),
        wind_megawatt_hours=float(available.sum(axis=0).mean()) * HOURS_PER_YEAR,
        used_megawatt_hours=float(used.sum(axis=0).mean()) * HOURS_PER_YEAR,
        curtailed_megawatt_hours=float(surplus.sum(axis=0).mean()) * HOURS_PER_YEAR,
        curtailed_used_megawatt_hours=float(curtailed_used.sum(axis=0).mean()) * HOURS_PER_YEAR,
    )


def correlations(power: Ratios) -> list[list[float]]:
    """Between the farms' power; NaN for a farm whose power never changes, and where there is one step."""
    if power.shape[1] < 2:
        return [[math.nan] * len(power) for _ in power]
    with np.errstate(invalid="ignore", divide="ignore"):
        matrix: Ratios = np.asarray(np.corrcoef(power)).reshape(len(power), len(power))
    return [[float(value) for value in row] for row in matrix]


def duration_curves(power: Ratios, fleet: FleetSize) -> tuple[list[Ratios], Ratios]:
    """Share of peak, the highest first: of each farm with a cluster alone, and of all together."""
    used, peaks = [], []
    for row, farm in zip(power, fleet.farms, strict=True):
        if farm.gpus:
            used.append(np.minimum(row, farm.peak_ratio) * farm.farm_megawatts)
            peaks.append(farm.cluster_megawatts)
    if not used:
        return [], np.array([])
    alone = [np.sort(row / peak)[::-1] for row, peak in zip(used, peaks, strict=True)]
    return alone, np.sort(np.sum(used, axis=0) / sum(peaks))[::-1]


def _check(percent: float, sizing: Sizing) -> None:
    if not 0 <= percent <= 100:
        raise SizingError(f"percentile {percent:g}: allowed is 0 to 100")
    for name, value in (*sizing.farm_megawatts.items(), ("gpu_watts", sizing.gpu_watts)):
        if not 0 < value < math.inf:
            raise SizingError(f"{name}: {value:g}; it must be above 0")
    if not 0 < sizing.shortage_ratio < 1:
        raise SizingError(f"shortage_ratio is {sizing.shortage_ratio:g}; it lies between 0 and 1")
    if not 0 <= sizing.export_ratio <= 1:
        raise SizingError(f"export_ratio is {sizing.export_ratio:g}; it lies between 0 and 1")


def _farm(
    name: str, megawatts: float, power: Ratios, used: Ratios, peak: float, servers: int, sizing: Sizing
) -> FarmSize:
    share = used / peak if peak > 0 else np.full(len(used), math.nan)
    return FarmSize(
        name=name,
        farm_megawatts=megawatts,
        capacity_factor=float(power.mean()),
        peak_ratio=peak / megawatts,
        gpus=servers * GPUS_PER_SERVER,
        use_ratio=float(share.mean()),
        shortage_hours_per_year=_shortage_hours(share, sizing.shortage_ratio),
        firm_ratio=_firm(share),
    )


def _shortage_hours(share: Ratios, shortage_ratio: float) -> float:
    return math.nan if np.isnan(share).any() else float((share < shortage_ratio).mean()) * HOURS_PER_YEAR


def _firm(share: Ratios) -> float:
    return float(np.quantile(share, 1 - FIRM_SHARE))
