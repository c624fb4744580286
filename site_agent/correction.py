"""How far the meter is above the model's worst case: a model that says "fits" can be wrong. Pure.

Two errors, told apart: what the site draws with every engine stopped is off by *watts*, what engines draw is
off by a *ratio*. A ratio learnt from a site without engines would multiply what engines may draw: a GPU whose
engine has just ended draws 120 W for some seconds, not 71 W, and that is not 1.7 × its busy draw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from site_agent.situation import Heard

MAX_CORRECTION_RATIO = 3.0
"""Beyond this the meter or the model is broken; the site is then dark at any cap that matters."""
CORRECTION_TOLERANCE_RATIO = 0.02
"""Measured this much above the model's worst case is noise."""
CORRECTION_DECAY_SECONDS = 60.0
DRAW_FILTER_SECONDS = 0.5
MOST_WEIGHT = 0.5
"""Of one reading in the filtered draw, however long it is since the one before: noise is never all of it."""
BARE_SETTLE_SECONDS = 15.0
"""From the last engine's end until its GPUs draw what they do without one: an H100 takes about ten."""


@dataclass(slots=True, kw_only=True)
class Correction:
    """Compares once things have settled; what it learnt fades when the meter agrees again.

    `observe` takes every reading. (`learn` is asked when a decision is made, which a high reading brings
    about: from those alone it would learn noise.)
    """

    settle_seconds: float
    ratio: float = 1.0
    bare_watts: float = 0.0
    """What the site draws above the model with every engine stopped."""
    _bare_since: float | None = None
    _draw_watts: float = 0.0
    _filtered_watts: float = 0.0
    _readings: int = 0
    """In that, since things have settled."""
    _heard_at: float | None = None
    _settled_at: float = -math.inf
    _worst_watts: float = 0.0
    _fell_at: float = -math.inf
    _seen_at: float | None = None
    _kept: tuple[float, float] | None = None
    """(ratio, bare watts) from when the best source fell silent: they do not fade below this."""
    _blind_at: float = -math.inf

    def corrected_watts(self, watts: float) -> float:
        """What the meter would say where the model says so much."""
        return (watts + self.bare_watts) * self.ratio

    def observe(self, draw_watts: float, now: float) -> None:
        """Take a reading of the draw."""
        self._draw_watts = draw_watts
        if self._heard_at is None or now < self._settled_at:
            self._filtered_watts, self._readings = draw_watts, 1
        else:
            self._readings += 1
            weight = 1 - math.exp(-max(0.0, now - self._heard_at) / DRAW_FILTER_SECONDS)
            weight = min(MOST_WEIGHT, max(weight, 1 / self._readings))  # the first few count alike
            self._filtered_watts += weight * (draw_watts - self._filtered_watts)
        self._heard_at = now

    def learn(
        self,
        *,
        worst_watts: float,
        changed_at: float,
        now: float,
        is_bare: bool = False,
        heard: Heard = "best",
    ) -> None:
        """Compare with the worst case of what runs since `changed_at`; `is_bare`: nothing does.

        `heard`: whose readings these are. The model's own agree with it, and say nothing: all stays as it is.
        Those of a lesser source can teach more, and do not undo what a better one taught.

        Less may run than did without an order, where an engine has failed: the draw follows, and that is no
        wrong model.
        """
        if worst_watts < self._worst_watts and now - changed_at >= self.settle_seconds:
            self._fell_at = now
        self._worst_watts = worst_watts
        elapsed = 0.0 if self._seen_at is None else max(0.0, now - self._seen_at)
        self._seen_at = now
        if heard == "best":
            self._kept = None
        elif self._kept is None:
            self._kept = (self.ratio, self.bare_watts)
        if heard == "nothing":
            self._blind_at, elapsed = now, 0.0
        if not is_bare:
            self._bare_since = None
        elif self._bare_since is None:
            self._bare_since = now
        self._settled_at = max(changed_at, self._fell_at, self._blind_at) + self.settle_seconds
        if self._bare_since is not None:
            self._settled_at = max(self._settled_at, self._bare_since + BARE_SETTLE_SECONDS)
        if now < self._settled_at:
            self._filtered_watts, self._readings = self._draw_watts, 1
            self._decay(elapsed)
            return
        if is_bare:
            self._decay(elapsed)
            excess = self._filtered_watts - worst_watts
            if excess > CORRECTION_TOLERANCE_RATIO * worst_watts:
                self.bare_watts = max(self.bare_watts, excess)
            return
        self._fade_bare(elapsed)
        measured = self._filtered_watts / (worst_watts + self.bare_watts)
        learnt = measured if measured > 1 + CORRECTION_TOLERANCE_RATIO else 1.0
        if self.ratio > 1 or learnt > 1:
            self.ratio = min(MAX_CORRECTION_RATIO, max(self._decayed(elapsed), learnt))

    def _decay(self, elapsed: float) -> None:
        if self.ratio > 1:
            self.ratio = self._decayed(elapsed)
        if self.bare_watts > 0:
            self._fade_bare(elapsed)

    def _fade_bare(self, elapsed: float) -> None:
        least = 0.0 if self._kept is None else self._kept[1]
        self.bare_watts = least + (self.bare_watts - least) * math.exp(-elapsed / CORRECTION_DECAY_SECONDS)

    def _decayed(self, elapsed: float) -> float:
        least = 1.0 if self._kept is None else self._kept[0]
        return least + (self.ratio - least) * math.exp(-elapsed / CORRECTION_DECAY_SECONDS)
