"""How long answers get, learnt from those that have ended: nobody knows on arrival. Pure.

Kept per (model, tenant, kind), and per (model, kind) for tenants that are new; requests are of one kind
where their `max_tokens` are within a factor of two and their prompts within a factor of four, for long
prompts get other answers than short ones (in Azure's conversations 334 tokens after 512 to 2,048, 80 after
more). Each is a histogram over 40 buckets of length, √2 apart. Each observation counts 1; when a histogram
has `MOST_OBSERVATIONS` all its counts are halved, so that what was seen `MOST_OBSERVATIONS` ago counts a
quarter: a change of load is followed within some 250 answers, at any rate of requests. A length counts as
its bucket's middle: at most 19 % off, so an estimate may be above `max_tokens`, and whoever uses it takes
the lesser.

Rule: a wrong estimate makes nothing fail, only worse choices; memory is bounded whatever keys clients send.
What a client's `max_tokens` says is a limit and no estimate, but for the bucket.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

BUCKETS = 40
"""The last begins at 2^19.5, some 740,000 tokens."""
MOST_OBSERVATIONS = 256.0
ENOUGH_OBSERVATIONS = 8.0
"""Of a tenant's own answers, until then those of all tenants count; of those, until then the default."""
REFRESH_OBSERVATIONS = 16
"""The estimate is worked out anew after so many."""
MAX_KEYS = 4096
"""Histograms: 0.5 KiB each. When there are more, the half that was made first goes."""
PROMPT_BUCKETS = 16
"""From below 2 tokens, a factor of four each: 128 to 511, 512 to 2,047 …"""
NO_LIMIT = 0
"""The bucket of requests without `max_tokens`."""
_BOUNDS = tuple(math.sqrt(2.0**number) for number in range(BUCKETS + 1))
_MIDDLES = tuple(math.sqrt(low * high) for low, high in pairwise(_BOUNDS))


class OutputEstimate(NamedTuple):
    """Tokens of an answer that has not begun."""

    mean_tokens: float
    p50_tokens: float
    p90_tokens: float


def bucket_of(tokens: int) -> int:
    """Which histogram bucket a length is in: 1, 2–2.8, 2.8–4 …"""
    if tokens <= 1:
        return 0
    return min((tokens * tokens).bit_length() - 1, BUCKETS - 1)


def limit_bucket(max_tokens: int | None) -> int:
    """Requests are alike where their `max_tokens` is within a factor of two; none is a bucket of its own."""
    return NO_LIMIT if max_tokens is None else 1 + max(0, max_tokens - 1).bit_length()


def kind_of(max_tokens: int | None, prompt_tokens: int) -> int:
    """Which requests are alike, as one small figure."""
    prompt = min(PROMPT_BUCKETS - 1, prompt_tokens.bit_length() // 2)
    return limit_bucket(max_tokens) * PROMPT_BUCKETS + prompt


class _Histogram:
    __slots__ = ("counts", "estimate", "fresh", "total")

    def __init__(self) -> None:
        self.counts = [0.0] * BUCKETS
        self.total = 0.0
        self.fresh = REFRESH_OBSERVATIONS
        """Observations that the estimate lacks."""
        self.estimate = OutputEstimate(0.0, 0.0, 0.0)

    def add(self, bucket: int) -> None:
        self.counts[bucket] += 1.0
        self.total += 1.0
        self.fresh += 1
        if self.total >= MOST_OBSERVATIONS:
            self.counts = [count / 2 for count in self.counts]
            self.total /= 2

    def read(self) -> OutputEstimate:
        if self.fresh >= REFRESH_OBSERVATIONS or self.fresh >= self.total:
            self.fresh = 0
            mean = sum([count * middle for count, middle in zip(self.counts, _MIDDLES, strict=True)])
            self.estimate = OutputEstimate(mean / self.total, self.quantile(0.5), self.quantile(0.9))
        return self.estimate

    def quantile(self, part: float) -> float:
        wanted = part * self.total
        for count, middle in zip(self.counts, _MIDDLES, strict=True):
            wanted -= count
            if wanted <= 0:
                return middle
        return _MIDDLES[-1]


class OutputLengths:
    """One per process (each worker learns by itself)."""

    def __init__(self, *, max_keys: int = MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._own: dict[tuple[str, str, int], tuple[_Histogram, _Histogram]] = {}
        """A tenant's own, and that of all tenants."""
        self._all: dict[tuple[str, int], _Histogram] = {}

    def __len__(self) -> int:
        return len(self._own) + len(self._all)

    def observe(
        self, model: str, tenant: str, max_tokens: int | None, prompt_tokens: int, output_tokens: int
    ) -> None:
        """An answer has ended by itself after so many tokens. (One that was cut off says nothing.)"""
        kind = kind_of(max_tokens, prompt_tokens)
        bucket = bucket_of(output_tokens)
        key = (model, tenant, kind)
        kept = self._own.get(key)
        if kept is None:
            _bound(self._own, self._max_keys)
            _bound(self._all, self._max_keys)
            kept = self._own[key] = _Histogram(), self._all.setdefault((model, kind), _Histogram())
        own, every = kept
        own.add(bucket)
        every.add(bucket)

    def expect(
        self, model: str, tenant: str, max_tokens: int | None, prompt_tokens: int
    ) -> OutputEstimate | None:
        """What to expect of an answer; None where too few like it have ended."""
        kind = kind_of(max_tokens, prompt_tokens)
        kept = self._own.get((model, tenant, kind))
        found = self._all.get((model, kind)) if kept is None else kept[0]
        if kept is not None and kept[0].total < ENOUGH_OBSERVATIONS:
            found = kept[1]
        return None if found is None or found.total < ENOUGH_OBSERVATIONS else found.read()


def _bound(histograms: dict[Any, Any], most: int) -> None:
    """Before one more is made: drop the half that was made first. A key still in use is learnt anew."""
    if len(histograms) >= most:
        for key in list(histograms)[: most // 2]:
            del histograms[key]
