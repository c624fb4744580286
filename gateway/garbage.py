"""How often Python looks for reference cycles in a process that handles many requests.

Why: by default a collection starts with every 700 new objects, and a full one walks all that the imports
made. A request makes no cycles that must be found soon.
"""

from __future__ import annotations

import gc

YOUNG_OBJECTS = 50_000
"""Net new containers before the youngest generation is looked at."""
YOUNG_ROUNDS, OLD_ROUNDS = 20, 100


def relax_collector() -> None:
    """Call once, when everything that lives as long as the process is there."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, YOUNG_ROUNDS, OLD_ROUNDS)
