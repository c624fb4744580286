"""What a site should run when nothing forces it."""

from __future__ import annotations

from fleet.profile import PROFILES, SitePowerModel
from site_agent.choosers import FollowPlan, MostThroughput, planned
from site_agent.load_watch import LoadWatch
from site_agent.outlook import Outlook
from site_agent.site_model import Configuration, Layout, SiteModel
from site_agent.situation import GovernorRule, Target

TP = {degree: PROFILES[f"llama-3.1-70b/h100/tp{degree}"] for degree in (2, 4, 8)}
MODEL = SiteModel(
    profile=TP[4],
    power=SitePowerModel(overhead_ratio=1.1, host_idle_watts=600),
    instances=2,
    max_concurrency=32,
    clocks_mhz=TP[4].clocks_mhz,
    other_profiles=(TP[2],),
    other_max_concurrency=(16,),
)
RULE = GovernorRule()
FULL = MODEL.full_watts


def load(requests: int, *, seconds: float = 300.0, turned_away_at: float | None = None) -> LoadWatch:
    """As seen for so long, until 1,000."""
    watch = LoadWatch(hold_seconds=RULE.load_hold_seconds)
    watch.observe(requests, 0, 1000 - seconds)
    watch.observe(requests, 0, 1000)
    if turned_away_at is not None:
        watch.turned_away_at = turned_away_at
    return watch


def outlook(
    staying: Layout,
    budget: float = FULL,
    *,
    requests: LoadWatch | None = None,
    targets: tuple[Target, ...] | None = None,
) -> Outlook:
    clock = MODEL.clock_that_fits(staying, budget) or MODEL.lowest_clock_mhz
    return Outlook(
        staying=staying,
        clock_mhz=clock,
        budget_watts=budget,
        sure_watts=budget,
        later_watts=(),
        awaited=(),
        work=None,
        targets=targets,
        load=requests or load(64),
    )


def wish(seen: Outlook) -> Configuration:
    return FollowPlan(model=MODEL, rule=RULE).wish(seen, 1000.0)


TWO_OF_FOUR = MODEL.uniform(2)
ONE_OF_FOUR = MODEL.uniform(1)


def test_a_plan_that_fits_is_followed() -> None:
    """Layout and clock."""
    wanted = (Target(tensor_parallel_degree=2, instances=3, gpu_clock_mhz=1400),)
    found = wish(outlook(TWO_OF_FOUR, targets=wanted))
    assert found == Configuration(layout=((2, 3),), clock_mhz=1400)


def test_a_plan_that_wants_nothing_empties_the_site() -> None:
    """An empty list is a wish; no list is none."""
    assert wish(outlook(TWO_OF_FOUR, targets=())).layout == ()
    assert wish(outlook(TWO_OF_FOUR, targets=None)).layout == TWO_OF_FOUR


def test_a_plan_that_does_not_fit_re_shards_nothing() -> None:
    """Too little power, a degree that the site has not, or more GPUs than there are."""
    four = (Target(tensor_parallel_degree=2, instances=4),)
    tight = MODEL.worst_watts(((2, 4),), 800) - 1
    assert wish(outlook(ONE_OF_FOUR, tight, targets=four)).layout[0][0] == 4
    for degree, count in [(8, 1), (2, 5), (4, 3)]:
        targets = (Target(tensor_parallel_degree=degree, instances=count),)
        assert wish(outlook(TWO_OF_FOUR, targets=targets)).layout == TWO_OF_FOUR


def test_requests_turned_away_outrank_a_plan_that_keeps_instances_down() -> None:
    """The plan did not know of this load."""
    wanted = (Target(tensor_parallel_degree=4, instances=1, gpu_clock_mhz=800),)
    overrun = load(32, turned_away_at=950.0)
    assert wish(outlook(ONE_OF_FOUR, targets=wanted, requests=overrun)).layout == TWO_OF_FOUR
    assert wish(outlook(ONE_OF_FOUR, targets=wanted)).layout == ONE_OF_FOUR


def test_with_power_for_all_every_instance_stays_awake() -> None:
    """Wind that is there costs nothing."""
    assert wish(outlook(TWO_OF_FOUR, requests=load(1))).layout == TWO_OF_FOUR


def test_a_mixed_plan_has_the_mean_clock_on_the_next_step_up() -> None:
    """A site has one clock."""
    targets = (
        Target(tensor_parallel_degree=4, instances=1, gpu_clock_mhz=1400),
        Target(tensor_parallel_degree=2, instances=2, gpu_clock_mhz=1600),
    )
    assert planned(targets, MODEL) == Configuration(layout=((2, 2), (4, 1)), clock_mhz=1600)


def test_the_most_throughput_keeps_the_degree_that_runs() -> None:
    """A change of degree costs minutes: only a plan orders it."""
    chooser = MostThroughput(model=MODEL, gain_ratio=0.05)
    assert chooser.wish(outlook(((2, 1),)), 1000.0).layout == ((2, 4),)
    assert chooser.wish(outlook(()), 1000.0).layout == TWO_OF_FOUR
