"""Statistics and the printed table. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import median

BASE = "vllm-router"
"""Whose figures the ratios are to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One proxy in one round; None is what was not measured."""

    requests_per_second: float | None = None
    cpu_us_per_request: float | None = None
    cpu_us_per_chunk: float | None = None
    added_latency_us_p50: float | None = None
    added_latency_us_p99: float | None = None
    chunk_late_us_p99: float | None = None
    """Of the paced streams: how much later than its pace a chunk came. Late chunks come together and cost
    less, so that CPU per chunk compares only proxies of like lateness."""
    memory_mib: float | None = None
    waited_ratio: float | None = None
    """Of the windows in which it was ready and something else had its core."""
    errors: int = 0
    first_error: str = ""


METRICS = tuple(field.name for field in fields(Sample) if field.name not in ("errors", "first_error"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One proxy over all rounds."""

    name: str
    version: str
    medians: Mapping[str, float | None]
    spreads: Mapping[str, tuple[float, float] | None]
    """Least and most."""
    rounds: int
    errors: int
    first_error: str

    def as_json(self) -> dict[str, object]:
        """The row of results.json."""
        return {
            "name": self.name,
            **{name: rounded(value) for name, value in self.medians.items()},
            "version": self.version,
            "rounds": self.rounds,
            "errors": self.errors,
            "first_error": self.first_error,
            "least_and_most": {
                name: None if spread is None else [rounded(value) for value in spread]
                for name, spread in self.spreads.items()
            },
        }


def row(name: str, version: str, samples: Sequence[Sample]) -> Row:
    """Medians over the rounds."""
    values = {
        metric: [value for sample in samples if (value := asdict(sample)[metric]) is not None]
        for metric in METRICS
    }
    return Row(
        name=name,
        version=version,
        medians={metric: median(of) if of else None for metric, of in values.items()},
        spreads={metric: (min(of), max(of)) if of else None for metric, of in values.items()},
        rounds=len(samples),
        errors=sum(sample.errors for sample in samples),
        first_error=next((sample.first_error for sample in samples if sample.first_error), ""),
    )


def rounded(value: float | None) -> float | None:
    """Three digits that count, whole numbers from 1,000."""
    if value is None:
        return None
    return float(round(value)) if abs(value) >= 1000 else float(f"{value:.4g}")


def cell(value: float | None) -> str:
    """A number as the table shows it."""
    if value is None:
        return "–"
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 1 else f"{value:.2f}"


def ratio(value: float | None, base: float | None) -> str:
    """`1.52×`, or a dash."""
    return "–" if value is None or not base else f"{value / base:.2f}×"


def table(rows: Sequence[Row]) -> str:
    """In Markdown, with ratios to vllm-router where it was measured."""
    base = next((one.medians for one in rows if one.name == BASE), None)

    def against(one: Row, metric: str) -> str:
        return ratio(one.medians[metric], None if base is None else base[metric])

    titles = ["", "requests/s", "ratio", "CPU µs/request", "ratio", "CPU µs/chunk", "ratio"]
    titles += ["late p99 ms", "added p50 / p99 µs", "memory MiB", "waited"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for one in rows:
        m = one.medians
        cells = [
            f"{one.name} *" if one.errors else one.name,
            cell(m["requests_per_second"]),
            against(one, "requests_per_second"),
            cell(m["cpu_us_per_request"]),
            against(one, "cpu_us_per_request"),
            cell(m["cpu_us_per_chunk"]),
            against(one, "cpu_us_per_chunk"),
            "–" if m["chunk_late_us_p99"] is None else f"{m['chunk_late_us_p99'] / 1e3:.1f}",
            f"{cell(m['added_latency_us_p50'])} / {cell(m['added_latency_us_p99'])}",
            cell(m["memory_mib"]),
            "–" if m["waited_ratio"] is None else f"{m['waited_ratio']:.0%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    notes = [
        f"\\* {one.name}: {one.errors} answers were wrong or missing ({one.first_error}); they do not count."
        for one in rows
        if one.errors
    ]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def with_section(document: str, name: str, text: str) -> str:
    """The document with one section replaced, or added at its end."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    section = f"{begin}\n{text.strip()}\n{end}\n"
    head, found, rest = document.partition(begin)
    if not found:
        return f"{document.rstrip()}\n\n{section}" if document.strip() else section
    after = rest.partition(end)[2].strip()
    return f"{head}{section}" + (f"\n{after}\n" if after else "")
