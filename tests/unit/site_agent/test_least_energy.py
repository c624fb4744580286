"""The least watts that carry a load in time: what `dynamo_like` wishes for."""

from __future__ import annotations

import math

import pytest

from fleet.capacity import busy_watts, prefill_ratio, requests_per_second
from fleet.profile import PROFILES, SitePowerModel
from site_agent.least_energy import LeastEnergy
from site_agent.limits import MeanWork
from site_agent.load_watch import LoadWatch
from site_agent.outlook import Outlook
from site_agent.site_model import Layout, SiteModel
from site_agent.situation import GovernorRule

TP = {degree: PROFILES[f"llama-3.1-70b/h100/tp{degree}"] for degree in (2, 4, 8)}
MODEL = SiteModel(
    profile=TP[4],
    power=SitePowerModel(overhead_ratio=1.1, host_idle_watts=600),
    instances=2,
    max_concurrency=64,
    clocks_mhz=TP[4].clocks_mhz,
    other_profiles=(TP[2], TP[8]),
)
WORK = MeanWork(prompt_tokens=1154.0, output_tokens=211.0)
BOTH: Layout = ((4, 2),)
PLENTY = 10_000.0


def chooser(load_ratio: float = 0.8) -> LeastEnergy:
    return LeastEnergy(model=MODEL, rule=GovernorRule(load_ratio=load_ratio, load_hold_seconds=10.0))


def load(running: int, *, at: float = 100.0, turned_away: int = 0) -> LoadWatch:
    """Known since long, with so many running at most."""
    watch = LoadWatch(hold_seconds=10.0)
    for second in range(int(at) - 60, int(at) + 1):
        watch.observe(running, turned_away if second == at else 0, float(second))
    return watch


def outlook(
    running: int,
    *,
    staying: Layout = BOTH,
    watts: float = PLENTY,
    clock_mhz: int = 1980,
    at: float = 100.0,
    turned_away: int = 0,
) -> Outlook:
    return Outlook(
        staying=staying,
        clock_mhz=clock_mhz,
        budget_watts=watts,
        sure_watts=watts,
        later_watts=(),
        awaited=(),
        targets=None,
        load=load(running, at=at, turned_away=turned_away),
        work=WORK,
    )


def test_little_load_takes_few_watts_and_still_ends_in_time() -> None:
    """One slow instance; what it carries within the SLO is more than what comes."""
    subject = chooser()
    wish = subject.wish(outlook(6), 100.0)
    assert wish.awake == 1
    assert wish.clock_mhz < 1980
    assert subject.worth.of(wish.layout, wish.clock_mhz) * 0.8 >= subject._load(outlook(6), 100.0)


def test_much_load_keeps_everything_awake() -> None:
    """More than one instance can end in time."""
    assert chooser().wish(outlook(60), 100.0).layout == BOTH


@pytest.mark.parametrize("running", range(0, 128, 8))
@pytest.mark.parametrize("watts", [2000.0, 2600.0, 3400.0, PLENTY])
def test_a_degree_whose_cache_holds_nothing_is_never_chosen(running: int, watts: float) -> None:
    """Tensor-parallel 2 holds 8,850 tokens: it would thrash, whatever its tokens per second."""
    wish = chooser().wish(outlook(running, watts=watts), 100.0)
    assert all(degree != 2 for degree, _ in wish.layout)
    assert not wish.layout or MODEL.clock_that_fits(wish.layout, watts) is not None


def test_a_slower_clock_is_not_taken_for_more_load() -> None:
    """The same rate runs more requests at 1,000 MHz: what is worked out is the same rate."""
    subject = chooser()
    subject.worth.learn(WORK)
    for rate in (0.5, 1.5, 2.5):
        for clock in (1000, 1980):
            running = subject._running_at(4, clock, rate)
            assert subject._rate_of(4, clock, running) == pytest.approx(rate, rel=1e-6)
    assert subject._running_at(4, 1000, 1.5) > subject._running_at(4, 1980, 1.5)


def test_an_unknown_load_gets_all_there_is() -> None:
    """Nothing was seen yet, requests are turned away, or nothing is awake that could show a load."""
    for given in (
        outlook(0, turned_away=1),
        outlook(0, staying=()),
        Outlook(**{**_fields(outlook(0)), "load": LoadWatch(hold_seconds=10.0)}),
    ):
        wish = chooser().wish(given, 100.0)
        assert wish.layout == BOTH
        assert wish.clock_mhz == 1980


def _fields(given: Outlook) -> dict[str, object]:
    return {name: getattr(given, name) for name in Outlook.__dataclass_fields__}


def test_it_is_planned_anew_after_a_while_and_at_once_when_it_must_be() -> None:
    """Every five minutes; when what runs carries no more, or turns away; when the plan no longer fits."""
    subject = chooser()
    first = subject.wish(outlook(60), 100.0)
    assert first.layout == BOTH
    assert subject.wish(outlook(6, at=399.0), 399.0).layout == BOTH
    again = subject.wish(outlook(6, at=400.0), 400.0)
    assert again.awake == 1
    assert subject.wish(outlook(60, staying=again.layout, at=404.0), 404.0).layout == again.layout
    faster = subject.wish(outlook(60, staying=again.layout, at=405.0), 405.0)
    assert faster.layout == again.layout
    assert faster.clock_mhz > again.clock_mhz
    assert subject.wish(outlook(60, staying=again.layout, at=410.0), 410.0).layout == BOTH
    again = subject.wish(outlook(6, at=711.0), 711.0)
    assert again.awake == 1
    assert subject.wish(outlook(60, staying=again.layout, at=720.0, turned_away=3), 720.0).layout == BOTH
    assert MODEL.clock_that_fits(subject.wish(outlook(60, watts=2600.0, at=725.0), 725.0).layout, 2600.0)


def test_the_clock_follows_the_load_between_plans() -> None:
    """Every five seconds; full where the layout carries no more."""
    subject = chooser()
    low = subject.wish(outlook(40), 100.0)
    assert low.layout == BOTH
    high = subject.wish(outlook(110, at=106.0), 106.0)
    assert high.layout == BOTH
    assert high.clock_mhz == 1980
    assert low.clock_mhz < high.clock_mhz


def test_a_site_that_lacked_power_thinks_again_when_it_has_more() -> None:
    """It does not wait for its five minutes: wind comes back within seconds."""
    subject = chooser()
    assert subject.wish(outlook(0, staying=(), watts=1000.0), 100.0).layout == ()
    assert subject.wish(outlook(0, staying=(), watts=1020.0, at=101.0), 101.0).layout == ()
    assert subject.wish(outlook(0, staying=(), watts=2600.0, at=102.0), 102.0).awake == 1
    assert subject.wish(outlook(0, staying=((4, 1),), watts=6000.0, at=103.0), 103.0).layout == BOTH
    assert subject.wish(outlook(6, at=170.0), 170.0).layout == BOTH
    assert subject.wish(outlook(6, at=471.0), 471.0).awake == 1


def test_what_runs_is_left_for_a_saving_only() -> None:
    """A layout that draws nearly the same is not worth an engine's start."""
    subject = chooser()
    subject.saving_ratio = 0.99
    assert subject.wish(outlook(6), 100.0).layout == BOTH


def test_rates_are_those_of_the_profile() -> None:
    """At the most that an instance sustains, as many run as its table's end says."""
    subject = chooser()
    subject.worth.learn(WORK)
    rates, runs = subject._table(4, 1980)
    most = requests_per_second(TP[4], 1980, subject.worth.work, max_concurrency=64)
    assert rates[-1] == pytest.approx(most)
    assert rates == sorted(rates)
    assert runs == sorted(runs)
    assert all(math.isfinite(value) for value in (*rates, *runs))
    assert subject._rate_of(4, 1980, 1000.0) == rates[-1]
    assert subject._rate_of(4, 1980, 0.0) == 0.0


def test_prompts_count_at_what_reading_them_draws() -> None:
    """The same requests with hardly any prompt, at the same batch, draw less."""
    subject = chooser()
    subject.worth.learn(WORK)
    rate = 4.0
    running = subject._running_at(4, 1980, rate / 2)
    batches = MODEL.power.site_watts(2 * busy_watts(TP[4], 1980, running))
    share = prefill_ratio(TP[4], 1980, subject.worth.work, rate / 2)
    added = 2 * share * (TP[4].prefill_watts(1980) - TP[4].watts(running, 1980)) * 1.1
    assert added > 100
    assert subject._watts(BOTH, 1980, rate) == pytest.approx(batches + added)
