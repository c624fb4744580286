"""The chaos benchmark's own judgement: it must see what is wrong, and excuse only what the design does."""

from __future__ import annotations

import dataclasses
import json
import random
from itertools import pairwise

import pytest

from benchmarks.chaos.answers import Got, judge
from benchmarks.chaos.asks import KINDS as ASKS
from benchmarks.chaos.asks import Ask, make_ask
from benchmarks.chaos.clients import Record
from benchmarks.chaos.incidents import (
    Allowance,
    Incident,
    blind_spans,
    excuse,
    excuse_of_answer,
    expected_ledger,
    ledger_faults,
)
from benchmarks.chaos.schedule import KINDS, SITES, Levels, Schedule, make_schedule
from site_agent.emulation.answer import Answer
from site_agent.emulation.request import ModelLimits, parse_generation

LEVELS = Levels(full=0.6, idle=0.05)
MODEL = "llama"


def _schedule(seed: int, *kinds: str) -> Schedule:
    return make_schedule(seed=seed, seconds=120.0, every_seconds=0.5, levels=LEVELS, kinds=kinds)


def test_a_seed_is_a_schedule() -> None:
    """And another seed another one."""
    assert _schedule(1) == _schedule(1)
    assert _schedule(1).faults != _schedule(2).faults


@pytest.mark.parametrize("seed", range(5))
def test_no_two_faults_hold_one_thing_at_once_and_all_end_in_time(seed: int) -> None:
    """Yet several are under way at once, or it would be no chaos."""
    faults = _schedule(seed).faults
    assert all(fault.ends_at_seconds <= 120.0 for fault in faults)
    held: dict[str, float] = {}
    for fault in faults:
        for one in KINDS[fault.kind].holds(fault.target):
            assert held.get(one, 0.0) <= fault.at_seconds
            held[one] = fault.ends_at_seconds
    assert max(sum(a.at_seconds <= b.at_seconds < a.ends_at_seconds for a in faults) for b in faults) >= 3


def test_every_sites_wind_rises_in_time_and_ends_strong() -> None:
    """As the schedule source wants it: strictly increasing instants."""
    schedule = _schedule(3, "wind")
    for site_id in SITES:
        points = schedule.wind[site_id]
        assert all(first[0] < second[0] for first, second in pairwise(points))
        assert points[-1][1] >= 0.6 * LEVELS.full
    assert any(ratio == 0.0 for _, ratio in schedule.wind["north"])


def test_a_kind_that_there_is_not_is_refused() -> None:
    """With those that there are."""
    with pytest.raises(ValueError, match="no kind of fault begins with storm"):
        _schedule(1, "storm")


def _ask(kind: str, seed: int = 1) -> Ask:
    rng = random.Random(seed)
    while (ask := make_ask(rng, MODEL)).kind != kind or ask.output_tokens < 5:
        pass
    return ask


def _answer(ask: Ask) -> bytes:
    """What an emulated engine says to a chat's stream."""
    request = parse_generation("chat", ask.body, ModelLimits(model=MODEL, max_model_len=8192))
    answer = Answer(request, request_id="1", created=1, model=MODEL)
    last = ask.output_tokens - 1
    events = [answer.token_event("length" if number == last else None) for number in range(ask.output_tokens)]
    return b"".join(events) + answer.closing_events()


def _events(body: bytes) -> list[bytes]:
    return [event + b"\n\n" for event in body.split(b"\n\n")[:-1]]


def test_a_whole_stream_is_right() -> None:
    """As an emulated engine says it."""
    ask = _ask("chat stream")
    verdict = judge(ask, Got(end="whole", status=200, headers={}, body=_answer(ask)))
    assert (verdict.heading, verdict.ledger, verdict.wrong) == ("right", "completed", "")


@pytest.mark.parametrize("place", [1, 3])
def test_a_lost_a_doubled_and_a_foreign_token_show(place: int) -> None:
    """Even where the stream is then left by its client."""
    ask = _ask("chat stream")
    events = _events(_answer(ask))
    for body in (
        [*events[:place], *events[place + 1 :]],
        [*events[: place + 1], *events[place:]],
        [*events[:place], events[place].replace(b'"content":"', b'"content":"x'), *events[place + 1 :]],
    ):
        assert judge(ask, Got(end="left", status=200, headers={}, body=b"".join(body))).wrong


def test_two_ends_are_wrong() -> None:
    """Exactly one terminal event."""
    ask = _ask("chat stream")
    got = Got(end="whole", status=200, headers={}, body=_answer(ask) + b"data: [DONE]\n\n")
    assert "after the terminal one" in judge(ask, got).wrong


def test_a_stated_error_is_no_violation_and_an_end_without_one_is() -> None:
    """In the middle of the stream."""
    ask = _ask("chat stream")
    half = b"".join(_events(_answer(ask))[:3])
    error = {"error": {"message": "lost", "type": "server_error", "code": "power_lost"}}
    stated = half + b"data: " + json.dumps(error).encode() + b"\n\ndata: [DONE]\n\n"
    verdict = judge(ask, Got(end="whole", status=200, headers={}, body=stated))
    assert (verdict.heading, verdict.ledger, verdict.wrong) == ("broken: power_lost", "broken", "")
    assert judge(ask, Got(end="cut", status=200, headers={}, body=half)).is_unanswered
    assert judge(ask, Got(end="whole", status=200, headers={}, body=half)).wrong
    assert judge(
        ask, Got(end="whole", status=200, headers={}, body=stated[: -len(b"data: [DONE]\n\n")])
    ).wrong


def test_a_refusal_says_when_to_come_back() -> None:
    """And stands in its API's form; a 500 is none."""
    ask = _ask("chat")
    body = json.dumps({"error": {"message": "no", "type": "overloaded", "code": "no_power"}}).encode()
    assert judge(ask, Got(end="whole", status=503, headers={"retry-after": "4"}, body=body)).wrong == ""
    assert judge(ask, Got(end="whole", status=503, headers={}, body=body)).wrong
    assert judge(ask, Got(end="whole", status=500, headers={}, body=body)).wrong
    assert judge(ask, Got(end="whole", status=502, headers={}, body=b"oops")).wrong


def test_every_kind_of_request_is_made() -> None:
    """And in the calm only those that end with a right answer."""
    rng = random.Random(1)
    assert {make_ask(rng, MODEL).kind for _ in range(2000)} == set(ASKS)
    calm = [make_ask(rng, MODEL, calm=True) for _ in range(500)]
    assert all(ask.refusal is None and ask.leaves_after_events is None for ask in calm)


def _record(heading: str, *, wrong: str = "", began_at: float = 10.0, ended_at: float = 20.0) -> Record:
    ask = _ask("chat stream")
    verdict = judge(ask, Got(end="cut", status=200, headers={}))
    return Record(
        ask=ask,
        verdict=dataclasses.replace(verdict, heading=heading, wrong=wrong),
        router="router-a",
        life=1,
        began_at=began_at,
        ended_at=ended_at,
        request_id="1",
        got_tail="",
    )


def test_only_what_a_router_itself_lost_is_excused() -> None:
    """A killed worker excuses a cut stream of its router; one that stops, only who came too late."""
    killed = [Incident(what="worker router-a", began_at=15.0, ended_at=15.5)]
    stopping = [Incident(what="stopping router-a", began_at=15.0, ended_at=18.0)]
    assert excuse(_record("stream cut"), killed)
    assert not excuse(_record("stream cut", ended_at=12.0), killed)
    assert not excuse(_record("stream cut"), stopping)
    assert excuse(_record("connection refused", began_at=15.1), stopping)
    assert not excuse(_record("no answer", began_at=14.0), stopping)
    assert not excuse(_record("stream cut"), [Incident(what="worker router-b", began_at=15.0, ended_at=16.0)])


def test_a_router_that_began_without_keys_may_refuse_them_until_they_are_restored() -> None:
    """Not one that ran on, nor later."""
    gone = Incident(what="no keys", began_at=5.0, ended_at=11.0)
    began = Incident(what="stopping router-a", began_at=6.0, ended_at=9.0)
    refused = _record("WRONG", wrong="status 401: …")
    assert excuse_of_answer(refused, [gone, began])
    assert not excuse_of_answer(refused, [gone])
    assert not excuse_of_answer(dataclasses.replace(refused, began_at=15.0), [gone, began])


def test_a_response_in_one_piece_may_be_short_only_where_an_engine_was_stopped_by_a_stranger() -> None:
    """It says `completed` then; of no other API and no stream that is excused."""
    aborted = [Incident(what="engine abort", began_at=15.0, ended_at=15.5)]
    short = dataclasses.replace(_record("WRONG", wrong="text of 3 characters, not 9"), ask=_ask("responses"))
    assert excuse_of_answer(short, aborted)
    assert not excuse_of_answer(short, [])
    assert not excuse_of_answer(dataclasses.replace(short, ask=_ask("chat")), aborted)
    assert not excuse_of_answer(dataclasses.replace(short, ask=_ask("responses stream")), aborted)


def test_a_site_is_blind_only_while_both_ways_are_closed() -> None:
    """And for as long as it takes to find them again."""
    direct = Incident(what="link north>feed", began_at=10.0, ended_at=20.0)
    redis = Incident(what="down redis", began_at=15.0, ended_at=30.0)
    assert blind_spans("north", [direct, redis]) == [(15.0, 28.0)]
    assert blind_spans("north", [direct, redis], tail_seconds=0.0) == [(15.0, 20.0)]
    assert blind_spans("north", [direct]) == []
    assert blind_spans("coast", [direct, redis]) == []


def test_what_a_blind_site_may_take_walks_down() -> None:
    """Whole for 3 periods after the last reading, which may be one period old, and nothing after 10."""
    allowance = Allowance(maybe_blind=[(100.0, 200.0)], surely_blind=[(100.0, 150.0)])

    def wind(at: float) -> float:
        return 700.0 if at < 100.5 else 0.0

    assert allowance.watts(99.0, wind) == 700.0
    times = (100.0, 103.0, 107.0, 111.0, 150.0)
    assert [allowance.watts(at, wind) for at in times] == [700.0, 700.0, 350.0, 0.0, 0.0]


def test_where_a_reading_may_have_come_it_may_have_been_the_last() -> None:
    """Two spells that run into each other are no long one."""
    allowance = Allowance(maybe_blind=[(100.0, 200.0)], surely_blind=[(100.0, 110.0), (120.0, 130.0)])

    def wind(at: float) -> float:
        return 700.0 if at < 120.5 else 0.0

    assert allowance.watts(123.0, wind) == 700.0
    assert allowance.watts(130.0, wind) < 100.0
    assert allowance.watts(201.0, wind) == 0.0


def test_a_ledger_that_agrees_with_its_clients_has_no_fault() -> None:
    """One request under another heading is one; of one that no client can tell, nothing is held."""
    counted = {"requests": 3, "completed": 2, "shed": 1, "broken": 0, "client_error": 0, "failed": 0}
    expected = expected_ledger([]) | {"completed": 2, "shed": 1, "-": 4}
    assert ledger_faults(expected, counted, may_vary=0) == []
    assert ledger_faults(expected, counted | {"completed": 1, "failed": 1}, may_vary=0)
    assert ledger_faults(expected | {"unknown": 1}, counted | {"requests": 4, "failed": 1}, may_vary=0) == []
