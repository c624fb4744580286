"""Mixes of request classes."""

from __future__ import annotations

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import official_data

from fleet.capacity import Work
from fleet.mix import REQUEST_CLASSES, ClassShare, Mix
from fleet.mixes import AZURE_2023_CODING, AZURE_2023_CONVERSATION

WORK = Work(prompt_tokens=100, output_tokens=10)


def test_rates_become_shares_in_order() -> None:
    """Classes without load are left out."""
    mix = Mix.of({"LL": 3.0, "SS": 1.0, "MM": 0.0}, {"LL": WORK, "SS": WORK})
    assert [(one.request_class, one.share) for one in mix.classes] == [("SS", 0.25), ("LL", 0.75)]
    assert (mix.share("LL"), mix.share("MM"), mix.work("SS"), mix.work("MM")) == (0.75, 0.0, WORK, None)


def test_sizes_are_classified_and_averaged() -> None:
    """Two small-small, one long-long."""
    mix = Mix.from_sizes([(100, 10), (300, 30), (5000, 900)])
    assert mix.share("SS") == pytest.approx(2 / 3)
    assert mix.work("SS") == Work(prompt_tokens=200, output_tokens=20)
    assert mix.mean_work.prompt_tokens == pytest.approx(1800)
    assert mix.mean_work.output_tokens == pytest.approx(940 / 3)


@given(st.lists(st.tuples(st.integers(0, 8000), st.integers(0, 2000)), min_size=1, max_size=50))
def test_any_requests_make_a_mix_whose_mean_is_theirs(sizes: list[tuple[int, int]]) -> None:
    """Sizes of 0 count as 1."""
    mix = Mix.from_sizes(sizes)
    assert sum(one.share for one in mix.classes) == pytest.approx(1)
    assert mix.mean_work.prompt_tokens == pytest.approx(sum(max(1, p) for p, _ in sizes) / len(sizes))


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({}, "no request"),
        ({"SS": 0.0}, "no request"),
        ({"SS": -1.0}, "0 or more"),
        ({"LL": 1.0}, "mean size"),
    ],
)
def test_rates_that_make_no_mix_are_refused(rates: dict[str, float], message: str) -> None:
    """With what is wrong."""
    with pytest.raises(ValueError, match=message):
        Mix.of(rates, {"SS": WORK})  # type: ignore[arg-type]


def test_a_mix_is_ordered_and_sums_to_one() -> None:
    """Whoever builds one by hand is told."""
    half = ClassShare(request_class="SS", share=0.5, work=WORK)
    with pytest.raises(ValueError, match="sum to"):
        Mix(classes=(half,))
    with pytest.raises(ValueError, match="each once"):
        Mix(classes=(half, half))
    with pytest.raises(ValueError, match="above 0"):
        Mix(classes=(ClassShare(request_class="SS", share=-1, work=WORK),))


@pytest.mark.official_data
@pytest.mark.parametrize(("name", "mix"), [("conv", AZURE_2023_CONVERSATION), ("code", AZURE_2023_CODING)])
def test_the_published_mixes_are_the_traces(name: str, mix: Mix) -> None:
    """Counts exact, mean sizes to half a token."""
    file = official_data.path(f"AzureLLMInferenceTrace_{name}.csv")
    with file.open(encoding="utf-8") as lines:
        sizes = [(int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in csv.DictReader(lines)]
    found = Mix.from_sizes(sizes)
    for request_class in REQUEST_CLASSES:
        assert mix.share(request_class) == pytest.approx(found.share(request_class))
        ours, theirs = mix.work(request_class), found.work(request_class)
        assert ours is not None
        assert theirs is not None
        assert ours.prompt_tokens == pytest.approx(theirs.prompt_tokens, abs=0.51)
        assert ours.output_tokens == pytest.approx(theirs.output_tokens, abs=0.51)
