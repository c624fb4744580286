"""How long a decision takes: nothing changing, and with a cap and a load that change every second."""

from __future__ import annotations

import random
import time

from benchmarks.governor.year import reference_model
from fleet.instance import InstanceState
from fleet.power import RideThrough
from site_agent.controls import SITE_CONTROLS, make_control
from site_agent.situation import GovernorRule, InstanceView, SiteView

ROUNDS = 20
DECISIONS = 2000
TICK_SECONDS = 0.1


def print_table() -> None:
    """Microseconds of CPU per decision, the best round: others share this machine."""
    print(f"{'control':<16} {'same':>8} {'changing':>9}")
    for name in SITE_CONTROLS:
        print(f"{name:<16} {_measure(name, is_same=True):>8.1f} {_measure(name, is_same=False):>9.1f}")


def _measure(name: str, *, is_same: bool) -> float:
    control = make_control(
        name, reference_model(), GovernorRule(), RideThrough.for_site(max_site_watts=6000.0)
    )
    rng = random.Random(1)
    views = [_view(5800.0 if is_same else 5000 + rng.gauss(0, 40), 30 + index % 20) for index in range(200)]
    now = 0.0
    for _ in range(2000):
        now += TICK_SECONDS
        control.decide(views[0], now)
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.thread_time()
        for index in range(DECISIONS):
            now += TICK_SECONDS
            control.decide(views[index // 10 % 200], now)
        best = min(best, time.thread_time() - began)
    return best / DECISIONS * 1e6


def _view(cap_watts: float, running: int) -> SiteView:
    return SiteView(
        cap_watts=cap_watts,
        draw_watts=4200.0,
        instances=tuple(
            InstanceView(
                instance_id=f"i-{index}",
                index=index,
                state=InstanceState.READY,
                running_requests=running,
                tensor_parallel_degree=4,
                gpu_indices=tuple(range(4 * index, 4 * index + 4)),
            )
            for index in range(2)
        ),
    )
