"""How far the meter is above the model's worst case: a model that says "fits" can be wrong. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

MAX_CORRECTION_RATIO = 3.0
"""Beyond this the meter or the model is broken; the site is then dark at any cap that matters."""
CORRECTION_TOLERANCE_RATIO = 0.02
"""Measured this much above the model's worst case is noise."""
CORRECTION_DECAY_SECONDS = 60.0
DRAW_FILTER_SECONDS = 0.5


@dataclass(slots=True, kw_only=True)
class Correction:
    """Compares once things have settled; what it learnt fades when the meter agrees again."""

    settle_seconds: float
    ratio: float = 1.0
    _filtered_watts: float | None = None
    _worst_watts: float = 0.0
    _fell_at: float = -math.inf
    _seen_at: float | None = None

    def learn(self, *, draw_watts: float, worst_watts: float, changed_at: float, now: float) -> None:
        """Take the draw, and the worst case of what runs since `changed_at`.

        Less may run than did without an order, where an engine has failed: the draw follows, and that is no
        wrong model.
        """
        if worst_watts < self._worst_watts and now - changed_at >= self.settle_seconds:
            self._fell_at = now
        self._worst_watts = worst_watts
        elapsed = 0.0 if self._seen_at is None else max(0.0, now - self._seen_at)
        self._seen_at = now
        if self._filtered_watts is None or now - max(changed_at, self._fell_at) < self.settle_seconds:
            self._filtered_watts = draw_watts
            if self.ratio > 1:
                self.ratio = self._decayed(elapsed)
            return
        weight = 1 - math.exp(-elapsed / DRAW_FILTER_SECONDS)
        self._filtered_watts += weight * (draw_watts - self._filtered_watts)
        measured = self._filtered_watts / worst_watts
        learnt = measured if measured > 1 + CORRECTION_TOLERANCE_RATIO else 1.0
        if self.ratio > 1 or learnt > 1:
            self.ratio = min(MAX_CORRECTION_RATIO, max(self._decayed(elapsed), learnt))

    def _decayed(self, elapsed: float) -> float:
        return 1 + (self.ratio - 1) * math.exp(-elapsed / CORRECTION_DECAY_SECONDS)
