"""Which worker gets a new connection. Pure.

The one with the fewest open connections; of several, the next in turn after the last one chosen, so that
clients with a connection per request, which leave no count behind, are spread evenly too.
"""

from __future__ import annotations

from collections.abc import Sequence


def pick_worker(open_connections: Sequence[int | None], last: int) -> int | None:
    """The index of the worker; None when there is none. `None` in the sequence: that one takes nothing now.

    `last` is what was picked before, -1 at first.
    """
    size = len(open_connections)
    best: int | None = None
    fewest = 0
    for step in range(1, size + 1):
        index = (last + step) % size
        count = open_connections[index]
        if count is not None and (best is None or count < fewest):
            best, fewest = index, count
    return best
