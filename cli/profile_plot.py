"""Draws what `heron profile run` measured: tokens a second, gaps, watts over the batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fleet.config import ConfigError
from fleet.profiles.document import Row
from fleet.version import extra_hint
from replay.profile_sweep import Document

PANELS: tuple[tuple[str, Callable[[Row], float | None]], ...] = (
    ("output tokens/s", lambda row: row.output_tokens_per_second),
    ("ITL p50, ms", lambda row: None if row.itl_seconds_p50 is None else 1000 * row.itl_seconds_p50),
    ("TTFT p50, ms", lambda row: None if row.ttft_seconds_p50 is None else 1000 * row.ttft_seconds_p50),
    ("watts", lambda row: row.watts),
)


def plot(document: Document, path: Path) -> None:
    """Write a picture; a panel in which everything is unknown says so.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        raise ConfigError(f"--plot needs matplotlib: {extra_hint('simulate')}") from None
    lines = sorted({(row.clock_mhz or 0, row.prompt_tokens) for row in document.rows})
    figure, axes = pyplot.subplots(1, len(PANELS), figsize=(4 * len(PANELS), 3.5), layout="constrained")
    for axis, (name, value) in zip(axes, PANELS, strict=True):
        for clock, prompt in lines:
            line = clock, prompt
            rows = [row for row in document.rows if (row.clock_mhz or 0, row.prompt_tokens) == line]
            known = [(row.running_requests, value(row)) for row in rows if value(row) is not None]
            label = f"{prompt} prompt tokens" + (f", {clock} MHz" if clock else "")
            if known:
                axis.plot(*zip(*sorted(known), strict=True), marker="o", label=label)
        axis.set(xlabel="running requests", title=name, xscale="log")
        if axis.lines:
            axis.legend(fontsize="small")
        else:
            axis.text(0.5, 0.5, "unknown", transform=axis.transAxes, ha="center")
    figure.suptitle(f"{document.settings['model']}, measured", fontsize="medium")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
