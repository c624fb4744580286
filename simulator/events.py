"""The virtual clock and what happens on it, in one order for one seed. Pure.

Rule: two events of one instant happen in the order in which they were asked for, so a run never depends on
how a heap breaks ties. An event cannot be taken back: whoever may change his mind keeps a number and ignores
a call that carries an old one.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any


class Events:
    """The run's only clock."""

    __slots__ = ("_count", "_heap", "happened", "now")

    def __init__(self) -> None:
        self.now = 0.0
        """Seconds since the start of the run."""
        self.happened = 0
        self._heap: list[tuple[float, int, Callable[[Any], object], Any]] = []
        self._count = 0

    def at(self, time: float, act: Callable[[Any], object], argument: Any = None) -> None:
        """Call `act(argument)` then; at once after what is due now where `time` has passed."""
        self._count += 1
        heappush(self._heap, (time, self._count, act, argument))

    def after(self, seconds: float, act: Callable[[Any], object], argument: Any = None) -> None:
        """The same, so long from now."""
        self._count += 1
        heappush(self._heap, (self.now + seconds, self._count, act, argument))

    def run(self, until: float) -> None:
        """Let everything happen up to and including that instant."""
        heap = self._heap
        happened = 0
        while heap and heap[0][0] <= until:
            time, _, act, argument = heappop(heap)
            if time > self.now:
                self.now = time
            act(argument)
            happened += 1
        self.now = max(self.now, until)
        self.happened += happened
