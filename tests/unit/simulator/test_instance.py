"""What a simulated instance's GPUs are told of its engine."""

from __future__ import annotations

import random

import pytest

from fleet.profile import LLAMA_70B_H100_TP4
from simulator.events import Events
from simulator.instance import SimulatedInstance
from simulator.sequence import Sequence
from simulator.settings import POWER_LAG_SECONDS
from site_agent.drivers.interface import InstanceSpec

PROFILE = LLAMA_70B_H100_TP4
LONG_AFTER = 12 * POWER_LAG_SECONDS


def ready_instance() -> tuple[SimulatedInstance, Events]:
    """Started, with nothing to do."""
    events = Events()
    instance = SimulatedInstance(
        InstanceSpec(
            instance_id="a-0",
            index=0,
            gpu_indices=(0, 1, 2, 3),
            tensor_parallel_degree=4,
            port=1,
            model="m",
        ),
        PROFILE,
        events=events,
        max_concurrency=64,
        start_seconds=1.0,
        rng=random.Random(1),
        on_first_token=lambda _sequence, _now: None,
        on_finish=lambda _sequence, _now: None,
        on_change=lambda: None,
    )
    instance.start()
    events.run(1.0 + LONG_AFTER)
    return instance, events


def watts_of(instance: SimulatedInstance, events: Events) -> float:
    instance.gpus.advance(events.now)
    return instance.gpus.watts


def test_a_long_prompt_draws_prefills_watts_and_its_answer_a_batchs() -> None:
    """Mixed by the share of the step, and gone when it is read or its engine ends."""
    instance, events = ready_instance()
    idle = watts_of(instance, events)
    assert idle == pytest.approx(PROFILE.idle_watts, rel=1e-3)
    instance.submit(Sequence(prompt_tokens=6 * 7000, max_tokens=400, owner=None))
    events.run(events.now + LONG_AFTER / 2)
    ratio, one = instance.engine.prefill_ratio, PROFILE.watts(1, 1980)
    assert 0.5 < ratio < 1.0
    mixed = one + ratio * (PROFILE.prefill_watts(1980) - one)
    assert watts_of(instance, events) == pytest.approx(mixed, rel=0.02)
    events.run(events.now + LONG_AFTER)
    assert instance.engine.prefill_ratio == 0.0
    assert watts_of(instance, events) == pytest.approx(one, rel=0.02)
    instance.submit(Sequence(prompt_tokens=6 * 7000, max_tokens=400, owner=None))
    instance.stop()
    events.run(events.now + LONG_AFTER)
    assert watts_of(instance, events) == pytest.approx(PROFILE.stopped_watts, rel=1e-3)
