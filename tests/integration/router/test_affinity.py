"""Affinity over real sockets: where conversations go, and what sites are told."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from support.router_fleet import RouterFleet, router_fleet
from support.stub_site import Behaviour
from support.wait import until

SYSTEM = {"role": "system", "content": "You are a heron at a wind farm. " * 250}
ANSWER = {"role": "assistant", "content": "Strong, from the north. " * 20}


def conversation(name: str, turns: int) -> dict[str, Any]:
    """A chat's body at its n-th turn."""
    messages = [SYSTEM, {"role": "user", "content": f"I am {name}."}]
    for turn in range(turns - 1):
        messages += [ANSWER, {"role": "user", "content": f"And in {turn} hours?"}]
    return {"model": "m", "messages": messages, "max_tokens": 3}


async def site_of(fleet: RouterFleet, body: Any, **options: Any) -> str:
    answer = await fleet.post(body, **options)
    assert answer.status_code == 200
    return answer.headers["x-heron-site"]


async def test_turns_of_a_conversation_stay_and_conversations_spread(store: Any):
    """All with one long system prompt; both sites get some, nobody moves."""
    async with router_fleet(store, "a", "b") as fleet:
        names = [f"client {number}" for number in range(20)]
        homes: dict[str, set[str]] = {name: set() for name in names}
        for turn in range(1, 5):
            for name in names:
                homes[name].add(await site_of(fleet, conversation(name, turn)))
        assert all(len(sites) == 1 for sites in homes.values())
        counts = Counter(site for sites in homes.values() for site in sites)
        assert max(counts.values()) <= 12
        told = {one.headers["x-heron-affinity"] for site in fleet.sites for one in site.inference}
        assert len(told) == len(names)
        results = fleet.router.dispatcher.affinity.results  # type: ignore[union-attr]
        assert results["hit"] >= 60
        await fleet.settled(completed=80)


async def test_the_clients_header_keeps_short_requests_together(store: Any):
    """Without it they are too short to care."""
    async with router_fleet(store, "a", "b") as fleet:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
        sites = {await site_of(fleet, body, headers={"x-heron-affinity": "mine"}) for _ in range(12)}
        assert len(sites) == 1
        assert {await site_of(fleet, body) for _ in range(40)} == {"a", "b"}
        keys = [one.headers.get("x-heron-affinity") for site in fleet.sites for one in site.inference]
        assert keys.count(None) == 40
        assert len(set(keys)) == 2
        assert "mine" not in keys


async def test_two_routers_send_one_conversation_to_one_site(store: Any):
    """They never talk; the second has not seen the first turn."""
    async with router_fleet(store, "a", "b") as fleet, router_fleet(store, announce=False) as other:
        other.sites.extend(fleet.sites)
        for _ in range(2):
            await other.announce()
            await fleet.announce()
        same = 0
        for number in range(20):
            first = await site_of(fleet, conversation(f"client {number}", 1))
            same += first == await site_of(other, conversation(f"client {number}", 2))
        assert same >= 15


async def test_a_conversation_leaves_a_dark_site_and_stays_where_it_went(store: Any):
    """And does not come back with the power: what the site held is gone."""
    async with router_fleet(store, "a", "b") as fleet:
        home = await site_of(fleet, conversation("me", 1))
        away = "b" if home == "a" else "a"
        await fleet.set_state(home, "dark")
        assert await site_of(fleet, conversation("me", 2)) == away
        await fleet.set_state(home, "serving")
        assert {await site_of(fleet, conversation("me", turn)) for turn in range(3, 7)} == {away}


async def test_a_busy_holder_is_left(store: Any):
    """Many long answers at one site, none at the other."""
    async with router_fleet(store, "a", "b") as fleet:
        home = await site_of(fleet, conversation("me", 1))
        gate = asyncio.Event()
        fleet.site(home).default = Behaviour(gate=gate)
        load = fleet.router.view.registry.loads["m"][home]
        asking = [
            asyncio.create_task(fleet.stream(conversation("me", 2) | {"stream": True})) for _ in range(6)
        ]
        await until(
            lambda: (
                sum(task.done() for task in asking)
                + sum(one.is_committed for one in fleet.router.forwarder.active)
                == len(asking)
            ),
            what="every request has found its site",
        )
        assert load.in_flight <= 5
        gate.set()
        await asyncio.gather(*asking)
        results = fleet.router.dispatcher.affinity.results  # type: ignore[union-attr]
        assert results["overridden"] >= 1
        await fleet.settled(completed=7)


async def test_switched_off_nothing_is_kept_together(store: Any):
    """`affinity = false`: as the policy chooses, and sites are told nothing."""
    async with router_fleet(store, "a", "b", affinity=False) as fleet:
        sites = {
            await site_of(fleet, conversation("me", 1), headers={"x-heron-affinity": "x"}) for _ in range(40)
        }
        assert sites == {"a", "b"}
        assert not any("x-heron-affinity" in one.headers for site in fleet.sites for one in site.inference)


async def test_round_robin_stays_round_robin(store: Any):
    """A policy's zero is obeyed."""
    async with router_fleet(store, "a", "b", policy="round_robin") as fleet:
        sites = [await site_of(fleet, conversation("me", 1)) for _ in range(10)]
        assert sites[::2] == [sites[0]] * 5
        assert sites[1::2] == [sites[1]] * 5
        assert sites[0] != sites[1]
