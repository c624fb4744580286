"""Which sites of a large fleet a request looks at: some first, then all others in an order that is spread
evenly. Pure.

Why: to weigh a thousand sites in Python for each request would cost a millisecond or more. A choice among a
few drawn evenly is nearly as good as one among all (the power of d choices; Mitzenmacher 2001), as the
weights still decide among them.

The order is that of multiples of a step near the golden section, prime to the number of sites: it meets every
site once, neighbours in name far apart, whatever the start.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

from router.policy.snapshot import ModelView, find_view

SCAN_ALL_SITES = 24
"""Up to here every site is looked at."""
MAX_CANDIDATES = 16
"""Beyond that, so many that pass the filter. The best of 16 is, half the time, among the best 4.3 %."""
GOLDEN = 0.6180339887


@lru_cache(maxsize=64)
def step_of(count: int) -> int:
    """The step for `count` sites: the nearest to the golden section that has no factor in common with it."""
    wanted = max(1, round(count * GOLDEN))
    for distance in range(count):
        for step in (wanted + distance, wanted - distance):
            if step > 0 and math.gcd(step, count) == 1:
                return step
    return 1


def spread(views: Sequence[ModelView], first: Sequence[str], *, start: int) -> Iterator[ModelView]:
    """The sites named in `first` that are there, then every other one once."""
    named = set(first)
    for site_id in dict.fromkeys(first):
        view = find_view(views, site_id)
        if view is not None:
            yield view
    count = len(views)
    step = step_of(count)
    at = start * step % count
    for _ in range(count):
        view = views[at]
        if not named or view.site_id not in named:
            yield view
        at += step
        if at >= count:
            at -= count
