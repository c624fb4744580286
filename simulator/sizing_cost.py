"""What a GPU-hour costs at a wind farm and in a grid-powered data centre. Pure.

    yearly cost = capital recovery and maintenance of servers and buildings + sites + energy
    $ per GPU-hour = yearly cost ÷ (GPUs × 8,760 h × use)

Use is 1 on the grid and what the wind gives at the farm. Capital recovery of a sum over n years at rate i is
i ÷ (1 − (1 + i)^−n) of it a year (the annuity formula). Every price is an input; `SOURCES` says where
its default comes from, or that it is assumed. Money is US dollars, of no particular year.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fleet.profile import SitePowerModel
from simulator.sizing import HOURS_PER_YEAR, FleetSize

DEFAULT_OVERHEAD_RATIO = SitePowerModel().overhead_ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuKind:
    """A GPU in an eight-GPU server, serving Llama-3.1-70B in bf16."""

    name: str
    serving_watts: float
    host_watts: float
    """Its share of the host's."""
    usd: float
    """With its share of the server."""
    tokens_per_second: float
    """Output tokens at that draw."""
    source: str
    """Of watts and tokens per second."""
    price_source: str

    def peak_watts(self, overhead_ratio: float) -> float:
        """All in: GPU, host, cooling and conversion."""
        return (self.serving_watts + self.host_watts) * overhead_ratio


GPUS: Mapping[str, GpuKind] = {
    "h100": GpuKind(
        name="H100-80GB SXM",
        serving_watts=589.0,
        host_watts=250.0,
        usd=33_750.0,
        tokens_per_second=1_229.0,
        source="ML.ENERGY v3, Llama-3.1-70B, batch 256, a quarter of 4×H100; host: assumed 2 kW a server",
        price_source="an eighth of a DGX H100 at $270,000 (SemiAnalysis 2023, as quoted in Epoch AI's"
        " training-cost-trends on GitHub)",
    ),
    "b200": GpuKind(
        name="B200",
        serving_watts=971.0,
        host_watts=300.0,
        usd=64_400.0,
        tokens_per_second=2_686.0,
        source="ML.ENERGY v3, Llama-3.1-70B, batch 256, half of 2×B200; host: assumed 2.4 kW a server",
        price_source="an eighth of a DGX B200 at $515,000 (vengineer.hatenablog.com, March 2025)",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Everything that has a price."""

    gpu_usd: float
    server_years: float = 5.0
    facility_usd_per_watt: float = 11.7
    """Of IT watts; the same below."""
    wind_facility_usd_per_watt: float = 11.7
    facility_years: float = 15.0
    interest_ratio: float = 0.08
    maintenance_ratio: float = 0.03
    """Of what was invested, a year."""
    wind_site_usd_per_year: float = 100_000.0
    grid_usd_per_megawatt_hour: float = 80.6
    wind_usd_per_megawatt_hour: float = 61.5


SOURCES: Mapping[str, str] = {
    "gpu_usd": "see the GPU",
    "server_years": "assumed",
    "facility_usd_per_watt": "Cushman & Wakefield, Data Center Development Cost Guide 2025: mean of 19 US"
    " markets, $11.7 million a MW of critical load, without land",
    "wind_facility_usd_per_watt": "assumed equal to the grid's, though neither generators nor a large UPS are"
    " needed",
    "facility_years": "assumed",
    "interest_ratio": "assumed",
    "maintenance_ratio": "assumed",
    "wind_site_usd_per_year": "assumed: fibre, roads and visits of a remote site",
    "grid_usd_per_megawatt_hour": "EIA: US industrial customers, mean of 2023, 8.06 ¢/kWh (from Statista)",
    "wind_usd_per_megawatt_hour": "Lazard LCOE+ of June 2025: onshore wind, unsubsidised, $37–86/MWh; the"
    " middle. Paid for the energy used, not for what is curtailed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One fleet against the same GPUs on the grid."""

    wind_usd_per_gpu_hour: float
    grid_usd_per_gpu_hour: float
    wind_usd_per_million_tokens: float
    grid_usd_per_million_tokens: float
    even_use_ratio: float
    """The use at which both cost the same; above 1: not at these prices."""
    even_gpu_usd: float | None
    """The GPU's price at which both cost the same at this use; None: none does."""
    even_grid_usd_per_megawatt_hour: float
    """The grid's price at which both cost the same."""


def capital_recovery(years: float, interest_ratio: float) -> float:
    """Share of a sum to be paid back each year.

    Raises:
        ValueError: no positive number of years, or interest below 0.
    """
    if not years > 0 or not interest_ratio >= 0:
        raise ValueError(f"{years:g} years at {interest_ratio:g}: years must be above 0, interest not below")
    if interest_ratio == 0:
        return 1 / years
    return interest_ratio / -math.expm1(-years * math.log1p(interest_ratio))


def fixed_usd_per_hour(
    prices: Prices,
    *,
    gpus: int,
    gpu_watts: float,
    wind_sites: int,
    overhead_ratio: float = DEFAULT_OVERHEAD_RATIO,
) -> float:
    """Servers and buildings of so many GPUs, and the sites: all but energy. No wind site: one on the grid.

    `gpu_watts` are of one GPU at its peak, host and overhead included; a building is paid by its IT watts,
    without the overhead.
    """
    facility = capital_recovery(prices.facility_years, prices.interest_ratio) + prices.maintenance_ratio
    per_watt = prices.wind_facility_usd_per_watt if wind_sites else prices.facility_usd_per_watt
    a_gpu = _server_share(prices) * prices.gpu_usd + facility * per_watt * gpu_watts / overhead_ratio
    return (gpus * a_gpu + wind_sites * prices.wind_site_usd_per_year) / HOURS_PER_YEAR


def _server_share(prices: Prices) -> float:
    """Of a server's price, to be paid a year."""
    return capital_recovery(prices.server_years, prices.interest_ratio) + prices.maintenance_ratio


def cost(
    fleet: FleetSize,
    gpu: GpuKind,
    prices: Prices,
    *,
    gpu_watts: float,
    overhead_ratio: float = DEFAULT_OVERHEAD_RATIO,
) -> Cost | None:
    """Both costs of this fleet; None where it has no GPU."""
    if fleet.gpus == 0:
        return None
    use = fleet.use_ratio
    sites = sum(1 for farm in fleet.farms if farm.gpus)
    gpu_fixed = fixed_usd_per_hour(prices, gpus=1, gpu_watts=0.0, wind_sites=0)
    watts = {"gpu_watts": gpu_watts, "overhead_ratio": overhead_ratio}
    on_grid = fixed_usd_per_hour(prices, gpus=1, wind_sites=0, **watts)
    at_farms = fixed_usd_per_hour(prices, gpus=fleet.gpus, wind_sites=sites, **watts) / fleet.gpus
    grid_facility, wind_facility = on_grid - gpu_fixed, at_farms - gpu_fixed
    grid_energy = prices.grid_usd_per_megawatt_hour * gpu_watts / 1e6
    wind_energy = prices.wind_usd_per_megawatt_hour * gpu_watts / 1e6
    wind = (gpu_fixed + wind_facility) / use + wind_energy
    grid = gpu_fixed + grid_facility + grid_energy
    tokens_per_hour = gpu.tokens_per_second * 3600 / 1e6
    saved = grid - wind_energy
    return Cost(
        wind_usd_per_gpu_hour=wind,
        grid_usd_per_gpu_hour=grid,
        wind_usd_per_million_tokens=wind / tokens_per_hour,
        grid_usd_per_million_tokens=grid / tokens_per_hour,
        even_use_ratio=(gpu_fixed + wind_facility) / saved if saved > 0 else math.inf,
        even_gpu_usd=_even_gpu(
            use, saved - gpu_fixed - wind_facility / use, _server_share(prices) / HOURS_PER_YEAR
        ),
        even_grid_usd_per_megawatt_hour=(wind - gpu_fixed - grid_facility) / gpu_watts * 1e6,
    )


def _even_gpu(use: float, rest_usd_per_hour: float, recovery_per_hour: float) -> float | None:
    """g with g · recovery · (1 ÷ use − 1) = what wind saves elsewhere."""
    if rest_usd_per_hour < 0 or use >= 1:
        return None
    return rest_usd_per_hour / (recovery_per_hour * (1 / use - 1))
