"""What a run leaves behind: one row per request and one per second and site, in compact arrays.

Rule: memory is bounded by what was announced: 30 bytes a request, 40 bytes a site and second.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.request import Outcome, SimRequest

Floats = npt.NDArray[np.float32]


class Record:
    """Rows by the number of the request, counted from 0."""

    def __init__(self, requests: int) -> None:
        self.arrived_at = np.zeros(requests, dtype=np.float64)
        self.ttft_seconds = np.full(requests, np.inf, dtype=np.float32)
        """Infinite without a first token."""
        self.e2e_seconds = np.full(requests, np.inf, dtype=np.float32)
        """Infinite unless served."""
        self.outcome = np.full(requests, -1, dtype=np.int8)
        """`Outcome`; −1: not offered yet."""
        self.produced_tokens = np.zeros(requests, dtype=np.int32)
        self.breaks = np.zeros(requests, dtype=np.int8)
        self.attempts = np.zeros(requests, dtype=np.int16)
        self.closed = 0

    def open(self, index: int, now: float) -> None:
        """A request was offered."""
        self.arrived_at[index] = now
        self.outcome[index] = Outcome.IN_FLIGHT

    def close(self, request: SimRequest, now: float) -> None:
        """It is over: served, shed or broken."""
        index = request.index
        if self.outcome[index] != Outcome.IN_FLIGHT:
            raise RuntimeError(f"request {index} ended twice: a fault of the simulator")
        self.closed += 1
        self.outcome[index] = request.outcome
        if request.first_token_at is not None:
            self.ttft_seconds[index] = request.first_token_at - request.arrived_at
        if request.outcome is Outcome.SERVED:
            self.e2e_seconds[index] = now - request.arrived_at
        self.produced_tokens[index] = request.produced_tokens
        self.breaks[index] = min(request.breaks, 127)
        self.attempts[index] = min(request.attempts, 32_000)


class SiteRecord:
    """One row per second of one site."""

    def __init__(self, seconds: int) -> None:
        self.available_watts: Floats = np.zeros(seconds, dtype=np.float32)
        self.cap_watts: Floats = np.zeros(seconds, dtype=np.float32)
        self.draw_watts: Floats = np.zeros(seconds, dtype=np.float32)
        self.running: npt.NDArray[np.int32] = np.zeros(seconds, dtype=np.int32)
        self.awake: npt.NDArray[np.int8] = np.zeros(seconds, dtype=np.int8)

    def arrays(self) -> dict[str, Any]:
        """All of them, by name."""
        return dict(vars(self))
