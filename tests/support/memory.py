"""What is still there while Python's collector of reference cycles is far away, as it is in a router."""

from __future__ import annotations

import contextlib
import gc
import tracemalloc
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def far_from_collector(*kinds: type) -> Iterator[Callable[[], int]]:
    """Gives a function that counts the objects of these kinds that were made since and are not gone."""
    gc.collect()
    before = [one for one in gc.get_objects() if isinstance(one, kinds)]  # what another test left, kept here
    known = {id(one) for one in before}
    gc.disable()
    try:
        yield lambda: sum(isinstance(one, kinds) and id(one) not in known for one in gc.get_objects())
    finally:
        gc.enable()


@contextlib.contextmanager
def traced_bytes() -> Iterator[Callable[[], int]]:
    """Gives a function that says how many bytes Python has taken since, and not given back."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
