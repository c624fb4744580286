"""What all experiments have in common: weeks, loads, samples, seeds, and where results go.

`--quick` is one far and one near week, one seed, two loads, fewer and shorter blocks. Definitions were fixed
before any run (issue 4; `simulator/weeks.py`); parameters were tuned on the training weeks only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cli.catalogue import BY_NAME
from cli.data import default_directory
from cli.simulate import run_with_progress
from simulator.cell import Cell, Sample
from simulator.code_state import code_state
from simulator.inputs import wind_series
from simulator.weeks import FTS, RTS, WindSet, named_days

Result = dict[str, Any]
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
"""`heron` must beat the best of them. Their sites are governed as ours: of the site controls that is the one
with which each of them does best (experiment 3), so that none is made weak."""
ALL_WEEKS: tuple[tuple[WindSet, str], ...] = (
    *((FTS, name) for name in ("fts-127", "fts-148", "fts-median")),
    *((RTS, name) for name in ("rts-median", "rts-06-24")),
)
FOLDER = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How large an experiment is."""

    is_quick: bool
    jobs: int
    data: Path
    sample: Sample
    seeds: tuple[int, ...]
    loads: tuple[float, ...]
    weeks: tuple[tuple[WindSet, str], ...]

    @classmethod
    def make(cls, *, is_quick: bool, jobs: int, data: Path | None) -> Setting:
        """The quick or the full one."""
        directory = data or Path(os.environ.get("HERON_OFFICIAL_DATA", default_directory()))
        if is_quick:
            return cls(
                is_quick=True,
                jobs=jobs,
                data=directory,
                sample=Sample.parse("25h:10m:4m"),
                seeds=(1,),
                loads=(0.5, 0.7),
                weeks=((FTS, "fts-127"), (RTS, "rts-median")),
            )
        return cls(
            is_quick=False,
            jobs=jobs,
            data=directory,
            sample=Sample.parse("6h:15m:5m"),
            seeds=(1, 2, 3),
            loads=(0.3, 0.5, 0.7, 0.9),
            weeks=ALL_WEEKS,
        )

    @property
    def middle_load(self) -> float:
        """Where an experiment takes one load; of an even number the lower of the two."""
        return self.loads[(len(self.loads) - 1) // 2]

    def resolve(self) -> partial[Path]:
        """From a name to a file; picklable, for the workers."""
        return partial(find_file, self.data)

    def cell(self, week: tuple[WindSet, str], policy: str, load: float, seed: int, **changes: Any) -> Cell:
        """One run of the paper table's kind."""
        wind, name = week
        days = named_days(wind, wind_series(wind.name, self.resolve()), name)
        values: dict[str, Any] = {
            "wind": wind.name,
            "first_day": days.first,
            "last_day": days.last,
            "size_percentile": wind.size_percentile,
            "trace": "conv-2024",
            "load": load,
            "sample": self.sample,
            "policy": policy,
            "seed": seed,
        }
        return Cell(**(values | changes))


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


def run_all(setting: Setting, cells: Sequence[Cell]) -> dict[Cell, Result]:
    """Run what is not kept yet; results by cell."""
    results = run_with_progress(cells, setting.resolve(), jobs=setting.jobs, is_cached=True)
    return dict(zip(cells, results, strict=True))


def slim(result: Result) -> Result:
    """Without what only plots need."""
    found = {key: value for key, value in result["result"].items() if key != "blocks"}
    for part in ("all", "power_short"):
        found[part] = {key: value for key, value in found[part].items() if not key.endswith("_sketch")}
    found.pop("load")
    return found


def write(setting: Setting, name: str, *, data: Any, text: str, plots: dict[str, str]) -> None:
    """`results/NAME[-quick].json`, `.md` and one `.svg` per plot."""
    FOLDER.mkdir(exist_ok=True)
    stem = f"{name}-quick" if setting.is_quick else name
    head = {
        "experiment": name,
        "quick": setting.is_quick,
        "code": code_state(),
        "sample": str(setting.sample),
        "seeds": list(setting.seeds),
    }
    (FOLDER / f"{stem}.json").write_text(json.dumps(head | {"rows": data}, indent=1) + "\n")
    links = "".join(f"\n![{title}]({stem}-{key}.svg)\n" for key, title in _titles(plots).items())
    (FOLDER / f"{stem}.md").write_text(text.rstrip() + "\n" + links)
    for key, svg in plots.items():
        (FOLDER / f"{stem}-{key}.svg").write_text(_standalone(svg))
    print(text)
    print(f"written: {FOLDER / stem}.json, .md" + (", .svg" if plots else ""))


def _titles(plots: dict[str, str]) -> dict[str, str]:
    return {key: key.replace("-", " ") for key in plots}


def _standalone(svg: str) -> str:
    return '<?xml version="1.0" encoding="utf-8"?>\n' + svg


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def number(value: float | None, form: str = "{:.2f}", missing: str = "∞") -> str:
    """Text of a figure; None is what `missing` says."""
    return missing if value is None else form.format(value)


def mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the 95 % confidence interval by Student's t (0 with one value)."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, 0.0
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, _T95[min(len(values) - 1, len(_T95) - 1)] * (variance / len(values)) ** 0.5


_T95 = (0.0, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
"""By degrees of freedom."""
