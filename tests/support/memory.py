"""What is still there while Python's collector of reference cycles is far away, as it is in a router."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def far_from_collector(*kinds: type) -> Iterator[Callable[[], int]]:
    """Gives a function that counts the objects of these kinds that are not gone."""
    gc.collect()
    gc.disable()
    try:
        yield lambda: sum(isinstance(one, kinds) for one in gc.get_objects())
    finally:
        gc.enable()
