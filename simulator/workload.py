"""The requests of a simulated block as arrays: when each comes and how many tokens it has. Pure.

Times: `Rate` is requests per second over time (a trace's counts per bin, or a constant), scaled to the
offered load. Modes:

* `poisson`: independent arrivals at the bin's rate;
* `bursty`: the rate inside a bin moves as well, by the level processes of `replay.synthetic`, fitted to the
  2023 traces' dispersion; for code a second is then 13 times as uneven as Poisson;
* `verbatim`: exactly the bin's count, scaled and rounded so that the sum is kept, at even chances inside it.

Sizes are drawn jointly, prompt and output of one row together (`Sizes`).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from replay.synthetic import SHAPES, Shape

Mode = Literal["poisson", "bursty", "verbatim"]
MODES: tuple[Mode, ...] = ("poisson", "bursty", "verbatim")
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Rows of (prompt, output) tokens that requests are drawn from, and what they are."""

    prompt_tokens: Ints
    output_tokens: Ints
    description: str

    def mean(self) -> tuple[float, float]:
        """Mean prompt and output tokens."""
        return float(self.prompt_tokens.mean()), float(self.output_tokens.mean())

    def cut_to(self, max_total_tokens: int) -> Sizes:
        """What an engine takes: the prompt gives way, then the output (as `replay.schedule`)."""
        output = np.clip(self.output_tokens, 1, max_total_tokens - 1)
        prompt = np.clip(self.prompt_tokens, 1, max_total_tokens - output)
        return Sizes(prompt_tokens=prompt, output_tokens=output, description=self.description)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Requests per second over time, before it is scaled."""

    per_second: Floats
    """Of each bin."""
    bin_seconds: float
    shape: Shape
    """Whose burstiness the mode `bursty` takes."""
    description: str

    @property
    def mean(self) -> float:
        """Over all bins."""
        return float(self.per_second.mean())

    def of_block(self, start_seconds: float, seconds: float) -> tuple[Floats, Floats]:
        """(Edges in block time, rates between them); the record repeats after its end."""
        bins = len(self.per_second)
        first = math.floor(start_seconds / self.bin_seconds)
        last = math.ceil((start_seconds + seconds) / self.bin_seconds)
        edges = np.arange(first, last + 1) * self.bin_seconds - start_seconds
        rates = self.per_second[np.arange(first, last) % bins]
        return np.clip(edges, 0.0, seconds), rates


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """The requests of a block, in order of time."""

    at_seconds: Floats
    prompt_tokens: Ints
    output_tokens: Ints

    def __len__(self) -> int:
        return len(self.at_seconds)


def draw(
    rate: Rate, sizes: Sizes, *, start_seconds: float, seconds: float, scale: float, mode: Mode, seed: str
) -> Arrivals:
    """The requests of one block; `scale` multiplies the rate. The same seed gives the same requests."""
    rng = np.random.Generator(np.random.PCG64(random.Random(seed).getrandbits(64)))
    edges, rates = rate.of_block(start_seconds, seconds)
    if mode == "bursty":
        edges, rates = _modulated(edges, rates, rate.shape, rng)
    expected = rates * np.diff(edges) * scale
    if mode == "verbatim":
        total = np.concatenate(([0.0], np.cumsum(expected)))
        offset = rng.random()  # so that a rate below one a bin is not always rounded away
        counts = np.diff(np.floor(total + offset)).astype(np.int64)
    else:
        counts = rng.poisson(expected)
    starts = np.repeat(edges[:-1], counts)
    widths = np.repeat(np.diff(edges), counts)
    at = np.sort(starts + widths * rng.random(len(starts)))
    rows = rng.integers(0, len(sizes.prompt_tokens), len(at))
    return Arrivals(
        at_seconds=at, prompt_tokens=sizes.prompt_tokens[rows], output_tokens=sizes.output_tokens[rows]
    )


def _modulated(edges: Floats, rates: Floats, shape: Shape, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """The rate times gamma-distributed levels that hold for exponential times (`replay.synthetic`)."""
    end = float(edges[-1])
    for variance, hold_seconds in SHAPES[shape].rate_processes:
        count = max(8, int(end / hold_seconds * 2) + 32)
        changes = np.cumsum(rng.exponential(hold_seconds, count))
        while changes[-1] < end:
            changes = np.concatenate((changes, changes[-1] + np.cumsum(rng.exponential(hold_seconds, count))))
        inside = changes[changes < end]
        levels = rng.gamma(1 / variance, variance, len(inside) + 1)
        merged = np.union1d(edges, inside)
        middles = (merged[:-1] + merged[1:]) / 2
        of_bin = np.clip(np.searchsorted(edges, middles, side="right") - 1, 0, len(rates) - 1)
        rates = rates[of_bin] * levels[np.searchsorted(inside, middles, side="right")]
        edges = merged
    return edges, rates


def merge(*parts: Arrivals) -> Arrivals:
    """Several loads at once, in order of time."""
    at = np.concatenate([part.at_seconds for part in parts])
    order = np.argsort(at, kind="stable")
    return Arrivals(
        at_seconds=at[order],
        prompt_tokens=np.concatenate([part.prompt_tokens for part in parts])[order],
        output_tokens=np.concatenate([part.output_tokens for part in parts])[order],
    )
