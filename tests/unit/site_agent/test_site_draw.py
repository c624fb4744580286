"""What a site draws, by what can be heard of it."""

from __future__ import annotations

import pytest

from fleet.profile import SitePowerModel
from site_agent.correction import Correction
from site_agent.site_draw import Draw, SiteDraw

POWER = SitePowerModel(overhead_ratio=1.1, host_idle_watts=600)
TAUGHT = Correction(settle_seconds=1.5, ratio=1.3)


def take(one: SiteDraw, metered: float | None, gpus: float | None, modelled: float = 4000.0) -> Draw:
    return one.take(metered_watts=metered, gpu_watts=gpus, modelled_watts=modelled, correction=TAUGHT)


def test_the_sites_meter_comes_first_but_never_below_its_gpus() -> None:
    """It may be late, or stand in another supply."""
    assert take(SiteDraw(power=POWER), 5000.0, 3000.0) == (5000.0, "meter", 0.0, "best")
    assert take(SiteDraw(power=POWER), 2000.0, 3000.0) == (3000.0, "meter", 0.0, "best")


def test_gpus_are_the_best_source_where_no_meter_was_ever_heard() -> None:
    """The correction was learnt from them: it adds nothing."""
    assert take(SiteDraw(power=POWER), None, 3000.0) == (POWER.site_watts(3000.0), "gpu", 0.0, "best")


def test_what_is_modelled_is_what_the_meter_would_say() -> None:
    """And what was added is known, so that nothing is learnt from it."""
    draw = take(SiteDraw(power=POWER), None, None)
    assert (draw.source, draw.heard) == ("modelled", "nothing")
    assert draw.watts == pytest.approx(5200.0)
    assert draw.added_watts == pytest.approx(1200.0)


@pytest.mark.parametrize(
    ("modelled", "told"),
    [
        (4400.0, 1.3 * POWER.site_watts(3000.0)),  # overhead that GPUs do not see
        (3500.0, 1.3 * 3500.0),  # no more than the corrected model
        (2000.0, POWER.site_watts(3000.0)),  # what is measured is drawn
    ],
)
def test_gpus_after_the_meter_are_corrected_up_to_the_corrected_model(modelled: float, told: float) -> None:
    """What the meter saw above the model was either the GPUs' own draw or overhead."""
    one = SiteDraw(power=POWER)
    take(one, 5000.0, None)
    draw = take(one, None, 3000.0, modelled)
    assert (draw.source, draw.heard) == ("gpu", "lesser")
    assert draw.watts == pytest.approx(told)
    assert draw.watts - draw.added_watts == pytest.approx(POWER.site_watts(3000.0))
