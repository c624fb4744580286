"""Draws a governed run: the GPU's readings, their mean of half a second, and the cap.

python -m benchmarks.gpu.plot gpu.csv WIND_START RUN_SECONDS OUT.svg
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from benchmarks.gpu.governed import RULE, STEPS
from cli.power_logs import read_power_log
from site_agent.governor import SPIKE_SECONDS
from site_agent.recent import RecentMean

BEFORE_SECONDS = 3.0


def draw(log: Path, start_unix_seconds: float, run_seconds: float, out: Path) -> None:
    """Write the figure; `run_seconds` is the run's whole length, by which the steps of the wind go."""
    samples = [
        (one.unix_seconds - start_unix_seconds, one.site_watts)
        for one in read_power_log(log)
        if one.unix_seconds >= start_unix_seconds - BEFORE_SECONDS
    ]
    mean = RecentMean(hold_seconds=SPIKE_SECONDS)
    at = [seconds for seconds, _ in samples]
    means = [mean.observe(watts, now) for now, watts in samples]
    edges = [share * run_seconds for share, _ in STEPS] + [at[-1]]
    caps = [RULE.cap_watts(watts) for _, watts in STEPS]
    figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
    axes.plot(at, [watts for _, watts in samples], color="#b9c6d3", lw=0.8, label="readings, ten a second")
    axes.plot(at, means, color="#1f5fa8", label="mean of 0.5 s")
    shown = [(edge, cap) for edge, cap in zip(edges, [*caps, caps[-1]], strict=True) if edge <= at[-1]]
    shown.append((at[-1], shown[-1][1]))
    axes.step(*zip(*shown, strict=True), where="post", color="#c0392b", label="cap")
    axes.set(xlabel="seconds", ylabel="watts", xlim=(at[0], at[-1]), ylim=(0, 950))
    axes.grid(alpha=0.3)
    axes.legend(ncols=3, loc="upper right", frameon=False)
    figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))
