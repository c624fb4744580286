"""What all experiments have in common: weeks, loads, samples, seeds, and where results go.

`--quick` is one far and one near week, one seed, two loads: cells of the full form. Every seed has its blocks
at other hours (`Sample.at_seed`), so that an interval over seeds has the choice of hours in it. Definitions
were fixed before any run (issue 4; `simulator/weeks.py`); parameters were tuned on the training weeks, but
for one (docs/decisions/0017).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from benchmarks.experiments.figures import Counts, lead, ratio_of
from cli.catalogue import BY_NAME
from cli.data import default_directory
from cli.simulate import run_with_progress
from simulator.cell import Cell, Sample
from simulator.code_state import code_state
from simulator.estimates import Estimate
from simulator.inputs import wind_series
from simulator.sizing_cost import GPUS, Prices
from simulator.traces import SizeSet
from simulator.weeks import FTS, RTS, Days, WindSet, named_days
from simulator.workload import Mode

Result = dict[str, Any]
Week = tuple[WindSet, str]
POLICIES = (
    "heron",
    "planned",
    "reactive",
    "selective_push",
    "least_loaded",
    "power_weighted",
    "static_weighted",
    "round_robin",
)
BASELINES = ("round_robin", "static_weighted", "power_weighted", "least_loaded", "selective_push")
"""`heron` must beat the best of them, each before the site control it does best with."""
OWN_CONTROL = {"round_robin": "gpu_idling", "static_weighted": "gpu_idling"}
"""Of all others `governed`, as ours: by training wind (docs/policies.md)."""
OURS = "heron"
HOLD_SECONDS = 0.0
"""How long a request waits in the router for room, before every policy but ours, whose promise bounds that:
by training wind (docs/policies.md). With the router's default of 20 s an SLO of a few is lost waiting."""
UNTOLD = (("hold_seconds", HOLD_SECONDS),)
"""`[router]` of a policy that is not told the SLO."""
ALL_WEEKS: tuple[Week, ...] = (
    *((FTS, name) for name in ("fts-127", "fts-148", "fts-median")),
    *((RTS, name) for name in ("rts-median", "rts-06-24")),
)
FOLDER = Path(__file__).parent / "results"
SAMPLE = Sample.parse("27h30m:10m:4m")
"""Seven blocks a week, each at another hour of the day; six where a seed's first one is late in the week."""
TRIPS_PER_DAY = 96.0
"""Of each farm where an experiment has trips: one in a quarter of an hour. No farm trips so often; it is what
lets six counted minutes a day meet some forty of them."""
SMOKE = WindSet(
    name="synthetic-far",
    is_far=True,
    training=Days(name="smoke-training", first=1, last=1),
    size_percentile=40.0,
    reported=(Days(name="smoke", first=4, last=4),),
    has_median_week=False,
)
"""One synthetic day that needs no file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How large an experiment is."""

    size: str
    """`full`, `quick`, or `smoke`."""
    jobs: int
    data: Path
    sample: Sample
    seeds: tuple[int, ...]
    loads: tuple[float, ...]
    weeks: tuple[Week, ...]
    trace: str = "conv-2024"
    sizes: SizeSet = "2023"
    mode: Mode = "bursty"
    size_percentile: float | None = None
    """None: that of the week's wind."""
    trips_per_day: float = TRIPS_PER_DAY
    """In the experiments that have trips."""
    site_count: int | None = None
    """None: one per column of the week's wind."""
    prices: Prices = field(default_factory=lambda: Prices(gpu_usd=GPUS["h100"].usd))
    folder: Path = FOLDER

    @classmethod
    def make(cls, *, size: str, jobs: int, data: Path | None) -> Setting:
        """One of the three sizes."""
        directory = data or Path(os.environ.get("HERON_OFFICIAL_DATA", default_directory()))
        if size == "smoke":
            return cls(
                size=size,
                jobs=jobs,
                data=directory,
                sample=Sample.parse("1d:150s:90s"),
                seeds=(1,),
                loads=(0.1, 0.4),
                weeks=((SMOKE, "smoke"),),
                trace="synthetic-conv",
                site_count=2,
            )
        if size == "quick":
            return cls(
                size=size,
                jobs=jobs,
                data=directory,
                sample=SAMPLE,
                seeds=(1,),
                loads=(0.5, 0.7),
                weeks=((FTS, "fts-127"), (RTS, "rts-median")),
            )
        return cls(
            size=size,
            jobs=jobs,
            data=directory,
            sample=SAMPLE,
            seeds=(1, 2, 3),
            loads=(0.3, 0.5, 0.7, 0.9),
            weeks=ALL_WEEKS,
        )

    @property
    def is_quick(self) -> bool:
        """Less than everything."""
        return self.size != "full"

    @property
    def middle_load(self) -> float:
        """Where an experiment takes one load; of an even number the lower of the two."""
        return self.loads[(len(self.loads) - 1) // 2]

    @property
    def far_and_near(self) -> tuple[Week, ...]:
        """The first week of each kind."""
        kinds = {wind.is_far: (wind, name) for wind, name in reversed(self.weeks)}
        return tuple(kinds[kind] for kind in (True, False) if kind in kinds)

    @property
    def stem(self) -> str:
        """What tells this setting's files from another's: empty for the full one as issue 4 has it."""
        plain = Setting.make(size=self.size, jobs=1, data=self.data)
        parts = [] if self.size == "full" else [self.size]
        if self.trace != plain.trace:
            parts.append(self.trace)
        if self.sizes != plain.sizes:
            parts.append(f"sizes-{self.sizes}")
        if self.mode != plain.mode:
            parts.append(self.mode)
        if self.size_percentile is not None:
            parts.append(f"p{self.size_percentile:g}")
        if self.trips_per_day != plain.trips_per_day:
            parts.append(f"trips-{self.trips_per_day:g}")
        if self.weeks != plain.weeks:
            is_all = self.weeks == ALL_WEEKS
            parts.append("all-weeks" if is_all else "+".join(name for _, name in self.weeks))
        if self.loads != plain.loads:
            parts.append("load-" + "+".join(f"{load:g}" for load in self.loads))
        if self.seeds != plain.seeds:
            parts.append(f"seeds-{len(self.seeds)}")
        return "".join(f"-{part}" for part in parts)

    def said(self) -> str:
        """What every table is of, in a sentence or two."""
        seeds = f"seed {self.seeds[0]}"
        if len(self.seeds) > 1:
            seeds = f"seeds {_listed(self.seeds)}, each with its own wind, requests and hours"
        sized = "" if self.size_percentile is None else f", sites sized at p{self.size_percentile:g}"
        return (
            f"Load `{self.trace}` with {self.sizes}'s sizes, {self.mode}; blocks `{self.sample}` of each "
            f"week; {seeds}{sized}; code state `{code_state()}`. ±: 95 % intervals over the blocks of all "
            "seeds; differences are of the same requests, block by block."
        )

    def resolve(self) -> partial[Path]:
        """From a name to a file; picklable, for the workers."""
        return partial(find_file, self.data)

    def cell(self, week: Week, policy: str, load: float, seed: int, **changes: Any) -> Cell:
        """One run of the paper table's kind."""
        wind, name = week
        days = _days_of(self.data, wind, name)
        values: dict[str, Any] = {
            "wind": wind.name,
            "first_day": days.first,
            "last_day": days.last,
            "size_percentile": wind.size_percentile if self.size_percentile is None else self.size_percentile,
            "trace": self.trace,
            "sizes": self.sizes,
            "mode": self.mode,
            "load": load,
            "site_count": self.site_count,
            "sample": self.sample.at_seed(seed),
            "policy": policy,
            "control": OWN_CONTROL.get(policy, "governed"),
            "router_overrides": () if policy == OURS else UNTOLD,
            "seed": seed,
        }
        return Cell(**(values | changes))


@lru_cache(maxsize=64)
def _days_of(directory: Path, wind: WindSet, name: str) -> Days:
    """The median week takes the whole record to find: once, not for every cell."""
    return named_days(wind, wind_series(wind.name, partial(find_file, directory)), name)


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(str(seed) for seed in seeds)


def find_file(directory: Path, name: str) -> Path:
    """A file of the catalogue, anywhere under a folder; or a path.

    Raises:
        FileNotFoundError: it is not there; says how to get it.
    """
    known = BY_NAME.get(name)
    if known is None:
        return Path(name)
    found = sorted(directory.rglob(known.file))
    if not found:
        raise FileNotFoundError(
            f"{known.file} is not under {directory}: heron data fetch {name}, or --data FOLDER"
        )
    return found[0]


class Runs:
    """Results of cells by name, each at every seed."""

    def __init__(self, setting: Setting, cells: Mapping[Any, Cell]) -> None:
        """Run what is not kept yet: every cell at the setting's seeds, and at their hours."""
        self._seeds = setting.seeds
        self._cells = {
            (name, seed): cell.with_(seed=seed, sample=setting.sample.at_seed(seed))
            for name, cell in cells.items()
            for seed in setting.seeds
        }
        every = list(self._cells.values())
        found = run_with_progress(every, setting.resolve(), jobs=setting.jobs, is_cached=True)
        self._results = dict(zip(self._cells, found, strict=True))

    def of(self, name: Any) -> list[Result]:
        """One result for each seed."""
        return [self._results[name, seed]["result"] for seed in self._seeds]

    def values(self, name: Any, key: str, part: str = "all") -> list[float]:
        """A figure of each seed; where there is none (no request came) not a number."""
        return [math.nan if one[part][key] is None else one[part][key] for one in self.of(name)]

    def attained(self, name: Any, part: str = "all") -> list[float]:
        """Share within the SLO, of each seed."""
        return self.values(name, "slo_attainment_ratio", part)

    def counts(self, name: Any, part: str = "all") -> Counts:
        """Good and offered requests of each seed's blocks."""
        results = [one[part] for one in self.of(name)]
        good = [count for one in results for count in one["good_by_block"]]
        return good, [count for one in results for count in one["offered_by_block"]]

    def share(self, name: Any, part: str = "all") -> Estimate:
        """Share within the SLO, of all seeds' requests."""
        return ratio_of(*self.counts(name, part))

    def lead(self, name: Any, other: Any, part: str = "all") -> Estimate:
        """The same, less that of another, of the same blocks."""
        return lead(self.counts(name, part), self.counts(other, part))

    def rows(self, name: Any, **said: Any) -> list[Result]:
        """For the JSON file: everything that is not only for plots."""
        return [said | {"seed": seed, **slim(self._results[name, seed])} for seed in self._seeds]

    def offered_ratios(self, name: Any) -> list[float]:
        """Load that really came, as a share of the cluster's peak, of each seed."""
        return [
            one["all"]["offered_requests_per_second"] / one["load"]["peak_requests_per_second"]
            for one in self.of(name)
        ]


def slim(result: Result) -> Result:
    """Without what only plots need."""
    found = {key: value for key, value in result["result"].items() if key != "blocks"}
    for part in ("all", "power_short"):
        found[part] = {key: value for key, value in found[part].items() if not key.endswith("_sketch")}
    found.pop("load")
    return found


def write(
    setting: Setting, name: str, *, text: str, summary: str, plots: Mapping[str, str], **data: Any
) -> None:
    """`NAME[-quick].json`, `.md`, one `.svg` per plot; `summary` is what docs/results.md shows."""
    setting.folder.mkdir(parents=True, exist_ok=True)
    stem = name + setting.stem
    head = {
        "experiment": name,
        "size": setting.size,
        "code": code_state(),
        "sample": str(setting.sample),
        "seeds": list(setting.seeds),
        "loads": list(setting.loads),
        "trace": setting.trace,
        "sizes": setting.sizes,
        "arrivals": setting.mode,
        "size_percentile": setting.size_percentile,
        "summary": summary,
    }
    (setting.folder / f"{stem}.json").write_text(json.dumps(head | data, indent=1) + "\n")
    links = "".join(f"\n![{key.replace('-', ' ')}]({stem}-{key}.svg)\n" for key in plots)
    (setting.folder / f"{stem}.md").write_text(text.rstrip() + "\n" + links)
    for key, svg in plots.items():
        drawing = '<?xml version="1.0" encoding="utf-8"?>\n' + svg
        (setting.folder / f"{stem}-{key}.svg").write_text(drawing)
    print(text)
    print(f"written: {setting.folder / stem}.json, .md" + (", .svg" if plots else ""))
