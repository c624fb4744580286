"""Where requests are lost that a policy was offered: refused, first token late, the rest of the answer late,
or broken off; and how much of it in power-short minutes. Of the paper table's kept results.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.experiments.figures import markdown

POLICIES = ("heron", "least_loaded")
HEAD = (
    *("week", "load", "policy", "within the SLO", "refused", "first token late", "only the rest late"),
    *("broken", "power-short minutes", "of what is lost, in them"),
)


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Shares of the offered requests, all seeds together."""
    sums: dict[tuple[str, float, str], Counter[str]] = {}
    for row in rows:
        if row["policy"] in POLICIES:
            _add(sums.setdefault((row["week"], row["load"], row["policy"]), Counter()), row)
    return markdown(HEAD, [_line(*key, counts) for key, counts in sums.items()])


def _add(counts: Counter[str], row: Mapping[str, Any]) -> None:
    every, short = row["all"], row["power_short"]
    for name in ("offered", "good", "shed", "broken", "served", "seconds"):
        counts[name] += every[name]
    counts["in_time"] += round((every["ttft_in_time_ratio"] or 0.0) * every["offered"])
    counts["short_seconds"] += short["seconds"]
    counts["short_lost"] += short["offered"] - short["good"]


def _line(week: str, load: float, policy: str, counts: Counter[str]) -> list[str]:
    offered, lost = counts["offered"], counts["offered"] - counts["good"]
    in_time = min(counts["in_time"], counts["served"])
    parts = (counts["good"], counts["shed"], counts["served"] - in_time, in_time - counts["good"])
    return [
        *(week, f"{load:g}", f"`{policy}`"),
        *(f"{part / offered:.1%}" if offered else "–" for part in (*parts, counts["broken"])),
        f"{counts['short_seconds'] / counts['seconds']:.0%}" if counts["seconds"] else "–",
        f"{counts['short_lost'] / lost:.0%}" if lost else "–",
    ]
