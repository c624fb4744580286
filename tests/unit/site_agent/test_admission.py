"""Admission: who comes in, where, and that every count returns to zero."""

from __future__ import annotations

import pytest
from support.fake_drivers import specs

from fleet.instance import InstanceState
from gateway.upstream import Origin
from site_agent.admission import Admission, Flight, Pushback
from site_agent.instance import Instance

ORIGIN = Origin.parse("http://127.0.0.1:1")


def admission(count: int = 2, max_concurrency: int = 4, reserve: float = 0.0) -> Admission:
    instances = tuple(Instance(spec=spec) for spec in specs(count))
    for one in instances:
        make_ready(one)
    return Admission(
        instances=instances, max_concurrency=max_concurrency, resume_reserve_ratio=reserve, start_seconds=2.0
    )


def make_ready(instance: Instance) -> None:
    instance.move(InstanceState.STARTING, 0.0)
    instance.origin = ORIGIN
    instance.move(InstanceState.READY, 0.0)


def fill(site: Admission, instance: Instance, count: int) -> list[Flight]:
    return [site.open(instance, lambda: None) for _ in range(count)]


def test_headroom_is_what_is_free_less_the_reserve() -> None:
    """A tenth of eight is rounded up to one."""
    site = admission(reserve=0.1)
    assert (site.slots(), site.reserve(), site.headroom()) == (8, 1, 7)
    flights = fill(site, site.instances[0], 3)
    assert site.headroom() == 4
    for flight in flights:
        site.close(flight)
    assert site.headroom() == 7
    assert site.total_in_flight == 0


def test_the_reserve_never_takes_the_last_slot() -> None:
    """A site with one slot still serves new requests."""
    site = admission(count=1, max_concurrency=1, reserve=0.5)
    assert site.headroom() == 1


def test_a_flight_without_a_slot_takes_no_headroom() -> None:
    """But it is in flight, and is broken off with the rest."""
    site = admission()
    interrupted: list[int] = []
    flight = site.open(site.instances[0], lambda: interrupted.append(1), takes_slot=False)
    assert site.headroom() == 8
    assert site.total_in_flight == 1
    assert site.break_all() == 1
    assert site.break_all() == 0
    assert interrupted == [1]
    assert flight.is_broken
    site.close(flight)
    assert site.total_in_flight == 0


def test_closing_a_flight_twice_is_an_error() -> None:
    """A count that goes down twice is a bug, not a detail."""
    site = admission()
    flight = site.open(site.instances[0], lambda: None)
    site.close(flight)
    with pytest.raises(KeyError):
        site.close(flight)


def test_draining_instances_take_nothing_and_keep_what_they_have() -> None:
    """Their slots count no more."""
    site = admission()
    fill(site, site.instances[0], 2)
    site.instances[0].move(InstanceState.DRAINING, 1.0)
    assert site.headroom() == 4
    assert site.running("i0") == 2
    assert site.choose() is site.instances[1]


def test_an_instance_that_is_being_stopped_is_not_chosen() -> None:
    """Its engine has failed, whatever its state says."""
    site = admission()
    site.instances[0].is_stopping = True
    assert all(site.choose() is site.instances[1] for _ in range(3))


@pytest.mark.parametrize(
    ("is_closed", "is_short", "states", "reason"),
    [
        (True, False, [], "draining"),
        (False, True, [InstanceState.DRAINING], "draining"),
        (False, True, [InstanceState.DRAINING, InstanceState.STOPPED], "power"),
        (False, False, [InstanceState.DRAINING, InstanceState.STOPPED], "capacity"),
    ],
)
def test_a_pushback_says_why(
    is_closed: bool, is_short: bool, states: list[InstanceState], reason: str
) -> None:
    """Routers treat the reasons differently."""
    site = admission(count=1)
    for state in states:
        site.instances[0].move(state, 1.0)
    if is_closed:
        site.shut()
    site.is_short_of_power = is_short
    chosen = site.choose()
    assert isinstance(chosen, Pushback)
    assert chosen.reason == reason
    assert chosen.retry_after_seconds > 0


def test_a_full_site_lets_a_resume_in_only_from_the_reserve() -> None:
    """And when that is gone too, nothing."""
    site = admission(count=1, max_concurrency=4, reserve=0.25)
    fill(site, site.instances[0], 3)
    assert isinstance(site.choose(), Pushback)
    assert site.choose(is_resume=True) is site.instances[0]
    fill(site, site.instances[0], 1)
    assert isinstance(site.choose(is_resume=True), Pushback)


def test_an_instance_that_failed_the_request_is_not_asked_again() -> None:
    """When all have, it is over here."""
    site = admission()
    assert site.choose(tried={"i0"}) is site.instances[1]
    assert isinstance(site.choose(tried={"i0", "i1"}), Pushback)


def test_affinity_is_spread_evenly_and_stays_when_an_instance_goes() -> None:
    """Rendezvous hashing: only the keys of the instance that went move."""
    site = admission(count=3, max_concurrency=100)
    keys = [f"session-{number}".encode() for number in range(300)]
    before = {key: site.choose(affinity=key) for key in keys}
    for one in site.instances:
        assert 60 < sum(home is one for home in before.values()) < 140
    site.instances[2].move(InstanceState.DRAINING, 1.0)
    for key, home in before.items():
        if home is not site.instances[2]:
            assert site.choose(affinity=key) is home


def test_a_busy_home_is_left_for_the_same_other_one_every_time() -> None:
    """A quarter of the slots more than the least loaded one: the second has the cache then."""
    site = admission(count=3, max_concurrency=20)
    for number in range(20):
        key = f"session-{number}".encode()
        home = site.choose(affinity=key)
        assert isinstance(home, Instance)
        flights = [site.open(home, lambda: None) for _ in range(5)]
        assert site.choose(affinity=key) is home
        flights.append(site.open(home, lambda: None))
        second = site.choose(affinity=key)
        assert isinstance(second, Instance)
        assert second is not home
        flights.append(site.open(second, lambda: None))
        assert site.choose(affinity=key) is second
        for flight in flights:
            site.close(flight)


def test_shut_is_empty_when_the_last_flight_closes() -> None:
    """Not before; and at once where nothing flies."""
    busy, idle = admission(), admission()
    flight = busy.open(busy.instances[0], lambda: None)
    busy.shut()
    idle.shut()
    assert idle.emptied.is_set()
    assert not busy.emptied.is_set()
    assert busy.headroom() == 0
    busy.close(flight)
    assert busy.emptied.is_set()
