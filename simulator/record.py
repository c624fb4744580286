"""What a run leaves behind: one row per request and one per second and site, in compact arrays.

Rule: memory is bounded by what was announced: 28 bytes a request, 33 bytes a site and second. While a block
runs the rows are `array`s, which take a single value faster than numpy; `arrays` shows them as numpy's.
"""

from __future__ import annotations

import math
from array import array
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.request import Outcome, SimRequest

MAX_SMALL = 32_000
_IN_FLIGHT, _SERVED = int(Outcome.IN_FLIGHT), int(Outcome.SERVED)


class Record:
    """Rows by the number of the request, counted from 0."""

    def __init__(self, requests: int) -> None:
        self._arrived_at = array("d", bytes(8 * requests))
        self._ttft = array("f", [math.inf]) * requests
        self._e2e = array("f", [math.inf]) * requests
        self._outcome = array("b", [-1]) * requests
        self._produced = array("i", bytes(4 * requests))
        self._breaks = array("h", bytes(2 * requests))
        self._attempts = array("h", bytes(2 * requests))
        self.closed = 0

    def open(self, index: int, now: float) -> None:
        """A request was offered."""
        self._arrived_at[index] = now
        self._outcome[index] = _IN_FLIGHT

    def close(self, request: SimRequest, now: float) -> None:
        """It is over: served, shed or broken."""
        index, outcome = request.index, request.outcome
        if self._outcome[index] != _IN_FLIGHT:
            raise RuntimeError(f"request {index} ended twice: a fault of the simulator")
        self.closed += 1
        self._outcome[index] = outcome
        if request.first_token_at is not None:
            self._ttft[index] = request.first_token_at - request.arrived_at
        if outcome == _SERVED:
            self._e2e[index] = now - request.arrived_at
        self._produced[index] = request.produced_tokens
        self._breaks[index] = min(request.breaks, MAX_SMALL)
        self._attempts[index] = min(request.attempts, MAX_SMALL)

    @property
    def arrived_at(self) -> npt.NDArray[np.float64]:
        """Seconds of block time."""
        return np.frombuffer(self._arrived_at, dtype=np.float64)

    @property
    def ttft_seconds(self) -> npt.NDArray[np.float32]:
        """Infinite without a first token."""
        return np.frombuffer(self._ttft, dtype=np.float32)

    @property
    def e2e_seconds(self) -> npt.NDArray[np.float32]:
        """Infinite unless served."""
        return np.frombuffer(self._e2e, dtype=np.float32)

    @property
    def outcome(self) -> npt.NDArray[np.int8]:
        """`Outcome`; −1: not offered yet."""
        return np.frombuffer(self._outcome, dtype=np.int8)

    @property
    def produced_tokens(self) -> npt.NDArray[np.int32]:
        """Of the answer, as far as its client got it."""
        return np.frombuffer(self._produced, dtype=np.int32)

    @property
    def breaks(self) -> npt.NDArray[np.int16]:
        """Times that a site broke it off."""
        return np.frombuffer(self._breaks, dtype=np.int16)

    @property
    def attempts(self) -> npt.NDArray[np.int16]:
        """Times that it was sent to a site."""
        return np.frombuffer(self._attempts, dtype=np.int16)


class SiteRecord:
    """One row per second of one site."""

    def __init__(self, seconds: int) -> None:
        self.available_watts: npt.NDArray[np.float32] = np.zeros(seconds, dtype=np.float32)
        """Of its farm, for all the farm's sites."""
        self.cap_watts: npt.NDArray[np.float32] = np.zeros(seconds, dtype=np.float32)
        self.draw_watts: npt.NDArray[np.float32] = np.zeros(seconds, dtype=np.float32)
        self.running: npt.NDArray[np.int32] = np.zeros(seconds, dtype=np.int32)
        self.awake: npt.NDArray[np.int8] = np.zeros(seconds, dtype=np.int8)
        self.joules: npt.NDArray[np.float64] = np.zeros(seconds, dtype=np.float64)
        """Counter since the block's start, as is the next."""
        self.exceeded_seconds: npt.NDArray[np.float64] = np.zeros(seconds, dtype=np.float64)

    def arrays(self) -> dict[str, Any]:
        """All of them, by name."""
        return {
            "available_watts": self.available_watts,
            "cap_watts": self.cap_watts,
            "draw_watts": self.draw_watts,
            "running": self.running,
            "awake": self.awake,
            "joules": self.joules,
            "exceeded_seconds": self.exceeded_seconds,
        }
