"""Small scenes for tests of the simulator: steady or falling wind, few requests, seconds to run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from simulator.settings import Fault, RouterSettings, SiteSettings, Telemetry
from simulator.wind import Turbulence, Watts, per_second
from simulator.workload import Arrivals, Rate, Sizes, draw
from simulator.world import MAX_DRAIN_SECONDS, TAIL_SECONDS, Scene
from site_agent.controls import DEFAULT_CONTROL

NAMEPLATE_WATTS = 20_000.0
SIZES = Sizes(
    prompt_tokens=np.array([200, 400, 1000, 1200, 3000]),
    output_tokens=np.array([400, 60, 130, 300, 20]),
    description="five rows of a test",
)


def no_file(name: str) -> Path:
    """Where wind and load are generated, nobody asks for a file."""
    raise FileNotFoundError(name)


def sites(
    count: int = 3,
    *,
    start_seconds: float = 5.0,
    control: str = DEFAULT_CONTROL,
    has_switch: bool = True,
    per_farm: int = 1,
) -> tuple[SiteSettings, ...]:
    """Sites `s0`, `s1`, …, further and further away; `per_farm` in a row share their farm."""
    return tuple(
        SiteSettings(
            site_id=f"s{index}",
            wind=f"s{index - index % per_farm}",
            farm=None if per_farm == 1 else f"s{index - index % per_farm}",
            round_trip_seconds=0.01 + 0.02 * index,
            start_seconds=start_seconds,
            control=control,
            has_server_switch=has_switch,
        )
        for index in range(count)
    )


def wind(ratios: Sequence[float], *, seconds: int, seed: str, step_seconds: float) -> Watts:
    """Samples `step_seconds` apart."""
    return per_second(
        ratios,
        period_seconds=step_seconds,
        start_seconds=0.0,
        seconds=seconds,
        nameplate_watts=NAMEPLATE_WATTS,
        turbulence=Turbulence(),
        seed=seed,
    )


def scene(
    *,
    rate: float = 4.0,
    seconds: int = 120,
    warm_up_seconds: int = 30,
    seed: str = "1",
    winds: Sequence[Sequence[float]] = ((0.8,), (0.5,), (0.6,)),
    step_seconds: float = 30.0,
    router: RouterSettings | None = None,
    telemetry: Telemetry | None = None,
    faults: tuple[Fault, ...] = (),
    arrivals: Arrivals | None = None,
    control: str = DEFAULT_CONTROL,
    has_switch: bool = True,
    per_farm: int = 1,
) -> Scene:
    """A scene of as many farms as there are winds, each with `per_farm` sites."""
    fleet = sites(len(winds) * per_farm, control=control, has_switch=has_switch, per_farm=per_farm)
    total = seconds + TAIL_SECONDS + MAX_DRAIN_SECONDS + 1
    of_farm = {
        site.site_id: wind(ratios, seconds=total, seed=f"{seed}/{site.site_id}", step_seconds=step_seconds)
        for site, ratios in zip(fleet[::per_farm], winds, strict=True)
    }
    watts = {site.site_id: of_farm[site.farm_name] for site in fleet}
    if arrivals is None:
        arrivals = draw(
            Rate(per_second=np.array([rate]), bin_seconds=10.0, shape="conv", description="constant"),
            SIZES,
            start_seconds=0.0,
            seconds=seconds + TAIL_SECONDS,
            scale=1.0,
            mode="poisson",
            seed=seed,
        )
    return Scene(
        sites=fleet,
        router=router or RouterSettings(),
        telemetry=telemetry or Telemetry(),
        watts=watts,
        nameplate_watts={site.site_id: NAMEPLATE_WATTS for site in fleet},
        arrivals=arrivals,
        warm_up_seconds=warm_up_seconds,
        seconds=seconds,
        seed=seed,
        faults=faults,
    )
