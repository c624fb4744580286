"""Lengths of answers, learnt."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.policy.output_length import OutputLengths, bucket_of, limit_bucket

PROMPT = 300


def learnt(lengths: list[int], tenant: str = "t", max_tokens: int | None = None) -> OutputLengths:
    made = OutputLengths()
    for length in lengths:
        made.observe("m", tenant, max_tokens, PROMPT, length)
    return made


def test_nothing_is_expected_before_enough_have_ended():
    """Seven say nothing, eight do."""
    assert learnt([100] * 7).expect("m", "t", None, PROMPT) is None
    found = learnt([100] * 8).expect("m", "t", None, PROMPT)
    assert found is not None
    assert found.p50_tokens == pytest.approx(100, rel=0.2)
    assert learnt([100] * 8).expect("n", "t", None, PROMPT) is None


@given(st.integers(1, 700_000))
def test_a_length_comes_back_within_a_fifth(tokens: int):
    """Buckets are √2 apart."""
    found = learnt([tokens] * 8).expect("m", "t", None, PROMPT)
    assert found is not None
    assert found.mean_tokens == pytest.approx(tokens, rel=0.2)
    assert found.p50_tokens == found.p90_tokens


def test_quantiles_of_a_mixture():
    """Nine short ones to each long one: the median is short, the mean between."""
    found = learnt([10, 10, 10, 10, 10, 10, 10, 10, 1000, 1000] * 20).expect("m", "t", None, PROMPT)
    assert found is not None
    assert found.p50_tokens == pytest.approx(10, rel=0.2)
    assert found.p90_tokens == pytest.approx(1000, rel=0.2)
    assert found.mean_tokens == pytest.approx(208, rel=0.2)


def test_a_tenant_is_known_by_its_own_answers_and_a_new_one_by_all():
    """And `max_tokens` of another size is another kind of request."""
    made = OutputLengths()
    for _ in range(50):
        made.observe("m", "brief", 100, PROMPT, 5)
        made.observe("m", "wordy", 100, PROMPT, 90)
    brief, wordy, other = (made.expect("m", tenant, 100, PROMPT) for tenant in ("brief", "wordy", "new"))
    assert brief is not None
    assert wordy is not None
    assert other is not None
    assert brief.mean_tokens < other.mean_tokens < wordy.mean_tokens
    assert made.expect("m", "brief", 2000, PROMPT) is None


def test_limits_within_a_factor_of_two_are_alike():
    """128 and 65 share a bucket; none is a bucket of its own."""
    assert learnt([60] * 20, max_tokens=128).expect("m", "t", 65, PROMPT) is not None
    assert limit_bucket(128) == limit_bucket(65) != limit_bucket(64)
    assert limit_bucket(None) != limit_bucket(0) == limit_bucket(1)


def test_a_change_of_load_is_followed():
    """After 300 answers of the new kind nothing is left of ten thousand of the old in the median."""
    made = learnt([20] * 10_000 + [500] * 300)
    found = made.expect("m", "t", None, PROMPT)
    assert found is not None
    assert found.p50_tokens == pytest.approx(500, rel=0.2)


def test_memory_is_bounded_whatever_the_keys():
    """The oldest half goes."""
    made = OutputLengths(max_keys=64)
    rng = random.Random(1)
    for number in range(5000):
        made.observe(f"m{number % 300}", f"t{rng.random()}", rng.randrange(1 << 20), PROMPT, 10)
    assert len(made) <= 128


def test_lengths_that_make_no_sense_do_no_harm():
    """0, and more than any model gives."""
    assert bucket_of(0) == bucket_of(-5) == 0
    assert bucket_of(10**12) == 39
    assert learnt([0] * 8, max_tokens=0).expect("m", "t", 0, PROMPT) is not None


def test_long_prompts_have_answers_of_their_own():
    """Prompts within a factor of four are alike."""
    made = OutputLengths()
    for _ in range(20):
        made.observe("m", "t", None, 300, 100)
        made.observe("m", "t", None, 3000, 20)
    short, long = made.expect("m", "t", None, 200), made.expect("m", "t", None, 8000)
    assert short is not None
    assert long is not None
    assert short.mean_tokens == pytest.approx(100, rel=0.2)
    assert long.mean_tokens == pytest.approx(20, rel=0.2)
    assert made.expect("m", "t", None, 1000) is None
