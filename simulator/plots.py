"""Plots as SVG text, for pages that need nothing else. The only module that draws.

One colour and marker per policy, the same in every plot; axes start at 0 unless they are logarithmic.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

from simulator.quantiles import LEVELS

POLICY_ORDER = (
    "heron",
    "planned",
    "reactive",
    "selective_push",
    "least_loaded",
    "power_weighted",
    "static_weighted",
    "round_robin",
)
_PLAIN = "#0b6e4f"
BOUND = "bound"
"""The clairvoyant ceiling: black and dashed, so that it hides no policy's line."""
_COLOURS = ("#0b6e4f", "#1f77b4", "#9467bd", "#e377c2", "#ff7f0e", "#bcbd22", "#8c564b", "#7f7f7f")
_MARKERS = ("o", "s", "^", "v", "D", "P", "X", "*")
_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "svg.fonttype": "none",
    "svg.hashsalt": "heron",
    "legend.frameon": False,
}
Points = Mapping[str, Sequence[tuple[float, float]]]


def colour_of(name: str) -> str:
    """Of a policy, or of anything else by its place."""
    if name in POLICY_ORDER:
        return _COLOURS[POLICY_ORDER.index(name)]
    if name == BOUND:
        return "black"
    return _COLOURS[sum(name.encode()) % len(_COLOURS)]


def looks_of(names: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """(colour, marker, line style) of each line of one plot, no two alike; for up to 16 that are no policies.

    Policies and the bound as everywhere; others take what no policy here has, dashed where colours run out.
    """
    policies = [name for name in names if name in POLICY_ORDER]
    taken = {POLICY_ORDER.index(name) for name in policies}
    free = [index for index in range(len(_COLOURS)) if index not in taken]
    looks = [(index, "-") for index in free]
    looks += [(index, style) for style in ("--", "-.") for index in range(len(_COLOURS))]
    found = {}
    for name in names:
        if name == BOUND:
            found[name] = ("black", "_", "--")
            continue
        place = POLICY_ORDER.index(name) if name in policies else None
        index, style = looks.pop(0) if place is None else (place, "-")
        found[name] = (_COLOURS[index], _MARKERS[index], style)
    return found


def ordered(names: Sequence[str]) -> list[str]:
    """Policies from ours to the plainest, others after them by name."""
    known = [name for name in POLICY_ORDER if name in names]
    return known + sorted(set(names) - set(known))


def lines(
    points: Points,
    *,
    title: str,
    x: str,
    y: str,
    diagonal: bool = False,
    log_x: bool = False,
    log_y: bool = False,
) -> str:
    """One line per name; `diagonal` draws y = x as the ideal."""
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(7.2, 4.2))
        top = 0.0
        names = ordered(list(points))
        looks = looks_of(names)
        for name in names:
            colour, marker, style = looks[name]
            pairs = sorted(point for point in points[name] if all(math.isfinite(value) for value in point))
            if not pairs:
                continue
            xs, ys = zip(*pairs, strict=True)
            axes.plot(
                xs,
                ys,
                color=colour,
                marker=marker,
                label=name,
                linestyle=style,
                linewidth=1.6,
                markersize=12 if name == BOUND else 5,
            )
            top = max(top, *ys)
        if diagonal and top:
            axes.axline((0, 0), slope=1, color="#555555", linestyle=":", label="everything within the SLO")
        if log_x:
            axes.set_xscale("log")
        else:
            axes.set_xlim(left=0)
        if log_y:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.set(title=title, xlabel=x, ylabel=y)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
        return _svg(figure)


def bars(values: Mapping[str, Sequence[float]], *, title: str, x: str, ceiling: float | None = None) -> str:
    """One bar per name, from the top, at the mean of its values, each value as a dot.

    Policies in their usual order and colours; what is no policy as it was given, in one colour.
    """
    names = ordered(list(values)) if all(name in POLICY_ORDER for name in values) else list(values)
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(7.2, 0.9 + 0.36 * len(names)))
        for place, name in enumerate(names):
            found = [value for value in values[name] if math.isfinite(value)]
            if not found:
                axes.text(0, place, " ∞", ha="left", va="center")
                continue
            mean = sum(found) / len(found)
            axes.barh(place, mean, color=colour_of(name) if name in POLICY_ORDER else _PLAIN, height=0.7)
            beyond = max(mean, *found) if len(found) > 1 else mean  # of all dots
            axes.annotate(
                f"{mean:.3f}", (beyond, place), (5, 0), textcoords="offset points", va="center", fontsize=9
            )
            if len(found) > 1:
                axes.plot(found, [place] * len(found), "k.", markersize=4)
        if ceiling is not None:
            axes.axvline(ceiling, color="#555555", linestyle=":", label="clairvoyant bound")
            axes.legend(loc="lower right")
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set(title=title, xlabel=x)
        axes.margins(x=0.1)
        return _svg(figure)


def distributions(sketches: Mapping[str, Sequence[float | None]], *, title: str, x: str) -> str:
    """Share of all offered requests within so many seconds; what never ended never gets there."""
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(7.2, 4.2))
        for name in ordered(list(sketches)):
            pairs = [
                (value, level)
                for value, level in zip(sketches[name], LEVELS, strict=False)
                if value is not None and value > 0
            ]
            if pairs:
                xs, ys = zip(*pairs, strict=True)
                axes.plot(xs, ys, color=colour_of(name), label=name, linewidth=1.6)
        axes.set_xscale("log")
        axes.set_ylim(0, 1.02)
        axes.set(title=title, xlabel=x, ylabel="share of the offered requests")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
        return _svg(figure)


def power(blocks: Sequence[Mapping[str, Any]], *, title: str) -> str:
    """Per site the mean power there was, the cap and the draw of each block."""
    site_ids = sorted(name for name in blocks[0] if name != "seconds") if blocks else []
    with plt.rc_context(_STYLE):
        figure, all_axes = plt.subplots(
            max(1, len(site_ids)),
            1,
            figsize=(9.0, 1.5 * max(1, len(site_ids)) + 0.8),
            sharex=True,
            squeeze=False,
        )
        for axes, site_id in zip(all_axes[:, 0], site_ids, strict=False):
            rows = [block[site_id] for block in blocks]
            xs = range(1, len(rows) + 1)
            cap = [row[1] / 1000 for row in rows]
            axes.bar(xs, [row[2] / 1000 for row in rows], color="#0b6e4f", width=0.6, label="draw")
            axes.step(xs, cap, where="mid", color="#d62728", label="cap")
            axes.plot(
                xs, [min(row[0] / 1000, 1.5 * max([*cap, 0.1])) for row in rows], "k:", label="wind (cut)"
            )
            axes.set_ylabel(f"{site_id}\nkW", fontsize=9)
            axes.set_ylim(bottom=0)
        all_axes[0, 0].set_title(title)
        all_axes[0, 0].legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
        all_axes[-1, 0].set_xlabel("block")
        all_axes[-1, 0].xaxis.get_major_locator().set_params(integer=True)
        return _svg(figure)


def _svg(figure: Any) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    found = text.getvalue()
    return found[found.index("<svg") :]
