"""Joules by phase: they sum to the site's energy, whatever is known and whatever is not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from site_agent.accounting import EnergyAccount, InstanceMoment, SiteMoment


def instance(name: str = "i0", **values: Any) -> InstanceMoment:
    defaults: dict[str, Any] = {
        "gpu_joules": None,
        "modelled_watts": 400.0,
        "prompt_tokens": 0.0,
        "output_tokens": 0.0,
        "prefill_seconds_per_token": 0.001,
        "decode_seconds_per_token": 0.01,
    }
    return InstanceMoment(instance_id=name, **defaults | values)


def moment(at: float, *instances: InstanceMoment, **values: Any) -> SiteMoment:
    defaults: dict[str, Any] = {
        "draw_joules": 1000.0 * at,
        "is_measured": True,
        "gpu_joules": {},
        "gpu_count": 0,
        "overhead_ratio": 1.0,
        "host_idle_watts": 0.0,
        "granted_watts": None,
        "available_watts": None,
        "nameplate_watts": None,
    }
    return SiteMoment(at=at, instances=instances, **defaults | values)


def test_energy_is_split_by_the_time_that_tokens_take() -> None:
    """100 prompt tokens take as long as 10 output tokens here."""
    account = EnergyAccount()
    account.observe(moment(0, instance()))
    account.observe(moment(1, instance(prompt_tokens=100.0, output_tokens=30.0)))
    assert account.joules == {"prefill": 100.0, "decode": 300.0, "idle": 600.0, "unsplit": 0.0}
    assert account.measured_joules == account.total_joules == 1000.0


def test_a_price_is_said_after_three_seconds_of_tokens_and_outlasts_an_idle_hour() -> None:
    """The first second's few tokens, as late counters show them, say nothing of the next one's."""
    account = EnergyAccount()
    account.observe(moment(0, instance()))
    said = []
    for at in (1, 2, 3):
        account.observe(moment(at, instance(prompt_tokens=100.0 * at, output_tokens=30.0 * at)))
        said.append(account.joules_per_output_token)
    assert said == [None, None, pytest.approx(10.0)]
    for at in range(4, 3600):
        account.observe(moment(at, instance(prompt_tokens=300.0, output_tokens=90.0)))
    assert account.joules_per_prompt_token == pytest.approx(1.0)
    assert account.joules_per_output_token == pytest.approx(10.0)


def test_counters_of_the_gpus_come_before_the_model_and_overhead_counts() -> None:
    """Two GPUs, one of them the instance's; hosts 100 W; a tenth more for cooling."""
    common: dict[str, Any] = {"gpu_count": 2, "overhead_ratio": 1.1, "host_idle_watts": 100.0}
    account = EnergyAccount()
    account.observe(moment(0, instance(gpu_joules=5000.0), gpu_joules={0: 5000.0, 1: 70.0}, **common))
    later = instance(gpu_joules=5700.0, output_tokens=10.0)
    account.observe(moment(1, later, gpu_joules={0: 5700.0, 1: 170.0}, **common))
    assert account.joules["decode"] == pytest.approx(770.0)
    assert account.joules["idle"] == pytest.approx(1.1 * 200)
    assert account.total_joules == pytest.approx(1.1 * 900)


def test_a_meter_of_the_site_comes_before_the_counters() -> None:
    """What the counters do not see, hosts and cooling, is idle."""
    account = EnergyAccount()
    account.observe(moment(0, instance(gpu_joules=0.0), gpu_joules={0: 0.0}, gpu_count=1, is_metered=True))
    worked = instance(gpu_joules=400.0, output_tokens=30.0)
    account.observe(moment(1, worked, gpu_joules={0: 400.0}, gpu_count=1, is_metered=True))
    assert account.joules == {"prefill": 0.0, "decode": 400.0, "idle": 600.0, "unsplit": 0.0}


@pytest.mark.parametrize("tokens", [(None, 5.0), (5.0, None), (-1.0, 5.0)])
def test_energy_of_an_engine_that_does_not_say_its_tokens_is_unsplit(
    tokens: tuple[float | None, float | None],
) -> None:
    """Unknown is not zero; a counter that fell is a new engine's."""
    account = EnergyAccount()
    account.observe(moment(0, instance()))
    account.observe(moment(1, instance(prompt_tokens=tokens[0], output_tokens=tokens[1])))
    assert account.joules["unsplit"] == 400.0
    assert account.joules_per_output_token is None


def test_an_instance_that_has_just_started_and_one_without_tokens_are_idle() -> None:
    """What is known of it begins with its first moment."""
    account = EnergyAccount()
    account.observe(moment(0, instance("i0")))
    account.observe(moment(1, instance("i0"), instance("i1", output_tokens=50.0)))
    assert account.joules["idle"] == account.total_joules == 1000.0


def test_wind_is_used_or_curtailed() -> None:
    """What is drawn above the grant is no wind; the farm's capacity factor is its own."""
    account = EnergyAccount()
    wind: dict[str, Any] = {"available_watts": 4000.0, "nameplate_watts": 10_000.0}
    account.observe(moment(0, granted_watts=1500.0, **wind))
    account.observe(moment(1, granted_watts=1500.0, **wind))
    account.observe(moment(2, granted_watts=800.0, **wind))
    assert (account.granted_joules, account.wind_used_joules, account.curtailed_joules) == (
        2300.0,
        1800.0,
        500.0,
    )
    assert account.capacity_factor_ratio == pytest.approx(0.4)
    assert EnergyAccount().capacity_factor_ratio is None


def test_a_gap_is_not_made_up() -> None:
    """Nobody knows what was drawn."""
    account = EnergyAccount()
    account.observe(moment(0))
    account.observe(moment(60))
    account.observe(moment(60))
    assert (account.total_joules, account.unaccounted_seconds) == (0.0, 60.0)


counters = st.none() | st.floats(0, 1e6)


@given(
    st.lists(
        st.tuples(
            st.floats(0.01, 12),
            st.floats(0, 20_000),
            st.lists(st.tuples(counters, st.floats(0, 5000), counters, counters), max_size=3),
            st.dictionaries(st.integers(0, 2), st.floats(0, 1e6), max_size=3),
        ),
        max_size=20,
    )
)
def test_phases_always_sum_to_the_energy_and_nothing_is_negative(steps: list[Any]) -> None:
    """Whatever counters do."""
    account, at, drawn = EnergyAccount(), 0.0, 0.0
    for elapsed, watts, instances, gpu_joules in steps:
        at, drawn = at + elapsed, drawn + watts * elapsed
        before = account.total_joules
        account.observe(
            moment(
                at,
                *(
                    instance(
                        f"i{number}",
                        gpu_joules=gpu,
                        modelled_watts=model,
                        prompt_tokens=prompt,
                        output_tokens=output,
                    )
                    for number, (gpu, model, prompt, output) in enumerate(instances)
                ),
                draw_joules=drawn,
                gpu_joules=gpu_joules,
                gpu_count=3,
                granted_watts=watts,
            )
        )
        assert account.total_joules >= before - 1e-6 * max(1.0, before)
    assert all(joules >= -1e-6 * max(1.0, account.total_joules) for joules in account.joules.values())
    assert account.granted_joules == pytest.approx(account.wind_used_joules + account.curtailed_joules)
