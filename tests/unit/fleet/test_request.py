"""Size classes of requests."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.request import ClassCutoffs, RequestClass, RequestFeatures


@pytest.mark.parametrize(
    ("prompt_tokens", "output_tokens", "expected"),
    [
        (0, 0, "SS"),
        (512, 64, "SS"),
        (513, 64, "MS"),
        (512, 65, "SM"),
        (2048, 256, "MM"),
        (2049, 256, "LM"),
        (2048, 257, "ML"),
        (100_000, 100_000, "LL"),
        (1, 257, "SL"),
        (2049, 1, "LS"),
    ],
)
def test_a_cut_off_is_the_largest_size_of_its_class(
    prompt_tokens: int, output_tokens: int, expected: str
) -> None:
    """At the default cut-offs, on both sides of each."""
    assert ClassCutoffs().classify(prompt_tokens, output_tokens) == expected


def test_cut_offs_are_configuration() -> None:
    """Another fleet's requests may be larger."""
    cutoffs = ClassCutoffs(
        small_prompt_tokens=10, medium_prompt_tokens=20, small_output_tokens=1, medium_output_tokens=2
    )
    assert cutoffs.classify(11, 3) == "ML"


@given(
    prompt_tokens=st.integers(0, 10_000),
    output_tokens=st.integers(0, 2_000),
    more=st.integers(0, 10_000),
)
def test_a_larger_request_is_never_of_a_smaller_class(
    prompt_tokens: int, output_tokens: int, more: int
) -> None:
    """Each size is one of nine classes, and grows with the tokens."""
    cutoffs = ClassCutoffs()
    small = cutoffs.classify(prompt_tokens, output_tokens)
    large = cutoffs.classify(prompt_tokens + more, output_tokens + more)
    assert {small, large} <= set(get_args(RequestClass))
    assert all("SML".index(b) >= "SML".index(a) for a, b in zip(small, large, strict=True))


def test_features_without_a_deadline_or_key_say_none() -> None:
    """None is "no deadline", never "no time left"."""
    features = RequestFeatures(
        model="m", request_class="SS", prompt_tokens=1, expected_output_tokens=1, stream=True
    )
    assert features.deadline_seconds is None
    assert features.affinity_key is None
    assert (features.tier, features.tenant) == ("default", "anonymous")
