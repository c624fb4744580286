"""replay.synthetic: what is drawn has the published statistics, and the seed decides all of it."""

from __future__ import annotations

from itertools import islice, pairwise, takewhile
from random import Random

import pytest

from replay.synthetic import (
    QUANTILE_LEVELS,
    SHAPES,
    Shape,
    SyntheticSpec,
    dispersion,
    generate,
    mean_of,
)
from replay.trace import MAX_TOKENS, TraceRequest

PUBLISHED = {
    "code": ([147, 578, 1469, 2744, 5188, 7303, 7436], [7, 9, 13, 24, 55, 90, 251]),
    "conv": ([207, 396, 1020, 1189, 2734, 4083, 4142], [54, 85, 129, 395, 424, 451, 601]),
}
LEVELS = (0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99)


def drawn(spec: SyntheticSpec, count: int, seed: int = 7) -> list[TraceRequest]:
    return list(islice(generate(spec, Random(seed)), count))


def counted_dispersion(spec: SyntheticSpec, bin_seconds: float, seconds: float, seed: int) -> float:
    counts = [0] * int(seconds / bin_seconds)
    for request in takewhile(lambda item: item.at_seconds < seconds, generate(spec, Random(seed))):
        counts[min(int(request.at_seconds / bin_seconds), len(counts) - 1)] += 1
    mean = sum(counts) / len(counts)
    return sum((count - mean) ** 2 for count in counts) / len(counts) / mean


@pytest.mark.parametrize("shape", ["code", "conv"])
def test_tables_hold_the_published_quantiles(shape: Shape) -> None:
    """The seven published quantiles of each size stand in the table, to the token."""
    statistics = SHAPES[shape]
    for table, published in zip(
        (statistics.prompt_quantiles, statistics.output_quantiles), PUBLISHED[shape], strict=True
    ):
        assert len(table) == len(QUANTILE_LEVELS)
        assert list(table) == sorted(table)
        assert [table[QUANTILE_LEVELS.index(level)] for level in LEVELS] == published


@pytest.mark.parametrize(("shape", "prompt", "output"), [("code", 2048, 27.9), ("conv", 1155, 211.1)])
def test_table_means_are_near_the_files(shape: Shape, prompt: float, output: float) -> None:
    """Within 4 %: between two quantiles a straight line is assumed."""
    assert mean_of(SHAPES[shape].prompt_quantiles) == pytest.approx(prompt, rel=0.04)
    assert mean_of(SHAPES[shape].output_quantiles) == pytest.approx(output, rel=0.04)


@pytest.mark.parametrize("shape", ["code", "conv"])
def test_drawn_quantiles_are_near_the_published(shape: Shape) -> None:
    """Of 20,000 requests each published quantile lies at its level within a percentage point."""
    requests = drawn(SyntheticSpec(shape=shape, arrivals="poisson"), 20_000)
    for sizes, published in zip(
        ([r.prompt_tokens for r in requests], [r.output_tokens for r in requests]),
        PUBLISHED[shape],
        strict=True,
    ):
        for level, tokens in zip(LEVELS, published, strict=True):
            below = sum(size < tokens for size in sizes) / len(sizes)
            upto = sum(size <= tokens for size in sizes) / len(sizes)
            assert below - 0.01 <= level <= upto + 0.01


def test_the_seed_decides_everything() -> None:
    """Equal seeds give equal requests, others give others."""
    spec = SyntheticSpec(shape="code")
    assert drawn(spec, 200, seed=1) == drawn(spec, 200, seed=1)
    assert drawn(spec, 200, seed=1) != drawn(spec, 200, seed=2)


def test_scaling_to_a_rate_and_a_mean() -> None:
    """45 requests a second with 60 output tokens on average; the shape of the distribution stays."""
    spec = SyntheticSpec(requests_per_second=45, mean_output_tokens=60, arrivals="poisson")
    requests = drawn(spec, 20_000)
    assert 20_000 / requests[-1].at_seconds == pytest.approx(45, rel=0.03)
    outputs = sorted(request.output_tokens for request in requests)
    assert sum(outputs) / 20_000 == pytest.approx(60, rel=0.03)
    assert outputs[18_000] / outputs[10_000] == pytest.approx(424 / 129, rel=0.1)


def test_limits_cut_the_tail() -> None:
    """No size above the limits, none below 1."""
    spec = SyntheticSpec(max_prompt_tokens=500, max_output_tokens=50, mean_output_tokens=3)
    requests = drawn(spec, 2_000)
    assert max(request.prompt_tokens for request in requests) == 500
    assert min(request.output_tokens for request in requests) >= 1
    assert max(request.output_tokens for request in requests) <= 50


@pytest.mark.parametrize("arrivals", ["bursty", "poisson"])
def test_times_only_grow(arrivals: str) -> None:
    """Instants are strictly increasing and begin after 0."""
    times = [r.at_seconds for r in drawn(SyntheticSpec(shape="code", arrivals=arrivals), 5_000)]  # type: ignore[arg-type]
    assert times[0] > 0
    assert all(later > earlier for earlier, later in pairwise(times))


@pytest.mark.parametrize(("shape", "published"), [("code", (13, 72, 164)), ("conv", (1.4, 3.9, 16))])
def test_the_model_has_the_published_dispersion(shape: Shape, published: tuple[float, ...]) -> None:
    """By the formula, within a fifth, at 1 s, 10 s and 1 min."""
    statistics = SHAPES[shape]
    for bin_seconds, value in zip((1, 10, 60), published, strict=True):
        model = dispersion(statistics.requests_per_second, statistics.rate_processes, bin_seconds)
        assert model == pytest.approx(value, rel=0.2)


@pytest.mark.parametrize("shape", ["code", "conv"])
def test_bursts_are_there(shape: Shape) -> None:
    """Counted over 20,000 s the bursty mode has the formula's dispersion, within a third; Poisson has 1."""
    statistics = SHAPES[shape]
    model = dispersion(statistics.requests_per_second, statistics.rate_processes, 10)
    bursty = counted_dispersion(SyntheticSpec(shape=shape), 10, 20_000, seed=3)
    assert bursty == pytest.approx(model, rel=0.34)
    poisson = counted_dispersion(SyntheticSpec(shape=shape, arrivals="poisson"), 10, 20_000, seed=3)
    assert poisson == pytest.approx(1, abs=0.15)
    assert bursty > 2 * poisson


def test_the_description_says_synthetic() -> None:
    """And which statistics, rate, arrivals, means and limits."""
    spec = SyntheticSpec(shape="code", requests_per_second=45, mean_output_tokens=60, max_prompt_tokens=512)
    assert spec.describe() == (
        "synthetic trace (statistics of Azure 2023 code; 45 requests/s, bursty arrivals, "
        "mean output 60 tokens, prompt at most 512 tokens)"
    )


def test_sizes_and_rates_beyond_any_trace_are_refused() -> None:
    """The largest draw is within the limit of a trace's row, and the limit is named."""
    largest = max(request.output_tokens for request in drawn(SyntheticSpec(mean_output_tokens=2e6), 5_000))
    assert 5_000_000 < largest <= MAX_TOKENS
    with pytest.raises(ValueError, match=r"mean_output_tokens = 3e\+06: must be at most 2\d{6}, for"):
        SyntheticSpec(mean_output_tokens=3e6)
    with pytest.raises(ValueError, match=r"requests_per_second = 100001: must be at most 100000"):
        SyntheticSpec(requests_per_second=100_001)


@pytest.mark.parametrize(
    "name", ["requests_per_second", "mean_prompt_tokens", "mean_output_tokens", "max_output_tokens"]
)
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_numbers_that_cannot_be_are_refused(name: str, value: float) -> None:
    """The message names the number."""
    with pytest.raises(ValueError, match=name):
        SyntheticSpec(**{name: value})
