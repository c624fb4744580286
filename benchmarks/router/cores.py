"""Which cores load, upstream and router get, so that none takes time from another where there are enough."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SYSTEM = Path("/sys/devices/system/cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """Who runs where."""

    load: int
    """Load generator, Redis and the sites' reports."""
    upstream: int
    router: tuple[int, ...]
    """The parent and its workers."""

    @property
    def router_list(self) -> str:
        """As taskset takes it."""
        return ",".join(map(str, self.router))


def place(order: Sequence[int], workers: int) -> Cores:
    """Load, upstream and router in this order; the router gets a core for each worker and its parent.

    With two or three cores load and upstream share one.

    Raises:
        ValueError: there is one core only.
    """
    if len(order) < 2:
        raise ValueError("two cores are needed: one for the load, one for the router")
    is_apart = len(order) >= 4
    rest = order[2:] if is_apart else order[1:]
    wanted = workers + 1 if workers > 1 else 1
    return Cores(load=order[0], upstream=order[1] if is_apart else order[0], router=tuple(rest[:wanted]))


def usable() -> list[int]:
    """The cores of this process, the first thread of each physical core before any second one."""
    cores = sorted(os.sched_getaffinity(0))
    firsts = [core for core in cores if core == min(siblings(core) & set(cores))]
    return firsts + [core for core in cores if core not in firsts]


def siblings(core: int) -> set[int]:
    """Threads of the same physical core, itself included."""
    try:
        text = (SYSTEM / f"cpu{core}" / "topology" / "thread_siblings_list").read_text()
    except OSError:
        return {core}
    return parse_list(text) | {core}


def parse_list(text: str) -> set[int]:
    """`0,8` or `0-1`, as the kernel writes sets of cores."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            found |= set(range(int(first), int(last or first) + 1))
    return found
