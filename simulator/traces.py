"""Loads by name or file: rates over time with the sizes that belong to them.

Names: `conv-2024`, `code-2024`, `both-2024` (Azure's week of 2024, requests per 10 s; sizes drawn jointly
from 2023's rows), `conv-2023`, `code-2023` (the hour of 2023, over and over), `synthetic-conv`,
`synthetic-code` (drawn from published statistics, no file needed). A file is either kind of Azure CSV.

Sizes are `2023` as they are, or `2024`: 2023's rows, each output moved to the 2024 quantile of its rank and
prompts scaled to 2024's mean, since 2024's answers are much shorter. What is used is in `description`.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from replay.synthetic import Shape, SyntheticSpec, generate
from replay.trace import TraceError, TraceReader
from simulator.workload import Arrivals, Floats, Ints, Mode, Rate, Sizes, draw, merge

SizeSet = Literal["2023", "2024"]
SIZE_SETS: tuple[SizeSet, ...] = ("2023", "2024")
Resolve = Callable[[str], Path]
"""From a name of the catalogue (or a path) to a file."""
BIN_SECONDS = 10.0
DAY_SECONDS = 86_400.0
BINS_HEADER = ["Time", "TIMESTAMP"]
MAX_BIN_REQUESTS = 1e7
SYNTHETIC_ROWS = 50_000
SYNTHETIC_BINS = 360
BOTH_FROM, BOTH_DAYS = datetime(2024, 5, 12, tzinfo=UTC), 5
"""Where the two weeks of 2024 overlap."""

OUTPUT_QUANTILES_2024: dict[Shape, tuple[tuple[float, float], ...]] = {
    "code": ((0.0, 1), (0.5, 8), (0.9, 43), (0.95, 79), (0.99, 271), (1.0, 1899)),
    "conv": ((0.0, 1), (0.5, 41), (0.9, 342), (0.95, 455), (0.99, 694), (1.0, 1000)),
}
"""Published for p50 to p99 (FACTS.md); the least is one token, the largest 2023's: assumed."""
MEAN_TOTAL_TOKENS_2024: dict[Shape, float] = {"code": 2534.0, "conv": 1737.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPart:
    """One load: when, and how large."""

    rate: Rate
    sizes: Sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """All parts of a load; what is offered is their sum, scaled together."""

    name: str
    parts: tuple[LoadPart, ...]
    description: str

    @property
    def mean_rate(self) -> float:
        """Requests per second over the whole record."""
        return sum(part.rate.mean for part in self.parts)

    def cut_to(self, max_total_tokens: int) -> Load:
        """With no request larger than an engine takes."""
        parts = tuple(replace(part, sizes=part.sizes.cut_to(max_total_tokens)) for part in self.parts)
        return replace(self, parts=parts)

    def rows(self) -> tuple[Ints, Ints, Floats]:
        """Every row of every part, and its weight in the sum: prompt, output, weight."""
        weights = [
            np.full(len(part.sizes.prompt_tokens), part.rate.mean / len(part.sizes.prompt_tokens))
            for part in self.parts
        ]
        return (
            np.concatenate([part.sizes.prompt_tokens for part in self.parts]),
            np.concatenate([part.sizes.output_tokens for part in self.parts]),
            np.concatenate(weights) / self.mean_rate,
        )

    def arrivals(
        self, *, start_seconds: float, seconds: float, scale: float, mode: Mode, seed: str
    ) -> Arrivals:
        """The requests of a block; see `simulator.workload.draw`."""
        return merge(
            *(
                draw(
                    part.rate,
                    part.sizes,
                    start_seconds=start_seconds,
                    seconds=seconds,
                    scale=scale,
                    mode=mode,
                    seed=f"{seed}/{index}",
                )
                for index, part in enumerate(self.parts)
            )
        )


def load_trace(name: str, resolve: Resolve, *, sizes: SizeSet = "2023") -> Load:
    """A load by name or file.

    Raises:
        TraceError: neither; what is allowed, and what is wrong with a file.
    """
    if name in ("conv-2024", "code-2024"):
        shape: Shape = "conv" if name.startswith("conv") else "code"
        rate = _week(resolve(f"azure-2024-{shape}-10s"), shape)
        return _load(name, [LoadPart(rate=rate, sizes=_sizes(shape, resolve, sizes))])
    if name == "both-2024":
        parts = []
        for shape in ("conv", "code"):
            rate = _week(resolve(f"azure-2024-{shape}-10s"), shape, start=BOTH_FROM, days=BOTH_DAYS)
            parts.append(LoadPart(rate=rate, sizes=_sizes(shape, resolve, sizes)))
        return _load(name, parts)
    if name in ("conv-2023", "code-2023"):
        shape = "conv" if name.startswith("conv") else "code"
        rate = _hour(resolve(f"azure-2023-{shape}"), shape)
        return _load(name, [LoadPart(rate=rate, sizes=_sizes(shape, resolve, sizes))])
    if name in ("synthetic-conv", "synthetic-code"):
        shape = "conv" if name.endswith("conv") else "code"
        return _load(name, [_synthetic(shape)])
    path = resolve(name)
    shape = _shape_of(path)
    if _is_bins(path):
        return _load(name, [LoadPart(rate=_week(path, shape), sizes=_sizes(shape, resolve, sizes))])
    own = _rows(path)
    return _load(name, [LoadPart(rate=_hour(path, shape), sizes=own)])


def trace_files(name: str, resolve: Resolve) -> tuple[Path, ...]:
    """The files that `load_trace` reads for a name."""
    if name in ("synthetic-conv", "synthetic-code"):
        return ()
    if name in ("conv-2023", "code-2023"):
        return (resolve(f"azure-2023-{name[:4]}"),)
    if name in ("conv-2024", "code-2024", "both-2024"):
        shapes = ("conv", "code") if name == "both-2024" else (name[:4],)
        kinds = ("azure-2024-{}-10s", "azure-2023-{}")
        return tuple(resolve(kind.format(shape)) for shape in shapes for kind in kinds)
    path = resolve(name)
    return (path, resolve(f"azure-2023-{_shape_of(path)}")) if _is_bins(path) else (path,)


def _shape_of(path: Path) -> Shape:
    return "code" if "code" in path.name.lower() else "conv"


def _load(name: str, parts: Sequence[LoadPart]) -> Load:
    text = " and ".join(f"{part.rate.description}; sizes: {part.sizes.description}" for part in parts)
    return Load(name=name, parts=tuple(parts), description=text)


def _is_bins(path: Path) -> bool:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        return next(csv.reader(file), []) == BINS_HEADER


def _week(path: Path, shape: Shape, *, start: datetime | None = None, days: int | None = None) -> Rate:
    """Requests per second of each 10-second bin; `start` and `days` cut a part out."""
    counts: list[float] = []
    first: datetime | None = None
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if header != BINS_HEADER:
            raise TraceError(f"{path.name}: expected columns {BINS_HEADER}, found {header[:4]}")
        for line, row in enumerate(reader, start=2):
            try:
                at, count = datetime.fromisoformat(row[0]).replace(tzinfo=UTC), float(row[1])
            except (IndexError, ValueError):
                raise TraceError(f"{path.name}: line {line}: no time and count: {row[:3]}") from None
            if not 0 <= count <= MAX_BIN_REQUESTS:
                raise TraceError(f"{path.name}: line {line}: {count:g} requests in a bin")
            first = at if first is None else first
            if at != first + timedelta(seconds=BIN_SECONDS * len(counts)):
                raise TraceError(f"{path.name}: line {line}: {row[0]} is not 10 s after the row before")
            counts.append(count)
    if first is None or len(counts) < 2:
        raise TraceError(f"{path.name}: fewer than two bins")
    counts.pop()  # half a bin at the end of the record
    low = 0 if start is None else round((start - first).total_seconds() / BIN_SECONDS)
    high = len(counts) if days is None else low + round(days * DAY_SECONDS / BIN_SECONDS)
    if not 0 <= low < high <= len(counts):
        raise TraceError(f"{path.name}: does not have the {days} days from {start}")
    return Rate(
        per_second=np.asarray(counts[low:high]) / BIN_SECONDS,
        bin_seconds=BIN_SECONDS,
        shape=shape,
        description=f"rate of {path.name}"
        + ("" if start is None else f" from {start:%Y-%m-%d}, {days} days"),
    )


def _hour(path: Path, shape: Shape) -> Rate:
    """Requests per second of each second of a per-request file."""
    with path.open("rb") as stream:
        times = np.array([request.at_seconds for request in TraceReader(stream, name=path.name)])
    counts = np.bincount(times.astype(np.int64))
    return Rate(
        per_second=counts.astype(np.float64),
        bin_seconds=1.0,
        shape=shape,
        description=f"rate of {path.name}, repeated",
    )


def _rows(path: Path) -> Sizes:
    with path.open("rb") as stream:
        rows = [(one.prompt_tokens, one.output_tokens) for one in TraceReader(stream, name=path.name)]
    table = np.array(rows, dtype=np.int64)
    return Sizes(
        prompt_tokens=table[:, 0],
        output_tokens=table[:, 1],
        description=f"drawn jointly from the rows of {path.name}",
    )


def _sizes(shape: Shape, resolve: Resolve, sizes: SizeSet) -> Sizes:
    own = _rows(resolve(f"azure-2023-{shape}"))
    return own if sizes == "2023" else rescaled_to_2024(own, shape)


def rescaled_to_2024(sizes: Sizes, shape: Shape) -> Sizes:
    """Outputs by rank onto 2024's quantiles, prompts by one factor onto 2024's mean of both together."""
    rank = np.empty(len(sizes.output_tokens))
    rank[np.argsort(sizes.output_tokens, kind="stable")] = (np.arange(len(rank)) + 0.5) / len(rank)
    levels, values = zip(*OUTPUT_QUANTILES_2024[shape], strict=True)
    output = np.maximum(1, np.rint(np.interp(rank, levels, values))).astype(np.int64)
    wanted = MEAN_TOTAL_TOKENS_2024[shape] - float(output.mean())
    prompt = np.maximum(1, np.rint(sizes.prompt_tokens * (wanted / float(sizes.prompt_tokens.mean()))))
    return Sizes(
        prompt_tokens=prompt.astype(np.int64),
        output_tokens=output,
        description=f"{sizes.description}, rescaled to 2024's published quantiles",
    )


def _synthetic(shape: Shape) -> LoadPart:
    """The published shape, without files; its burstiness comes with the mode `bursty`."""
    spec = SyntheticSpec(shape=shape)
    rows = list(islice(generate(spec, random.Random(f"sizes/{shape}")), SYNTHETIC_ROWS))
    return LoadPart(
        rate=Rate(
            per_second=np.full(SYNTHETIC_BINS, spec.rate),
            bin_seconds=BIN_SECONDS,
            shape=shape,
            description=f"constant rate ({spec.describe()})",
        ),
        sizes=Sizes(
            prompt_tokens=np.array([row.prompt_tokens for row in rows]),
            output_tokens=np.array([row.output_tokens for row in rows]),
            description=f"drawn from published quantiles of Azure 2023 {shape}",
        ),
    )
