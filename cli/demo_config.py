"""What the demo runs: the fleet's configuration, and the wind of each scenario. Pure.

Three sites of three emulated engines each (Llama-3.1-70B on 4×H100 by the published profile), each at a
farm of its own; with `--engine vllm` two sites with one real engine each. A farm is sized so that its site
runs at full power at 30 % of nameplate. A scenario is a schedule of wind per site; its seconds count from the
moment at which traffic starts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fleet.power import CapRule, RideThrough
from fleet.profile import LLAMA_70B_H100_TP4, SitePowerModel
from site_agent.site_model import SiteModel

Engine = Literal["emulated", "vllm"]
Scenario = Literal["calm", "sudden-drop", "site-crash", "all-dark"]

SCENARIOS: dict[Scenario, str] = {
    "calm": "wind for everything, all the time",
    "sudden-drop": "one site's power falls within a second to what its stopped engines draw, and comes back",
    "site-crash": "one site's agent is killed (kill -9), and started again later",
    "all-dark": "every site's power falls to what stopped engines draw, and comes back",
}
SITES: dict[Engine, tuple[str, ...]] = {"emulated": ("north", "coast", "ridge"), "vllm": ("north", "coast")}
STRICKEN_SITE = "coast"
"""Whose wind falls, or whose agent is killed."""

PROFILE = LLAMA_70B_H100_TP4
INSTANCES: dict[Engine, int] = {"emulated": 3, "vllm": 1}
MAX_CONCURRENCY = 16
POWER_MODEL = SitePowerModel(overhead_ratio=1.1, host_idle_watts=600.0)
ASSUMED_VLLM_WATTS = {"assumed_stopped_watts": 0.0, "assumed_idle_watts": 200.0, "assumed_busy_watts": 400.0}
"""Of a real engine without a power meter: the demo's assumption, so that a governor can plan."""
VLLM_MODEL = "tiny"
"""What clients call the real engines' model, whatever it is."""
MARGIN_RATIO = 0.05
RIDE_THROUGH_SECONDS = 5.0
FULL_POWER_RATIO = 0.3
"""Share of a farm's nameplate at which its site runs at full power."""
STRONG_WIND_RATIO = 0.6
FLOOR_FACTOR = 1.1
"""How far above the draw of stopped engines the wind stays in the scenarios."""
DARK_SECONDS = 15.0
"""At most this long is every site dark: accepted work waits less than that for its resume."""
ANY_WIND_RATIO = 10.0
"""Where a scenario's script is laid over a wind file, it limits nothing outside the scenario's fall."""

DRAIN_SECONDS = 0.5
"""Shorter than the default: the demo's answers are short, and it is to be seen that they go on elsewhere."""

FIRM_POWER_SOURCE = "the demo's assumption: a grid connection that carries the host with its engines stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSize:
    """The watts of one site, and of the farm that fits it."""

    idle_watts: float
    """Every engine stopped, overhead included."""
    peak_watts: float
    """Every engine busy at full clock."""

    @property
    def max_site_watts(self) -> float:
        """What the connection carries: a tenth above the peak, so that noise at full load is no excess."""
        return math.ceil(self.peak_watts * 1.1 / 100) * 100.0

    @property
    def nameplate_watts(self) -> float:
        return math.ceil(self.max_site_watts / (1 - MARGIN_RATIO) / FULL_POWER_RATIO / 100) * 100.0

    @property
    def floor_cap_watts(self) -> float:
        """The cap that the scenarios' wind falls to."""
        return FLOOR_FACTOR * self.idle_watts

    @property
    def floor_ratio(self) -> float:
        """The share of nameplate that makes this cap."""
        return self.floor_cap_watts / (1 - MARGIN_RATIO) / self.nameplate_watts


EMULATED_SITE = SiteModel(
    profile=PROFILE,
    power=POWER_MODEL,
    instances=INSTANCES["emulated"],
    max_concurrency=MAX_CONCURRENCY,
    clocks_mhz=PROFILE.clocks_mhz,
)
SIZES: dict[Engine, SiteSize] = {
    "emulated": SiteSize(idle_watts=EMULATED_SITE.server_idle_watts, peak_watts=EMULATED_SITE.full_watts),
    "vllm": SiteSize(
        idle_watts=POWER_MODEL.site_watts(ASSUMED_VLLM_WATTS["assumed_stopped_watts"]),
        peak_watts=POWER_MODEL.site_watts(ASSUMED_VLLM_WATTS["assumed_busy_watts"]),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WindFile:
    """`--wind`: which column of a file blows at which site."""

    path: Path
    columns: Mapping[str, str]
    """Site → column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmEngine:
    """`--engine vllm`: how to start it."""

    command: tuple[str, ...]
    model_path: str
    gpus_per_instance: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """All that the configuration depends on."""

    run_directory: Path
    ports: Sequence[int]
    """Free ones, `ports_needed` of them."""
    site_token: str
    seconds: float
    """How long traffic runs; scenarios happen at thirds of it."""
    scenario: Scenario | None = None
    wind: WindFile | None = None
    wind_speed: float = 1.0
    engine: Engine = "emulated"
    vllm: VllmEngine | None = None
    """Needed with the engine of that name."""
    seed: int = 0
    router_workers: int = 1
    slo_factor: float | None = None
    """The router's `slo_factor`."""
    dark_seconds: float = DARK_SECONDS

    @property
    def sites(self) -> tuple[str, ...]:
        return SITES[self.engine]

    @property
    def size(self) -> SiteSize:
        """Of each site."""
        return SIZES[self.engine]

    @property
    def is_wind_scripted(self) -> bool:
        """Whether a scenario alone makes the wind; then it never falls below the draw of stopped engines."""
        return self.scenario is not None and self.wind is None


PORTS_FIXED = 4
"""Redis, the router, its operations, the feed."""


def ports_needed(engine: Engine) -> int:
    """How many free ports `demo_tables` wants."""
    return PORTS_FIXED + 2 * len(SITES[engine])


def start_file(run_directory: Path) -> Path:
    """Holds the instant at which traffic, and with it the wind, starts."""
    return run_directory / "wind-start"


def site_directory(run_directory: Path, site_id: str) -> Path:
    """Where a site keeps its files, the fake GPUs' power log among them."""
    return run_directory / "sites" / site_id


def power_log(run_directory: Path, site_id: str) -> Path:
    """The fake GPUs' own 10-Hz log."""
    return site_directory(run_directory, site_id) / "fake-power.csv"


def schedule(options: DemoOptions, site_id: str) -> list[tuple[float, float]]:
    """(seconds since traffic started, share of nameplate), each valid until the next."""
    assert options.scenario is not None, "a schedule is a scenario's"
    falls_at, returns_at = options.seconds / 3, 2 * options.seconds / 3
    else_ratio = STRONG_WIND_RATIO if options.wind is None else ANY_WIND_RATIO
    if options.scenario == "all-dark":
        returns_at = min(returns_at, falls_at + options.dark_seconds)
    elif options.scenario != "sudden-drop" or site_id != STRICKEN_SITE:
        return [(0.0, else_ratio)]
    return [(0.0, else_ratio), (falls_at, options.size.floor_ratio), (returns_at, else_ratio)]


def crash_at_seconds(options: DemoOptions) -> tuple[float, float] | None:
    """When the stricken site's agent is killed and when it is started again; None: it is not."""
    return (options.seconds / 3, 2 * options.seconds / 3) if options.scenario == "site-crash" else None


def fall_at_seconds(options: DemoOptions) -> float | None:
    """When power falls, or the stricken site's agent is killed; None: never."""
    return None if options.scenario in (None, "calm") else options.seconds / 3


def cap_rule(options: DemoOptions) -> CapRule:
    """What the judge holds every site to."""
    return CapRule(
        max_site_watts=options.size.max_site_watts,
        margin_ratio=MARGIN_RATIO,
        safe_floor_watts=0.0 if options.is_wind_scripted else options.size.floor_cap_watts,
    )


def ride_through(options: DemoOptions) -> RideThrough:
    """What every site may draw above its cap, and for how long (DESIGN §7's defaults)."""
    return RideThrough.for_site(max_site_watts=options.size.max_site_watts, seconds=RIDE_THROUGH_SECONDS)


def demo_tables(options: DemoOptions) -> dict[str, Any]:
    """The fleet's configuration file, as tables."""
    redis_port, router_port, operations_port, feed_port, *site_ports = options.ports
    return {
        "fleet": {
            "name": "demo",
            "redis_url": f"redis://127.0.0.1:{redis_port}/0",
            "site_token": options.site_token,
        },
        "router": {
            "port": router_port,
            "operations_port": operations_port,
            "workers": options.router_workers,
            **({} if options.slo_factor is None else {"slo_factor": options.slo_factor}),
        },
        "power_feed": {
            "port": feed_port,
            "speed": options.wind_speed,
            "start_file": start_file(options.run_directory),
            "farms": [_farm(site_id, options) for site_id in options.sites],
        },
        "sites": [
            _site(site_id, site_ports[2 * index : 2 * index + 2], feed_port, options)
            for index, site_id in enumerate(options.sites)
        ],
    }


def _farm(site_id: str, options: DemoOptions) -> dict[str, Any]:
    return {
        "farm_id": f"{site_id}-farm",
        "site_id": site_id,
        "nameplate_watts": options.size.nameplate_watts,
        "source": _source(site_id, options),
    }


def _source(site_id: str, options: DemoOptions) -> dict[str, Any]:
    """Cases: a script, a file, a script over a file (the less of the two), generated wind."""
    sources: list[dict[str, Any]] = []
    if options.scenario is not None:
        points = [list(point) for point in schedule(options, site_id)]
        sources.append({"kind": "schedule", "points": points})
    if options.wind is not None:
        sources.append({"kind": "csv", "path": options.wind.path, "column": options.wind.columns[site_id]})
    if not sources:
        return {"kind": "synthetic", "seed": options.seed}
    return sources[0] if len(sources) == 1 else {"kind": "least", "of": sources}


def _site(site_id: str, ports: Sequence[int], feed_port: int, options: DemoOptions) -> dict[str, Any]:
    rule = cap_rule(options)
    return {
        "site_id": site_id,
        "farm_id": f"{site_id}-farm",
        "port": ports[0],
        "operations_port": ports[1],
        "feed_url": f"http://127.0.0.1:{feed_port}",
        "state_dir": site_directory(options.run_directory, site_id),
        "margin_ratio": rule.margin_ratio,
        "max_site_watts": rule.max_site_watts,
        "safe_floor_watts": rule.safe_floor_watts,
        "firm_power_source": FIRM_POWER_SOURCE if rule.safe_floor_watts else None,
        "ride_through_seconds": RIDE_THROUGH_SECONDS,
        "overhead_ratio": POWER_MODEL.overhead_ratio,
        "host_idle_watts": POWER_MODEL.host_idle_watts,
        "governor": {"drain_seconds": DRAIN_SECONDS},
        "engine": _engine(site_id, options),
    }


def _engine(site_id: str, options: DemoOptions) -> dict[str, Any]:
    common = {"instances": INSTANCES[options.engine], "max_concurrency": MAX_CONCURRENCY}
    if options.engine == "vllm":
        assert options.vllm is not None, "the vllm engine needs its command and model"
        return {
            "kind": "vllm",
            **common,
            "model": VLLM_MODEL,
            "command": options.vllm.command,
            "model_path": options.vllm.model_path,
            "gpus_per_instance": options.vllm.gpus_per_instance,
            **ASSUMED_VLLM_WATTS,
        }
    return {
        "kind": "emulated",
        **common,
        "model": PROFILE.model,
        "profile": PROFILE.profile_id,
        "start_seconds": 2.0,
        "power_log": power_log(options.run_directory, site_id),
        "seed": options.seed * len(options.sites) + options.sites.index(site_id),
    }
