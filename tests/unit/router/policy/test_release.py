"""A dark fleet comes back, on a virtual clock: queue, choice and load, against sites that keep count."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from support.views import view

from fleet.request import RequestFeatures
from router.policy.breaker import Breaker
from router.policy.dispatch import choose
from router.policy.fair_line import Ticket
from router.policy.load import RESUME_BURST_SECONDS, Load
from router.policy.policies import make_policy
from router.policy.queue import HoldQueue, Offer
from router.policy.snapshot import ModelView

TICK_SECONDS = 0.1
REPORT_TICKS = 10
PROMPT_TOKENS = 1000
DECODE_SECONDS = 2.0


@dataclass
class Site:
    """Reads prompts one after the other, then writes; a place is taken for as long as both take."""

    site_id: str
    places: int
    prefill_tokens_per_second: float
    sequence: int = 1
    prefill_clear_at: float = 0.0
    ends: list[float] = field(default_factory=list)
    most_running: int = 0
    worst_backlog_seconds: float = 0.0

    def report(self, now: float) -> ModelView:
        self.sequence += 1
        return view(
            self.site_id,
            sequence=self.sequence,
            arrived_at=now,
            headroom_requests=float(self.places - len(self.ends)),
            running_requests=len(self.ends),
            capacity_requests=float(self.places),
            prefill_tokens_per_second=self.prefill_tokens_per_second,
        )

    def take(self, now: float) -> None:
        reading = PROMPT_TOKENS / self.prefill_tokens_per_second
        self.prefill_clear_at = max(now, self.prefill_clear_at) + reading
        self.ends.append(self.prefill_clear_at + DECODE_SECONDS)
        self.most_running = max(self.most_running, len(self.ends))
        self.worst_backlog_seconds = max(self.worst_backlog_seconds, self.prefill_clear_at - now)


class World:
    """One router and its sites; every tenth of a second it looks at its queue, every second they report."""

    def __init__(self, sites: list[Site], waiting: int, seed: int) -> None:
        self.sites = {site.site_id: site for site in sites}
        self.loads = {site.site_id: Load(Breaker()) for site in sites}
        self.views: list[ModelView] = []
        self.queue = HoldQueue(max_waiting=waiting)
        self.rng = random.Random(seed)
        self.served = 0
        for number in range(waiting):
            self.queue.add(
                Ticket(
                    model="m",
                    tier="default",
                    tenant=f"t{number % 7}",
                    tokens=PROMPT_TOKENS,
                    waits_since=0.0,
                    expires_at=1e9,
                )
            )

    def step(self, tick: int, now: float) -> None:
        for site in self.sites.values():
            over = [end for end in site.ends if end <= now]
            for end in over:
                site.ends.remove(end)
                self.loads[site.site_id].in_flight -= 1
                self.served += 1
        if tick % REPORT_TICKS == 0:
            self.views = [site.report(now) for site in self.sites.values()]
            for one in self.views:
                self.loads[one.site_id].reported(one)

        def offer(_: Ticket) -> Offer:
            chosen = choose(self.views, self.loads, now=now, rng=self.rng, is_paced=True, **CHOICE)
            if chosen is None:
                return Offer.NO_ROOM
            load = self.loads[chosen.site_id]
            load.send_resume(PROMPT_TOKENS, chosen, now)
            load.in_flight += 1
            self.sites[chosen.site_id].take(now)
            return Offer.PLACED

        self.queue.serve("m", offer, now)


CHOICE: dict[str, Any] = {
    "policy": make_policy("least_loaded"),
    "features": RequestFeatures(
        model="m",
        request_class="MS",
        prompt_tokens=PROMPT_TOKENS,
        expected_output_tokens=10,
        stream=True,
    ),
    "excluded": {},
    "is_resume": False,
    "reserve_ratio": 0.0,
    "turn": 1,
}


@pytest.mark.parametrize("seed", range(5))
def test_held_work_goes_out_within_room_and_pace_and_all_of_it_does(seed: int):
    """A thousand wait: no site runs more than it has places, nor is its prefill ever far behind."""
    sites = [Site("a", 40, 20_000.0), Site("b", 40, 10_000.0), Site("c", 10, 5_000.0)]
    world = World(sites, 1000, seed)
    tick = 0
    while world.served < 1000 and tick < 2000:
        world.step(tick, 100.0 + tick * TICK_SECONDS)
        tick += 1
    assert world.served == 1000, f"seed {seed}"
    assert len(world.queue) == 0
    for site in sites:
        assert site.most_running <= site.places, f"seed {seed}"
        reading = PROMPT_TOKENS / site.prefill_tokens_per_second
        assert site.worst_backlog_seconds <= RESUME_BURST_SECONDS + reading + 1e-9, f"seed {seed}"
    fastest = 1000 * PROMPT_TOKENS / 35_000.0
    assert tick * TICK_SECONDS < 2 * fastest, "neither room nor prefill is left unused for long"
