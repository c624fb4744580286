"""What a site draws, from what can be heard of it just now. Pure.

Rules:

* its meter comes first, then its GPUs, then the model of what runs;
* what a better source has taught the control's correction counts for a lesser one too, which cannot see it:
  it is added to its figure, and taken off again where the correction learns (`Draw.added_watts`);
* a model teaches nothing of itself, and a lesser source does not make forget what a better one taught.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from fleet.profile import SitePowerModel
from fleet.records import DrawSource
from site_agent.correction import Correction
from site_agent.situation import Heard


class Draw(NamedTuple):
    """At one moment."""

    watts: float
    source: DrawSource
    added_watts: float
    """Of these, what the correction says beyond the source."""
    heard: Heard


@dataclass(slots=True, kw_only=True)
class SiteDraw:
    """Remembers whether the site's meter was ever heard."""

    power: SitePowerModel
    _has_metered: bool = False

    def take(
        self,
        *,
        metered_watts: float | None,
        gpu_watts: float | None,
        modelled_watts: float,
        correction: Correction,
    ) -> Draw:
        """None: not heard, or too old.

        A meter may be late, or stand in another supply: the site draws what its GPUs do, at the least. GPUs
        without the meter that was heard before: what it saw above the model may be theirs, and is measured,
        or overhead, and is not; they count as corrected themselves, up to the corrected model.
        """
        if metered_watts is not None:
            self._has_metered = True
            return Draw(max(metered_watts, gpu_watts or 0.0), "meter", 0.0, "best")
        modelled = correction.corrected_watts(modelled_watts)
        if gpu_watts is None:
            return Draw(modelled, "modelled", modelled - modelled_watts, "nothing")
        by_gpus = self.power.site_watts(gpu_watts)
        if not self._has_metered:
            return Draw(by_gpus, "gpu", 0.0, "best")
        watts = max(by_gpus, min(correction.corrected_watts(by_gpus), modelled))
        return Draw(watts, "gpu", watts - by_gpus, "lesser")
