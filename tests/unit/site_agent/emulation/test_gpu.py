"""Physics of the fake GPUs, by table."""

from __future__ import annotations

import math
import random

import pytest

from fleet.profile import LLAMA_70B_H100_TP4 as PROFILE
from site_agent.emulation.gpu import ClockError, FakeGpus, GpuOptions, PowerState


def make_gpus(lag: float = 0.3, noise: float = 0.0, clock_lag: float = 0.05, seed: int = 1) -> FakeGpus:
    """Four GPUs of one instance at time 0."""
    options = GpuOptions(lag_seconds=lag, noise_ratio=noise, clock_lag_seconds=clock_lag)
    return FakeGpus(PROFILE, (0, 1, 2, 3), options, random.Random(seed), 0.0)


@pytest.mark.parametrize(
    ("state", "running", "watts"),
    [
        ("stopped", 0, 280.0),
        ("idle", 0, 460.0),
        ("running", 8, 1765.0),
        ("running", 16, 1804.0),
        ("running", 48, 1898.0),
    ],
)
def test_draw_settles_at_the_profiles_watts(state: PowerState, running: int, watts: float) -> None:
    """After many time constants."""
    gpus = make_gpus()
    gpus.set_load(state, running, 1.0)
    assert sum(gpus.readings(11.0)) == pytest.approx(watts)


def test_the_time_that_goes_to_prompts_draws_what_prefill_does() -> None:
    """All of it, a part, and none again; an idle engine reads none."""
    gpus = make_gpus(lag=0.0)
    decode, prefill = PROFILE.watts(16, 1980), PROFILE.prefill_watts(1980)
    for at, ratio in enumerate([1.0, 0.25, 0.0]):
        gpus.set_load("running", 16, at, prefill_ratio=ratio)
        assert sum(gpus.readings(at + 0.5)) == pytest.approx(decode + ratio * (prefill - decode))
    gpus.set_load("running", 16, 3.0, prefill_ratio=1.0)
    gpus.set_clock(800, 3.0)
    assert sum(gpus.readings(3.5)) == pytest.approx(PROFILE.prefill_watts(800))


def test_draw_follows_with_first_order_lag() -> None:
    """63 % of the way after one time constant."""
    gpus = make_gpus(lag=0.3)
    gpus.set_load("running", 16, 10.0)
    assert sum(gpus.readings(10.0)) == pytest.approx(280.0)
    assert sum(gpus.readings(10.3)) == pytest.approx(1804 - (1804 - 280) / math.e)


def test_without_lag_the_draw_jumps() -> None:
    """lag_seconds = 0 is allowed."""
    gpus = make_gpus(lag=0.0)
    gpus.set_load("idle", 0, 10.0)
    assert sum(gpus.readings(10.001)) == pytest.approx(460.0)


def test_lower_clock_lowers_the_dynamic_part_after_its_lag() -> None:
    """0.25 + 0.75 · g^2.4 of it, g the share of the full clock."""
    gpus = make_gpus(lag=0.0)
    gpus.set_load("running", 16, 0.0)
    assert gpus.set_clock(800, 1.0) == pytest.approx(1.05)
    assert gpus.clock_mhz(1.04) == 1980
    assert sum(gpus.readings(1.04)) == pytest.approx(1804.0)
    assert gpus.clock_mhz(1.06) == 800
    assert sum(gpus.readings(1.06)) == pytest.approx(PROFILE.watts(16, 800))
    gpus.set_clock(None, 2.0)
    assert gpus.clock_mhz(2.1) == 1980
    assert sum(gpus.readings(2.1)) == pytest.approx(1804.0)


def test_energy_is_the_integral_of_the_draw_over_lag_and_clock_changes() -> None:
    """However rarely it is asked: one long step equals many short ones."""
    rare, often = make_gpus(noise=0.5), make_gpus()
    for step in range(1, 401):
        now = step / 100
        if step == 50:
            for gpus in (rare, often):
                gpus.set_load("running", 64, now)
        if step == 200:
            for gpus in (rare, often):
                gpus.set_clock(1200, now)
        often.advance(now)
    assert rare.joules(4.0) == pytest.approx(often.joules(4.0))
    stopped = make_gpus()
    assert stopped.joules(100.0) == pytest.approx(28_000.0)


def test_noise_is_the_meters_seeded_and_about_as_large_as_told() -> None:
    """One new value per sample and GPU; the same seed reads the same."""
    first, second = make_gpus(noise=0.01), make_gpus(noise=0.01)
    readings = []
    for _ in range(500):
        first.draw_noise()
        second.draw_noise()
        assert first.readings(1.0) == second.readings(1.0) == first.readings(1.0)
        readings += first.readings(1.0)
    mean = sum(readings) / len(readings)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in readings) / len(readings))
    assert mean == pytest.approx(70.0, rel=0.002)
    assert deviation == pytest.approx(0.7, rel=0.1)


@pytest.mark.parametrize("clock_mhz", [0, 799, 1981])
def test_clock_that_the_gpu_lacks_is_refused(clock_mhz: int) -> None:
    """The error says which there are."""
    with pytest.raises(ClockError, match="takes 800 to 1980"):
        make_gpus().set_clock(clock_mhz, 0.0)
