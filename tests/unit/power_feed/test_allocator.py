"""Each sentence of the allocator's rules, by example and by property."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_feed.allocator import REST_SECONDS, STREAM_DEATH_SECONDS, Allocator, SiteClaim, fill
from power_feed.app import DEAD_PEER_SECONDS
from power_feed.server_switch import ServerState

SLACK_WATTS = 1e-6
"""Rounding."""


def claim(site_id: str, **values: object) -> SiteClaim:
    defaults: dict[str, object] = {"min_grant_watts": 1000.0, "max_grant_watts": 5000.0, "idle_watts": 950.0}
    return SiteClaim(site_id=site_id, **{**defaults, **values})  # type: ignore[arg-type]


def heard(site: SiteClaim, now: float, draw: float, cap: float | None = None) -> SiteClaim:
    return replace(site, heard_at=now, draw_watts=draw, cap_watts=cap)


# fill


def test_servers_are_filled_one_after_the_other() -> None:
    """Never proportionally: the first gets all it can use, the last what is left."""
    sites = [claim("a"), claim("b"), claim("c")]
    assert fill(7500.0, sites) == {"a": 5000.0, "b": 2500.0, "c": 0.0}


def test_a_rest_below_a_servers_least_goes_to_nobody_who_cannot_use_it() -> None:
    """900 W are worth nothing to b; a smaller server takes them."""
    assert fill(5900.0, [claim("a"), claim("b")]) == {"a": 5000.0, "b": 0.0}
    small = claim("c", min_grant_watts=500.0)
    assert fill(5900.0, [claim("a"), claim("b"), small]) == {"a": 5000.0, "b": 0.0, "c": 900.0}


def test_a_plans_shares_are_followed_and_what_is_left_of_them_tops_up() -> None:
    """A share below a server's least is no share; one of 0 keeps the server off."""
    sites = [claim("a", share=0.3), claim("b", share=0.5), claim("c", share=0.0)]
    assert fill(6000.0, sites) == {"a": 3000.0, "b": 3000.0, "c": 0.0}
    sites = [claim("a", share=0.9), claim("b", share=0.1), claim("c", share=0.0)]
    assert fill(4000.0, sites) == {"a": 4000.0, "b": 0.0, "c": 0.0}


def test_shares_that_are_all_too_small_still_start_one_server() -> None:
    """Half of 1.5 kW starts neither of two servers; the whole starts one."""
    sites = [claim("a", share=0.5), claim("b", share=0.5)]
    assert fill(1500.0, sites) == {"a": 1500.0, "b": 0.0}


def test_a_site_that_no_plan_knows_gets_what_the_others_cannot_use() -> None:
    """SiteInfo is optional: such a site is fed, but not planned for."""
    assert fill(9000.0, [claim("foreign"), claim("a", share=0.4)]) == {"foreign": 4000.0, "a": 5000.0}


# free watts


def test_a_share_is_raised_only_after_the_shrinking_ones_have_shrunk() -> None:
    """a is cut by the plan; b gets its part as a's draw falls, watt by watt."""
    allocator = Allocator()
    a, b = claim("a", share=1.0), claim("b", share=0.0)
    at_full = heard(a, 0.0, 4700.0, 4750.0)
    assert allocator.allocate(5000.0, [at_full, heard(b, 0.0, 0.0, 0.0)], 0.0) == {"a": 0.0, "b": 0.0}
    assert allocator.allocate(5000.0, [heard(a, 1.0, 4700.0, 4750.0), heard(b, 1.0, 0.0, 0.0)], 1.0) == {
        "a": 5000.0,
        "b": 0.0,
    }
    a, b = replace(a, share=0.4), replace(b, share=0.6)
    cut = allocator.allocate(5000.0, [heard(a, 5.0, 4700.0, 4750.0), heard(b, 5.0, 0.0, 0.0)], 5.0)
    assert cut == {"a": 2000.0, "b": 0.0}
    falling = allocator.allocate(5000.0, [heard(a, 6.0, 3600.0, 1900.0), heard(b, 6.0, 0.0, 0.0)], 6.0)
    assert falling == {"a": 2000.0, "b": 1400.0}
    down = allocator.allocate(5000.0, [heard(a, 7.0, 1800.0, 1900.0), heard(b, 7.0, 0.0, 0.0)], 7.0)
    assert down == {"a": 2000.0, "b": 3000.0}


def test_a_report_from_before_the_cut_frees_nothing() -> None:
    """Its low draw says nothing: under the old cap it may rise at any moment."""
    allocator = Allocator()
    a, b = claim("a", share=1.0), claim("b", share=0.0)
    for now in (0.0, 1.0):
        allocator.allocate(5000.0, [heard(a, now, 1000.0, 4750.0), heard(b, now, 0.0, 0.0)], now)
    a, b = replace(a, share=0.4), replace(b, share=0.6)
    old = heard(a, 2.0, 1000.0, 4750.0)
    assert allocator.allocate(5000.0, [old, heard(b, 2.0, 0.0, 0.0)], 2.0)["b"] == 0.0
    unaware = heard(a, 3.0, 1000.0, 4750.0)
    assert allocator.allocate(5000.0, [unaware, heard(b, 3.0, 0.0, 0.0)], 3.0)["b"] == 0.0
    aware = heard(a, 4.0, 1000.0, 1900.0)
    assert allocator.allocate(5000.0, [aware, heard(b, 4.0, 0.0, 0.0)], 4.0)["b"] == 3000.0


def test_a_report_from_before_the_raise_is_no_proof_of_the_cut_after_it() -> None:
    """Its low cap is the one of before the raise; b gets a's part only by a report that cannot be so old."""
    allocator = Allocator(period_seconds=10.0)
    allocator.restore("a", 2000.0, now=-10.0)
    allocator.restore("b", 0.0, now=-10.0)
    a, b = claim("a", share=0.4), heard(claim("b", share=0.0), 0.0, 0.0, 0.0)
    low = heard(a, 0.0, 1500.0, 1900.0)
    assert allocator.allocate(2000.0, [low, b], 0.0)["a"] == 2000.0
    full = replace(low, share=1.0)
    assert allocator.allocate(5000.0, [full, b], 1.0)["a"] == 5000.0
    b = replace(b, share=0.6)
    assert allocator.allocate(5000.0, [low, b], 1.2) == {"a": 2000.0, "b": 0.0}
    late = heard(a, 1.9, 1500.0, 1900.0)
    assert allocator.allocate(5000.0, [late, heard(b, 1.9, 0.0, 0.0)], 1.9) == {"a": 2000.0, "b": 0.0}
    assert allocator.counted_watts("a") == 5000.0
    later = heard(a, 4.1, 1500.0, 1900.0)
    assert allocator.allocate(5000.0, [later, heard(b, 4.1, 0.0, 0.0)], 4.1) == {"a": 2000.0, "b": 3000.0}


def test_a_report_from_before_the_site_came_back_is_no_proof_of_the_cut_after_it() -> None:
    """Its cap had walked down while it heard nothing, and rises to its grant as its stream is opened."""
    allocator = Allocator(period_seconds=10.0)
    allocator.restore("a", 5000.0, now=0.0)
    a, b = claim("a", share=1.0), claim("b", share=0.0)
    sites = [heard(a, 0.2, 4700.0, 4750.0), heard(b, 0.2, 0.0, 0.0)]
    allocator.allocate(5000.0, sites, 1.0)
    walking = replace(heard(a, 60.0, 900.0, 900.0), is_listening=False)
    allocator.allocate(5000.0, [walking, heard(b, 60.0, 0.0, 0.0)], 60.0)
    back = replace(walking, is_listening=True)
    assert allocator.allocate(5000.0, [back, heard(b, 61.0, 0.0, 0.0)], 61.0) == {"a": 5000.0, "b": 0.0}
    back, b = replace(back, share=0.4), replace(b, share=0.6)
    assert allocator.allocate(5000.0, [back, heard(b, 61.5, 0.0, 0.0)], 61.5) == {"a": 2000.0, "b": 0.0}
    late = heard(back, 62.5, 900.0, 900.0)
    assert allocator.allocate(5000.0, [late, heard(b, 62.5, 0.0, 0.0)], 62.5) == {"a": 2000.0, "b": 0.0}
    later = heard(back, 64.1, 1500.0, 1900.0)
    assert allocator.allocate(5000.0, [later, heard(b, 64.1, 0.0, 0.0)], 64.1) == {"a": 2000.0, "b": 3000.0}


def test_a_draw_that_firm_power_covers_is_not_the_farms() -> None:
    """The idle server on the grid's 1 kW does not keep the farm's power from the other."""
    allocator = Allocator()
    a, b = claim("a"), claim("b", firm_watts=1000.0, share=0.0)
    sites = [heard(a, 0.0, 0.0, 0.0), heard(b, 0.0, 950.0, 1000.0)]
    allocator.allocate(5000.0, sites, 0.0)
    sites = [heard(a, 1.0, 0.0, 0.0), heard(b, 1.0, 950.0, 1000.0)]
    assert allocator.allocate(5000.0, sites, 1.0) == {"a": 5000.0, "b": 0.0}


# flapping


def test_a_site_that_lost_its_power_rests_and_needs_a_margin_to_start() -> None:
    """Wind that plays around the idle draw switches it once, not every second."""
    allocator = Allocator()
    site = claim("a")
    assert allocator.allocate(1050.0, [site], 0.0)["a"] == 0.0
    assert allocator.allocate(1100.0, [site], 1.0)["a"] == 1100.0
    assert allocator.allocate(1000.0, [site], 2.0)["a"] == 1000.0
    assert allocator.allocate(999.0, [site], 3.0)["a"] == 0.0
    assert allocator.allocate(4000.0, [site], 4.0)["a"] == 0.0
    assert allocator.allocate(4000.0, [site], 3.0 + REST_SECONDS)["a"] == 4000.0


def test_a_site_that_has_power_keeps_it_before_one_that_has_none() -> None:
    """The better-placed server that comes back does not push out the one that runs."""
    allocator = Allocator()
    first, second = claim("a", priority=0, is_listening=False), claim("b", priority=1)
    assert allocator.allocate(3000.0, [first, second], 0.0)["b"] == 0.0  # a may draw, as far as is known
    assert allocator.allocate(3000.0, [first, second], 100.0) == {"a": 0.0, "b": 2050.0}
    here = heard(first, 101.0, 0.0, 0.0)
    assert allocator.allocate(3000.0, [here, second], 101.0) == {"a": 0.0, "b": 3000.0}


# silence


def test_a_site_that_cannot_be_heard_counts_until_its_walk_down_is_over() -> None:
    """10 T after the last word its grant is taken, and 5 s later, as it may hear that by Redis, only its idle
    draw is counted; 0 with its server off.
    """
    allocator = Allocator(period_seconds=1.0)
    a, b = claim("a", share=0.5), claim("b", share=0.5)
    for now in (0.0, 1.0):
        allocator.allocate(6000.0, [heard(a, now, 2800.0, 2850.0), heard(b, now, 2800.0, 2850.0)], now)
    assert allocator.granted_watts("a") == 3000.0
    gone = replace(heard(a, 1.0, 2800.0, 2850.0), is_listening=False)

    def step(now: float, site: SiteClaim = gone) -> dict[str, float]:
        return allocator.allocate(6000.0, [site, heard(b, now, 2800.0, 2850.0)], now)

    assert step(5.0) == {"a": 3000.0, "b": 3000.0}
    assert step(10.9) == {"a": 3000.0, "b": 3000.0}
    assert step(11.0) == {"a": 0.0, "b": 3000.0}
    assert step(16.0) == {"a": 0.0, "b": 3000.0}
    assert allocator.counted_watts("a") == 3000.0
    assert step(16.1) == {"a": 0.0, "b": 5000.0}
    assert allocator.counted_watts("a") == 950.0
    step(17.0, replace(gone, server=ServerState(is_off=True)))
    assert allocator.counted_watts("a") == 0.0


def test_a_silent_site_that_listens_keeps_its_power() -> None:
    """Redis and the reports are gone, the stream is not: the power loop needs nothing else."""
    allocator = Allocator(period_seconds=1.0)
    sites = [claim("a"), claim("b")]
    for second in range(300):
        allocator.allocate(9000.0, sites, float(second))
    assert allocator.allocate(9000.0, sites, 300.0) == {"a": 5000.0, "b": 4000.0}
    assert allocator.allocate(6000.0, sites, 301.0) == {"a": 5000.0, "b": 1000.0}


def test_a_stream_that_may_be_dead_is_no_proof_of_a_cut() -> None:
    """The port notices after 10 s that a server is gone, whose walk-down goes on long after that."""
    allocator = Allocator(period_seconds=10.0)
    a, b = claim("a", share=1.0), claim("b", share=0.0)
    allocator.restore("a", 5000.0, now=-20.0)
    allocator.allocate(5000.0, [heard(a, 0.0, 1500.0, 4750.0), heard(b, 0.0, 0.0, 0.0)], 0.0)
    gone, b = replace(heard(a, 0.0, 1500.0, 4750.0), share=0.4), replace(b, share=0.6)

    def step(now: float, *, is_listening: bool = True) -> float:
        here = replace(gone, is_listening=is_listening)
        return allocator.allocate(5000.0, [here, heard(b, now, 0.0, 0.0)], now)["b"]

    assert [step(now) for now in (0.1, 5.2, 10.2)] == [0.0, 0.0, 0.0]
    assert [step(now, is_listening=False) for now in (10.3, 60.0, 110.1)] == [0.0, 0.0, 0.0]
    assert step(110.3, is_listening=False) == 3000.0


def test_a_stream_that_is_opened_anew_long_after_a_cut_is_heard_only_then() -> None:
    """The site comes back with all that it had before, and is down a ride-through later."""
    allocator = Allocator(period_seconds=10.0)
    a, b = claim("a", share=1.0, is_listening=False), claim("b", share=0.0)
    allocator.restore("a", 5000.0, now=-20.0)
    allocator.allocate(5000.0, [heard(a, 0.0, 1500.0, 4750.0), heard(b, 0.0, 0.0, 0.0)], 0.0)
    gone, b = replace(heard(a, 0.0, 1500.0, 4750.0), share=0.4), replace(b, share=0.6)
    found = []
    for now in (0.1, 30.0, 31.0, 36.0, 36.1):
        back = replace(gone, is_listening=now >= 31.0)
        found.append(allocator.allocate(5000.0, [back, heard(b, now, 0.0, 0.0)], now)["b"])
    assert found == [0.0, 0.0, 0.0, 0.0, 3000.0]


def test_a_dead_stream_is_noticed_before_an_open_one_is_proof() -> None:
    """The port's own time and the allocator's belong together."""
    assert DEAD_PEER_SECONDS + 2.0 <= STREAM_DEATH_SECONDS


def test_a_stream_that_outlives_a_cut_is_proof_of_it() -> None:
    """Only the reports are lost: after 12 s it was heard, and 5 s later the last draw is counted."""
    allocator = Allocator(period_seconds=10.0)
    a, b = claim("a", share=1.0), claim("b", share=0.0)
    allocator.restore("a", 5000.0, now=-20.0)
    allocator.allocate(5000.0, [heard(a, 0.0, 1500.0, 4750.0), heard(b, 0.0, 0.0, 0.0)], 0.0)
    quiet, b = replace(heard(a, 0.0, 1500.0, 4750.0), share=0.4), replace(b, share=0.6)
    found = [
        allocator.allocate(5000.0, [quiet, heard(b, now, 0.0, 0.0)], now)["b"] for now in (0.1, 17.0, 17.2)
    ]
    assert found == [0.0, 0.0, 3000.0]


def test_a_site_that_is_alone_at_its_farm_gets_all_that_it_can_use() -> None:
    """Whether it is heard or not: there is nobody else to give it to."""
    allocator = Allocator(period_seconds=1.0)
    site = claim("a", is_listening=False, min_grant_watts=0.0)
    assert allocator.allocate(4000.0, [site], 0.0)["a"] == 4000.0
    assert allocator.allocate(3000.0, [site], 500.0)["a"] == 3000.0
    assert allocator.allocate(8000.0, [site], 501.0)["a"] == 5000.0


def test_a_feed_that_starts_anew_counts_what_its_predecessor_granted() -> None:
    """What was granted is known from Redis; where it is not, a site may draw its most until 10 T are over."""
    restored = Allocator(period_seconds=1.0)
    restored.restore("a", 4000.0, now=0.0)
    sites = [claim("a", share=0.2, is_listening=False), heard(claim("b", share=0.8), 0.0, 0.0, 0.0)]
    assert restored.allocate(6000.0, sites, 0.0) == {"a": 1200.0, "b": 2000.0}
    unknown = Allocator(period_seconds=1.0)
    sites = [claim("a", is_listening=False), heard(claim("b"), 0.0, 0.0, 0.0)]
    assert unknown.allocate(6000.0, sites, 0.0) == {"a": 0.0, "b": 0.0}
    sites = [claim("a", is_listening=False), heard(claim("b"), 1.0, 0.0, 0.0)]
    assert unknown.allocate(6000.0, sites, 1.0) == {"a": 0.0, "b": 0.0}
    sites = [claim("a", is_listening=False), heard(claim("b"), 10.0, 0.0, 0.0)]
    assert unknown.allocate(6000.0, sites, 10.0) == {"a": 0.0, "b": 5000.0}


def test_a_grant_that_missed_the_store_counts_once_the_site_says_it() -> None:
    """The stream was ahead of Redis when the feed before ended: 2 kW lie there, and a's cap is of 5 kW."""
    allocator = Allocator(period_seconds=10.0)
    allocator.restore("a", 2000.0, now=0.0)
    a = claim("a", share=0.4, is_listening=False, believed_grant_watts=5000.0)
    sites = [heard(a, 0.2, 1500.0, 4750.0), heard(claim("b", share=0.6), 0.2, 0.0, 0.0)]
    assert allocator.allocate(5000.0, sites, 1.0) == {"a": 2000.0, "b": 0.0}
    assert allocator.counted_watts("a") == 4750.0
    sites = [heard(a, 2.0, 1500.0, 1900.0), heard(claim("b", share=0.6), 2.0, 0.0, 0.0)]
    assert allocator.allocate(5000.0, sites, 2.0)["b"] == 3000.0


@pytest.mark.parametrize("watts", [0.0, -5.0])
def test_a_farm_without_power_grants_none(watts: float) -> None:
    """Nor less than none."""
    assert Allocator().allocate(watts, [claim("a"), claim("b")], 0.0) == {"a": 0.0, "b": 0.0}


# properties


@dataclass
class Server:
    """A server that obeys: it hears its grant late or not at all, and its draw follows within the
    ride-through.
    """

    claim: SiteClaim
    cap: float = 0.0
    draw: float = 0.0
    waiting: list[tuple[float, float]] = field(default_factory=list)

    def hear(self, now: float, granted: float, delay: float) -> None:
        self.waiting.append((now + delay, granted))

    def move(self, now: float, wish: float) -> None:
        while self.waiting and self.waiting[0][0] <= now:
            self.cap = self.waiting.pop(0)[1]
        if self.draw > self.cap:
            self.draw = max(self.cap, self.draw - 2000.0)
        else:
            self.draw = min(self.cap, wish)


steps = st.lists(
    st.tuples(
        st.floats(0.0, 20_000.0),  # the farm's power
        st.lists(st.floats(0.0, 5000.0), min_size=4, max_size=4),  # what each server would draw
        st.lists(st.booleans(), min_size=4, max_size=4),  # whether its report comes
        st.one_of(st.none(), st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4)),  # shares
    ),
    min_size=1,
    max_size=40,
)
least = st.lists(st.sampled_from([0.0, 400.0, 1000.0, 2500.0]), min_size=4, max_size=4)


@given(steps=steps, least=least, alone=st.booleans())
@settings(max_examples=150, deadline=None)
def test_grants_keep_their_rules_whatever_happens(
    steps: list[tuple[float, list[float], list[bool], list[float] | None]], least: list[float], alone: bool
) -> None:
    """Sum; nothing or the least; never above the most; a rise only by free watts; rests."""
    names = "a" if alone else "abcd"
    allocator = Allocator(period_seconds=1.0)
    claims = {
        name: claim(name, priority=index % 2, min_grant_watts=least[index], idle_watts=0.9 * least[index])
        for index, name in enumerate(names)
    }
    before = dict.fromkeys(names, 0.0)
    emptied: dict[str, float] = {}
    for second, (farm_watts, draws, reports, shares) in enumerate(steps):
        now = float(second)
        for index, name in enumerate(names):
            site = replace(claims[name], share=None if shares is None else shares[index] / 4)
            claims[name] = heard(site, now, draws[index], before[name] * 0.95) if reports[index] else site
        grants = allocator.allocate(farm_watts, list(claims.values()), now)
        assert sum(grants.values()) <= farm_watts + SLACK_WATTS
        for name in names:
            site, grant = claims[name], grants[name]
            assert grant == 0.0 or site.min_grant_watts - SLACK_WATTS <= grant
            assert grant <= site.max_grant_watts
            if grant > before[name]:
                others = [other for other in names if other != name]
                counted = sum(
                    max(grants[other], claims[other].draw_watts or 0.0)
                    for other in others
                    if claims[other].heard_at == now
                )
                assert grant <= farm_watts - counted + SLACK_WATTS
            if before[name] == 0.0 and grant > 0.0 and site.min_grant_watts > 0.0:
                assert now - emptied.get(name, -REST_SECONDS) >= REST_SECONDS
            if grant == 0.0 and before[name] > 0.0:
                emptied[name] = now
        before = grants


@given(steps=steps, delays=st.lists(st.floats(0.0, 0.4), min_size=4, max_size=4))
@settings(max_examples=100, deadline=None)
def test_servers_that_obey_never_draw_more_than_a_steady_farm_has(
    steps: list[tuple[float, list[float], list[bool], list[float] | None]], delays: list[float]
) -> None:
    """Whatever the shares do, and however late reports and grants come, as long as the wind does not fall."""
    allocator = Allocator(period_seconds=1.0, rest_seconds=0.0)
    servers = [Server(claim=claim(name)) for name in "abcd"]
    farm_watts = 9000.0
    for second, (_, wishes, reports, shares) in enumerate(steps):
        for tenth in range(0, 10, 2):
            now = second + tenth / 10
            for server, wish in zip(servers, wishes, strict=True):
                server.move(now, wish)
            assert sum(server.draw for server in servers) <= farm_watts + SLACK_WATTS
        now = second + 0.9
        for index, server in enumerate(servers):
            server.claim = replace(server.claim, share=None if shares is None else shares[index] / 4)
            if reports[index]:
                server.claim = heard(server.claim, now, server.draw, server.cap)
        grants = allocator.allocate(farm_watts, [server.claim for server in servers], now)
        for server, delay in zip(servers, delays, strict=True):
            server.hear(now, grants[server.claim.site_id], delay)


@dataclass
class FarSite:
    """One that obeys, behind a line that breaks both ways at once: then it hears nothing, its cap walks down,
    and its reports do not come.
    """

    claim: SiteClaim
    period_seconds: float
    granted: float = 0.0
    cap: float = 0.0
    draw: float = 0.0
    heard_feed_at: float = 0.0
    is_cut_off: bool = False
    changed_at: float = float("-inf")
    on_the_way: list[tuple[float, float, float]] = field(default_factory=list)

    def move(self, now: float, rng: random.Random) -> None:
        """Half a second of its life: the power loop is down at a cut within 3 s."""
        walk_seconds = 7 * self.period_seconds
        left = (10 * self.period_seconds - (now - self.heard_feed_at)) / walk_seconds
        self.cap = self.granted * min(1.0, max(0.0, left))
        wish = self.cap if rng.random() < 0.3 else rng.uniform(0.0, self.cap)
        self.draw = max(self.cap, self.draw - 850.0) if self.draw > self.cap else wish

    def report(self, now: float, late_seconds: float, stream_seconds: float, rng: random.Random) -> None:
        """What the feed knows of it then."""
        if not self.is_cut_off and now % 1 == 0:
            self.on_the_way.append((now + rng.uniform(0.0, late_seconds), self.draw, self.cap))
        come = [one for one in self.on_the_way if one[0] <= now]
        self.on_the_way = [one for one in self.on_the_way if one[0] > now]
        if come:
            self.claim = heard(self.claim, now, come[-1][1], come[-1][2])
        is_open = not self.is_cut_off or now - self.changed_at < stream_seconds
        self.claim = replace(self.claim, is_listening=is_open)


@pytest.mark.parametrize("late_seconds", [0.1, 2.0])
@pytest.mark.parametrize("stream_seconds", [0.0, 10.0])
@pytest.mark.parametrize("break_ratio", [0.0, 0.02])
def test_sites_that_obey_never_draw_more_than_the_farm_has_whatever_breaks(
    late_seconds: float, stream_seconds: float, break_ratio: float
) -> None:
    """Lines that break, late reports, streams that look open for 10 s more: 25 worlds of 200 s for each."""
    farm_watts = 9000.0
    for seed in range(25):
        rng = random.Random(seed)
        period_seconds = rng.choice([1.0, 3.0, 10.0])
        allocator = Allocator(period_seconds=period_seconds, rest_seconds=0.0)
        limits = {"min_grant_watts": 500.0, "max_grant_watts": 8000.0, "idle_watts": 450.0}
        sites = [FarSite(claim=claim(name, **limits), period_seconds=period_seconds) for name in "abc"]
        for now in [half / 2 for half in range(400)]:
            if rng.random() < 0.04:
                parts = [rng.random() for _ in sites]
                for site, part in zip(sites, parts, strict=True):
                    site.claim = replace(site.claim, share=part / sum(parts))
            for site in sites:
                if rng.random() < break_ratio:
                    site.is_cut_off, site.changed_at = not site.is_cut_off, now
                site.move(now, rng)
            drawn = sum(site.draw for site in sites)
            assert drawn <= farm_watts + SLACK_WATTS, f"seed {seed}, second {now}: {drawn} W of {farm_watts}"
            for site in sites:
                site.report(now, late_seconds, stream_seconds, rng)
            grants = allocator.allocate(farm_watts, [site.claim for site in sites], now)
            assert sum(grants.values()) <= farm_watts + SLACK_WATTS
            for site in sites:
                if not site.is_cut_off:
                    site.granted, site.heard_feed_at = grants[site.claim.site_id], now


@given(
    farm_watts=st.floats(0.0, 20_000.0),
    shares=st.lists(st.one_of(st.none(), st.floats(0.0, 0.5)), min_size=4, max_size=4),
    least=least,
)
def test_what_is_filled_is_there_and_wastes_nothing_that_a_server_could_use(
    farm_watts: float, shares: list[float | None], least: list[float]
) -> None:
    """Sum, least and most; what is left would start no server and top up none, but for those with a share of
    0.
    """
    sites = [
        claim(name, share=shares[index], min_grant_watts=least[index]) for index, name in enumerate("abcd")
    ]
    grants = fill(farm_watts, sites)
    left = farm_watts - sum(grants.values())
    assert left >= -SLACK_WATTS
    for site in sites:
        grant = grants[site.site_id]
        assert grant == 0.0 or site.min_grant_watts <= grant <= site.max_grant_watts
        if left > SLACK_WATTS and site.share != 0:
            assert grant == site.max_grant_watts or (grant == 0.0 and left < site.min_grant_watts + 1e-6)


def test_a_server_that_is_off_can_be_granted_and_keeps_its_grant_while_it_starts() -> None:
    """It is silent all that time, and nobody would switch it on otherwise."""
    allocator = Allocator(period_seconds=1.0)
    a, b = claim("a", is_listening=False, server=ServerState(is_off=True)), claim("b", max_grant_watts=2000.0)
    allocator.allocate(9000.0, [a, b], 0.0)
    assert allocator.allocate(9000.0, [a, b], 100.0)["a"] == 5000.0
    starting = replace(a, server=ServerState(is_starting=True))
    assert allocator.allocate(9000.0, [starting, b], 300.0)["a"] == 5000.0
    dead = replace(starting, server=ServerState())
    assert allocator.allocate(9000.0, [dead, b], 309.0)["a"] == 5000.0
    assert allocator.allocate(9000.0, [dead, b], 311.0)["a"] == 0.0


def test_a_lost_server_can_be_granted_but_not_while_it_rests_and_counts_as_idle() -> None:
    """Only a grant gets it started; after a start that failed its power goes to the others."""
    allocator = Allocator(period_seconds=1.0)
    a = claim("a", is_listening=False, server=ServerState(is_lost=True))
    b = claim("b")
    assert allocator.allocate(9000.0, [a, b], 0.0) == {"a": 4000.0, "b": 4000.0}
    resting = replace(a, server=ServerState(is_lost=True, is_resting=True))
    assert allocator.allocate(9000.0, [resting, b], 100.0) == {"a": 0.0, "b": 5000.0}
    assert allocator.counted_watts("a") == 4000.0
    allocator.allocate(9000.0, [resting, b], 105.1)
    assert allocator.counted_watts("a") == 950.0
    assert allocator.allocate(9000.0, [a, b], 200.0) == {"a": 4000.0, "b": 5000.0}


def test_a_server_that_may_be_booting_is_granted_but_keeps_no_more_than_that_from_others_for_long() -> None:
    """It counts at all that it could draw only until its own walk-down must be over."""
    allocator = Allocator(period_seconds=1.0)
    a, b = claim("a"), claim("b", is_listening=False, server=ServerState(is_unheard=True))
    grants = [allocator.allocate(7000.0, [heard(a, now, 900.0, 0.0), b], now) for now in (0.0, 2.0, 9.0)]
    assert all(0.0 < each["b"] <= 5000.0 and each["a"] <= 2000.0 for each in grants)
    assert allocator.counted_watts("b") == 5000.0
    for now in (11.0, 12.0, 13.0):
        last = allocator.allocate(7000.0, [heard(a, now, 900.0, 0.0), b], now)
    assert last == {"a": 5000.0, "b": 2000.0}
    assert allocator.counted_watts("b") == 2000.0


def test_a_site_that_is_alone_keeps_its_grant_while_its_server_rests() -> None:
    """Nobody else could use it, and to take it would switch off what may run."""
    allocator = Allocator(period_seconds=1.0)
    a = claim("a", is_listening=False, server=ServerState(is_lost=True, is_resting=True))
    assert [allocator.allocate(9000.0, [a], now)["a"] for now in (0.0, 1000.0)] == [5000.0, 5000.0]
