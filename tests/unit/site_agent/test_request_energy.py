"""What each request costs: the site's energy of each second, by the tokens of that second."""

from __future__ import annotations

import random

import pytest

from site_agent.request_energy import WAIT_ROUNDS, Bill, RequestEnergy

PIECE = b'data: {"choices":[1]}\n\n'


def until_settled(site: RequestEnergy) -> None:
    for _ in range(WAIT_ROUNDS):
        site.settle(0.0, 0.0)


def test_a_streams_tokens_are_its_events() -> None:
    """Comments and the end are none; a piece may hold several."""
    bill = Bill(prompt_tokens=40.0)
    bill.take_piece(b": keep-alive\n\n" + 2 * PIECE)
    bill.take_piece(PIECE + b"data: [DONE]\n\n")
    assert (bill.prefill.new, bill.decode.new) == (40.0, 3)


def test_an_answer_in_one_piece_states_its_tokens() -> None:
    """An embedding has none of its own; one that states nothing keeps the estimate of its prompt."""
    bill = Bill(prompt_tokens=40.0)
    assert (bill.prefill.new, bill.decode.new) == (0.0, 0.0)
    bill.take_body(b'{"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}')
    assert (bill.prefill.new, bill.decode.new) == (5, 7)
    bill = Bill(prompt_tokens=40.0)
    bill.take_body(b'{"data":[]}')
    assert (bill.prefill.new, bill.decode.new) == (40.0, 0.0)


def test_energy_goes_to_who_got_tokens_in_that_time() -> None:
    """Two share the first second, one has the next for itself."""
    site = RequestEnergy()
    short, long = site.open(10.0), site.open(30.0)
    for bill in (short, long):
        bill.take_piece(5 * PIECE)
    site.close(short)
    site.settle(40.0, 100.0)
    long.take_piece(4 * PIECE)
    site.close(long)
    site.settle(0.0, 80.0)
    until_settled(site)
    assert short.joules == 10.0 + 50.0
    assert long.joules == 30.0 + 50.0 + 80.0
    assert site.sum_joules == 220.0
    buckets = dict(site.buckets())
    assert (buckets["30"], buckets["100"], buckets["300"], buckets["+Inf"]) == (0, 1, 2, 2)


def test_energy_that_comes_late_finds_the_request_that_has_ended() -> None:
    """The engine's counters lag. Where nobody is left, it waits for the next who gets a token."""
    site = RequestEnergy()
    bill = site.open(10.0)
    bill.take_piece(PIECE)
    site.close(bill)
    site.settle(0.0, 0.0)
    site.settle(2.0, 3.0)
    site.settle(0.0, 4.0)
    assert site.sum_joules == bill.joules == 9.0
    site.settle(0.0, 7.0)
    later = site.open(1.0)
    later.take_piece(PIECE)
    site.close(later)
    site.settle(1.0, 1.0)
    assert later.joules == 9.0


def test_nothing_waits_for_ever_and_what_got_nothing_is_not_counted() -> None:
    """As with engines that say nothing of their tokens: their energy is never split."""
    site = RequestEnergy()
    refused, answered = site.open(10.0), site.open(10.0)
    answered.take_piece(PIECE)
    site.close(refused)
    site.close(answered)
    for _ in range(WAIT_ROUNDS):
        site.settle(0.0, 0.0)
    assert not site._ended
    assert not site._open
    assert sum(site.counts) == 0


def test_an_answer_in_one_piece_pays_for_all_of_its_time() -> None:
    """Beside a stream of the same work, thirty seconds long: half of all, whatever its last second tells."""
    site = RequestEnergy()
    stream, whole = site.open(100.0), site.open(100.0, is_whole=True)
    for second in range(31):
        stream.take_piece(10 * PIECE)
        if second == 30:
            whole.take_body(b'{"usage":{"prompt_tokens":100,"completion_tokens":310}}')
            site.close(stream)
            site.close(whole)
        site.settle(100.0 if second == 0 else 0.0, 1000.0)
    until_settled(site)
    assert stream.joules == pytest.approx(whole.joules)
    assert site.sum_joules == pytest.approx(31_100.0)


def test_an_answer_in_one_piece_that_is_cancelled_pays_for_what_it_had() -> None:
    """It is counted, and the next request pays for itself alone."""
    site = RequestEnergy()
    cancelled = site.open(100.0, is_whole=True)
    for _ in range(5):
        site.settle(0.0, 1000.0)
    site.close(cancelled)
    site.settle(0.0, 300.0)
    later = site.open(100.0)
    later.take_piece(PIECE)
    site.settle(0.0, 10.0)
    site.close(later)
    until_settled(site)
    assert (cancelled.joules, later.joules) == (5300.0, 10.0)
    assert sum(site.counts) == 2


def test_energy_that_nobody_takes_in_time_is_nobodys() -> None:
    """Streams that were gone before a first token: one had been seen to cost something, the other had not."""
    site = RequestEnergy()
    gone = site.open(100.0)
    site.settle(500.0, 0.0)
    site.close(gone)
    until_settled(site)
    site.close(site.open(100.0))
    site.settle(70.0, 0.0)
    until_settled(site)
    later = site.open(100.0)
    later.take_piece(PIECE)
    site.settle(3.0, 4.0)
    assert (gone.joules, later.joules, site.unbilled_joules) == (500.0, 7.0, 70.0)


@pytest.mark.parametrize("seed", range(20))
def test_the_requests_joules_are_the_sites(seed: int) -> None:
    """Whatever comes and goes, in pieces or in one; with those that nobody was billed for."""
    rng = random.Random(seed)
    site, spent = RequestEnergy(), 0.0
    live: list[Bill] = []
    for _ in range(50):
        live += [site.open(rng.uniform(1, 100), is_whole=rng.random() < 0.3) for _ in range(rng.randrange(3))]
        for bill in live:
            if not bill.is_whole:
                bill.take_piece(PIECE * rng.randrange(5))
        for bill in [bill for bill in live if rng.random() < 0.3]:
            live.remove(bill)
            if bill.is_whole and rng.random() < 0.7:
                bill.take_body(b'{"usage":{"completion_tokens":9}}')
            site.close(bill)
        prefill, decode = rng.uniform(0, 10), rng.uniform(0, 100)
        spent += prefill + decode
        site.settle(prefill, decode)
    last = site.open(1.0)
    live.append(last)
    for bill in live:
        bill.take_piece(PIECE)
        site.close(bill)
    site.settle(1.0, 1.0)
    until_settled(site)
    assert site.sum_joules + site.unbilled_joules == pytest.approx(spent + 2.0)
