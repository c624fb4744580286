"""What a site runs without a plan."""

from __future__ import annotations

from dataclasses import replace

from fleet.profile import PROFILES, SitePowerModel
from site_agent.load_watch import LoadWatch
from site_agent.outlook import Outlook
from site_agent.own_choice import LOOK_SECONDS, RESHARD_SECONDS, OwnChoice
from site_agent.site_model import Configuration, Layout, SiteModel
from site_agent.situation import GovernorRule, Target

TP = {degree: PROFILES[f"llama-3.1-70b/h100/tp{degree}"] for degree in (2, 4, 8)}
MODEL = SiteModel(
    profile=TP[4],
    power=SitePowerModel(overhead_ratio=1.1, host_idle_watts=600),
    instances=2,
    max_concurrency=64,
    clocks_mhz=TP[4].clocks_mhz,
    other_profiles=(TP[2], TP[8]),
)
RULE = GovernorRule()
ONE, BOTH, SMALL, WIDE = MODEL.uniform(1), MODEL.uniform(2), MODEL.uniform(1, 2), MODEL.uniform(1, 8)
FULL = MODEL.full_watts


def outlook(staying: Layout, budget: float, *, model: SiteModel = MODEL, **changes: object) -> Outlook:
    seen = Outlook(
        staying=staying,
        clock_mhz=model.clock_that_fits(staying, budget) or model.lowest_clock_mhz,
        budget_watts=budget,
        sure_watts=budget,
        later_watts=(budget,),
        awaited=(),
        targets=None,
        load=LoadWatch(hold_seconds=120.0),
        work=None,
    )
    return replace(seen, **changes)  # type: ignore[arg-type]


def choice(model: SiteModel = MODEL) -> OwnChoice:
    return OwnChoice(model=model, rule=RULE)


def layout(seen: Outlook, now: float = 1000.0) -> Layout:
    return choice().wish(seen, now).layout


def test_from_dark_the_degree_that_is_worth_the_most_is_started() -> None:
    """Four GPUs, eight where two of four would be slow."""
    assert layout(outlook((), 1500)) == ()
    assert layout(outlook((), 2200)) == ONE
    assert layout(outlook((), 3000)) == WIDE
    assert layout(outlook((), FULL)) == BOTH


def test_a_site_whose_own_degree_is_a_poor_one_starts_in_a_better() -> None:
    """What its configuration names first is no more than a tie-break."""
    model = replace(MODEL, profile=TP[2], instances=4, other_profiles=(TP[4],))
    assert choice(model).wish(outlook((), FULL, model=model), 0.0).layout == ((4, 2),)


def test_a_poor_degree_is_not_started_even_where_nothing_else_fits() -> None:
    """Two GPUs end a quarter of what four do; alone there is no better, and they start."""
    assert layout(outlook((), 1900)) == ()
    model = replace(MODEL, profile=TP[2], instances=4, other_profiles=())
    assert choice(model).wish(outlook((), 1900, model=model), 0.0).layout == SMALL


def test_from_dark_what_the_forecast_expects_decides() -> None:
    """Eight GPUs are the best now, and not for the power that is on its way."""
    later = (3000.0, 5000.0, 5500.0, 6000.0)
    assert layout(outlook((), 3000, later_watts=later)) == BOTH


def test_what_a_dip_has_emptied_keeps_its_degree() -> None:
    """It is back before another could start."""
    assert layout(outlook((), 1900, awaited=ONE)) == ()
    assert layout(outlook((), 2200, awaited=ONE)) == ONE


def test_with_power_for_all_every_instance_stays_awake() -> None:
    """Wind that is there costs nothing."""
    assert layout(outlook(ONE, FULL)) == BOTH
    assert layout(outlook(BOTH, FULL)) == BOTH


def test_more_instances_only_where_they_end_more_in_time_and_that_lasts() -> None:
    """At 2,900 W one that is fast ends as many as two that are slow; a start is not made for a gust."""
    assert layout(outlook(ONE, 2900)) == ONE
    assert layout(outlook(ONE, 3800)) == BOTH
    assert layout(outlook(ONE, 3800, sure_watts=2900.0)) == ONE


def test_fewer_and_faster_only_for_a_clear_gain() -> None:
    """Two at the lowest clock end hardly fewer than one at its best on the same watts; a tenth fewer where
    prefill draws no more than decode."""
    least = MODEL.worst_watts(BOTH, 800)
    assert layout(outlook(BOTH, least)) == BOTH
    cool = replace(MODEL, profile=replace(TP[4], prefill_watts_at_full_clock=1800.0))
    least = cool.worst_watts(BOTH, 800)
    fewer = outlook(BOTH, least, model=cool)
    assert choice(cool).wish(fewer, 1000.0).layout == ONE
    assert choice(cool).wish(replace(fewer, sure_watts=FULL), 1000.0).layout == BOTH
    assert choice(cool).wish(outlook(BOTH, 3200, model=cool), 1000.0).layout == BOTH


def test_another_degree_must_pay_for_its_pause() -> None:
    """Eight GPUs gain too little over four; four over two gain thrice."""
    chooser = choice()
    assert chooser.wish(outlook(ONE, 2900), 1000.0).layout == ONE
    assert chooser.wish(outlook(SMALL, 2400), 2000.0) == Configuration(
        layout=ONE, clock_mhz=1980, is_worth_a_pause=True
    )


def test_another_degree_waits_since_the_last_change() -> None:
    """Bounded, whatever the wind does: from eight GPUs to two of four for less than twice as much."""
    chooser = choice()
    assert chooser.wish(outlook((), 3000), 1000.0).layout == WIDE
    later = 1000.0 + RESHARD_SECONDS
    assert chooser.wish(outlook(WIDE, FULL), later - LOOK_SECONDS - 1).layout == WIDE
    assert chooser.wish(outlook(WIDE, FULL), later + LOOK_SECONDS).layout == BOTH


def test_for_twice_as_much_no_time_is_waited_for() -> None:
    """What has hardly started goes."""
    chooser = choice()
    chooser.wish(outlook((), 2100), 1000.0)
    assert chooser.wish(outlook(SMALL, 2400), 1001.0) == Configuration(
        layout=ONE, clock_mhz=1980, is_worth_a_pause=True
    )


def test_another_degree_is_not_sought_for_a_gust() -> None:
    """It must fit by the low quantile, and be worth it over the next half hour."""
    assert layout(outlook(SMALL, 2400, sure_watts=1900.0)) == SMALL
    later = (2400.0, 1800.0, 1800.0, 1800.0, 1800.0, 1800.0)
    assert layout(outlook(SMALL, 2400, later_watts=later))[0][0] == 2


def test_a_site_with_a_plan_keeps_its_degree() -> None:
    """The plan would take it back; from dark it starts in the plan's."""
    targets = (Target(tensor_parallel_degree=2, instances=4),)
    assert layout(outlook(SMALL, 2400, targets=targets))[0][0] == 2
    assert layout(outlook((), 2400, targets=targets))[0][0] == 2


def test_a_mixed_layout_becomes_one_of_its_main_degree_for_a_clear_gain() -> None:
    """As a plan, or a change of degree beside what served, left it."""
    mixed = ((2, 1), (4, 1))
    assert layout(outlook(mixed, 3000)) == mixed
    assert layout(outlook(mixed, FULL)) == BOTH
    plan = (Target(tensor_parallel_degree=4, instances=3),)
    assert layout(outlook(mixed, FULL, targets=plan)) == mixed


def test_a_start_that_takes_long_makes_a_change_of_degree_pay_less() -> None:
    """What serves nobody for a quarter of an hour is not worth the better degree."""
    later = (3000.0,) * 4
    seen = outlook(SMALL, 3000, later_watts=later)
    assert layout(seen) == WIDE
    assert layout(replace(seen, start_seconds=1500.0)) != WIDE
