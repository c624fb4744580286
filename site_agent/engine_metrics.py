"""What the agent reads from an engine's `/metrics` page, and quantiles of late from its histograms. Pure.

Rule: a name that the page does not have is unknown (None), never zero; names change between versions of vLLM.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

MAX_PAGE_BYTES = 4 << 20
WINDOW_SECONDS = 10.0
"""Quantiles are of the tokens and requests of the last so many seconds."""
MAX_BUCKETS = 256
MAX_NOW = 1e9
MAX_TOTAL = 1e15
"""The most of a gauge and of a counter, over all lines: more, or less than 0, is nonsense, and unknown."""

RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"
KV_USAGE = "vllm:kv_cache_usage_perc"
PROMPT_TOKENS = "vllm:prompt_tokens_total"
OUTPUT_TOKENS = "vllm:generation_tokens_total"
FINISHED = "vllm:request_success_total"
_SUMMED = (RUNNING, WAITING, PROMPT_TOKENS, OUTPUT_TOKENS, FINISHED)
TTFT = "vllm:time_to_first_token_seconds"
ITL = "vllm:inter_token_latency_seconds"

_LINE = re.compile(r"^(vllm:[a-z_]+?)(_bucket)?(?:\{([^}]*)\})? ([+-]?Inf|NaN|[0-9.eE+-]+)", re.MULTILINE)
_LE = re.compile(r'(?:^|,)le="([^"]+)"')

Histogram = Mapping[float, float]
"""Upper bound → observations at or below it, since the engine started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineMetrics:
    """One page; None is unknown."""

    running_requests: int | None = None
    waiting_requests: int | None = None
    kv_cache_usage_ratio: float | None = None
    prompt_tokens: float | None = None
    """Prefilled since the engine started."""
    output_tokens: float | None = None
    """Decoded since then."""
    finished_requests: float | None = None
    ttft: Histogram | None = None
    itl: Histogram | None = None


def parse(page: str) -> EngineMetrics:
    """Read a page in Prometheus' text format. Counts are summed over engines, KV use is their highest."""
    sums: dict[str, float] = {}
    kv_usage: float | None = None
    histograms: dict[str, dict[float, float]] = {}
    for name, bucket, labels, text in _LINE.findall(page):
        value = _number(text)
        if not 0 <= value <= MAX_TOTAL:  # NaN is not either
            continue
        if bucket:
            found = _LE.search(labels)
            if name in (TTFT, ITL) and found is not None:
                bound = _number(found.group(1))
                counts = histograms.setdefault(name, {})
                if bound > 0 and len(counts) < MAX_BUCKETS:
                    counts[bound] = counts.get(bound, 0.0) + value
        elif name == KV_USAGE:
            kv_usage = value if kv_usage is None else max(kv_usage, value)
        elif name in _SUMMED:
            sums[name] = sums.get(name, 0.0) + value
    return EngineMetrics(
        running_requests=_count(sums.get(RUNNING)),
        waiting_requests=_count(sums.get(WAITING)),
        prompt_tokens=_total(sums.get(PROMPT_TOKENS)),
        output_tokens=_total(sums.get(OUTPUT_TOKENS)),
        finished_requests=_total(sums.get(FINISHED)),
        kv_cache_usage_ratio=None if kv_usage is None else min(1.0, max(0.0, kv_usage)),
        ttft=histograms.get(TTFT),
        itl=histograms.get(ITL),
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _count(value: float | None) -> int | None:
    return None if value is None or value > MAX_NOW else int(value)


def _total(value: float | None) -> float | None:
    return None if value is None or value > MAX_TOTAL else value


def increase(before: Histogram, after: Histogram) -> dict[float, float] | None:
    """What came between two readings of one histogram; None after a restart, or where buckets differ."""
    if before.keys() != after.keys():
        return None
    difference = {bound: value - before[bound] for bound, value in after.items()}
    return None if min(difference.values(), default=0.0) < 0 else difference


def merge(histograms: Iterable[Mapping[float, float]]) -> dict[float, float]:
    """The sum of histograms; those with other buckets than the first are left out."""
    total: dict[float, float] = {}
    for histogram in histograms:
        if not total:
            total = dict(histogram)
        elif total.keys() == histogram.keys():
            for bound, value in histogram.items():
                total[bound] += value
    return total


def quantile(histogram: Histogram, ratio: float) -> float | None:
    """Prometheus' estimate: linear inside the bucket, the last finite bound beyond. None: no observation."""
    bounds = sorted(histogram)
    if not bounds or histogram[bounds[-1]] <= 0:
        return None
    rank = ratio * histogram[bounds[-1]]
    low, below = 0.0, 0.0
    for bound in bounds:
        if histogram[bound] >= rank:
            if bound == float("inf"):
                return low
            inside = histogram[bound] - below
            return bound if inside <= 0 else low + (bound - low) * (rank - below) / inside
        low, below = bound, histogram[bound]
    return low


@dataclass(slots=True)
class MetricsWindow:
    """Pages of one engine over the last seconds."""

    _pages: deque[tuple[float, EngineMetrics]] = field(default_factory=deque)

    def add(self, metrics: EngineMetrics, now: float) -> None:
        """Take a page that was read at `now`."""
        self._pages.append((now, metrics))
        while len(self._pages) > 1 and self._pages[1][0] <= now - WINDOW_SECONDS:
            self._pages.popleft()

    def clear(self) -> None:
        """The engine was stopped: nothing is known of the next one."""
        self._pages.clear()

    def latest(self, now: float) -> EngineMetrics | None:
        """The last page, unless it is older than the window."""
        if not self._pages or self._pages[-1][0] <= now - WINDOW_SECONDS:
            return None
        return self._pages[-1][1]

    def ttft(self) -> dict[float, float] | None:
        """Times to first token within the window, as a histogram; None: unknown."""
        return _between([page.ttft for _, page in self._pages])

    def itl(self) -> dict[float, float] | None:
        """The same for gaps between tokens."""
        return _between([page.itl for _, page in self._pages])

    def work(self) -> tuple[float, float, float] | None:
        """(prompt tokens, output tokens, finished requests) within the window; None: unknown."""
        if len(self._pages) < 2:
            return None
        first, last = self._pages[0][1], self._pages[-1][1]
        found = []
        for before, after in (
            (first.prompt_tokens, last.prompt_tokens),
            (first.output_tokens, last.output_tokens),
            (first.finished_requests, last.finished_requests),
        ):
            if before is None or after is None or after < before:
                return None
            found.append(after - before)
        return found[0], found[1], found[2]


def _between(histograms: Sequence[Histogram | None]) -> dict[float, float] | None:
    """The increase from the first that is known to the last; None: there are not two."""
    first = next((index for index, one in enumerate(histograms) if one is not None), None)
    if first is None:
        return None
    for index in range(len(histograms) - 1, first, -1):
        last = histograms[index]
        if last is not None:
            return increase(histograms[first] or {}, last)
    return None
