"""Loads by name and file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import official_data

from replay.trace import TraceError
from simulator.traces import load_trace, rescaled_to_2024
from simulator.workload import Sizes

FILES = {
    "azure-2023-conv": "AzureLLMInferenceTrace_conv.csv",
    "azure-2023-code": "AzureLLMInferenceTrace_code.csv",
    "azure-2024-conv-10s": "azure2024_conv_1week_invocations_10s.csv",
    "azure-2024-code-10s": "azure2024_code_1week_invocations_10s.csv",
}


def official(name: str) -> Path:
    return official_data.path(FILES[name])


def no_files(name: str) -> Path:
    raise FileNotFoundError(name)


@pytest.mark.parametrize("mode", ["poisson", "bursty", "verbatim"])
def test_a_synthetic_load_needs_no_files(mode: str) -> None:
    """Requests in order, at about the rate asked for, of sizes within the published ones."""
    load = load_trace("synthetic-conv", no_files)
    arrivals = load.arrivals(start_seconds=0, seconds=7200, scale=2.0, mode=mode, seed="1")  # type: ignore[arg-type]
    assert np.all(np.diff(arrivals.at_seconds) >= 0)
    assert len(arrivals) / 7200 == pytest.approx(2 * load.mean_rate, rel=0.25)
    assert arrivals.prompt_tokens.max() <= 14050
    again = load.arrivals(start_seconds=0, seconds=7200, scale=2.0, mode=mode, seed="1")  # type: ignore[arg-type]
    assert np.array_equal(arrivals.at_seconds, again.at_seconds)


def test_bursty_code_is_more_uneven_than_poisson() -> None:
    """The index of dispersion per second is that of the 2023 trace in order of magnitude, not 1."""
    load = load_trace("synthetic-code", no_files)

    def dispersion(mode: str) -> float:
        arrivals = load.arrivals(start_seconds=0, seconds=7200, scale=1.0, mode=mode, seed="3")  # type: ignore[arg-type]
        counts = np.bincount(arrivals.at_seconds.astype(int), minlength=7200)
        return float(counts.var() / counts.mean())

    assert dispersion("poisson") < 1.5
    assert 6 < dispersion("bursty") < 25


def test_verbatim_keeps_the_counts(tmp_path: Path) -> None:
    """At scale 1 each bin has exactly its count."""
    bins = tmp_path / "bins.csv"
    rows = [f"2024-05-12 00:00:{10 * index:02d},{count}" for index, count in enumerate((5, 0, 17, 3))]
    bins.write_text("Time,TIMESTAMP\n" + "\n".join(rows) + "\n")
    requests = tmp_path / "conv.csv"
    requests.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n")
    load = load_trace(str(bins), lambda name: requests if name == "azure-2023-conv" else Path(name))
    arrivals = load.arrivals(start_seconds=0, seconds=30, scale=1.0, mode="verbatim", seed="1")
    counts = np.bincount((arrivals.at_seconds // 10).astype(int), minlength=3)
    assert counts.tolist() == [5, 0, 17]


def test_a_broken_bin_file_is_refused(tmp_path: Path) -> None:
    """A gap between bins is told with its line."""
    bins = tmp_path / "bins.csv"
    bins.write_text("Time,TIMESTAMP\n2024-05-12 00:00:00,5\n2024-05-12 00:00:30,5\n")
    with pytest.raises(TraceError, match="line 3"):
        load_trace(str(bins), Path)


def test_rescaling_meets_the_published_quantiles() -> None:
    """Outputs have 2024's median and p99, prompt and output together 2024's mean, ranks are kept."""
    rng = np.random.default_rng(1)
    own = Sizes(
        prompt_tokens=rng.integers(100, 3000, 5000),
        output_tokens=rng.integers(1, 600, 5000),
        description="random",
    )
    new = rescaled_to_2024(own, "conv")
    assert np.quantile(new.output_tokens, 0.5) == pytest.approx(41, abs=2)
    assert np.quantile(new.output_tokens, 0.99) == pytest.approx(694, rel=0.05)
    assert float((new.prompt_tokens + new.output_tokens).mean()) == pytest.approx(1737, rel=0.01)
    order = np.argsort(own.output_tokens, kind="stable")
    assert np.all(np.diff(new.output_tokens[order]) >= 0)


@pytest.mark.official_data
@pytest.mark.parametrize(
    ("name", "rate"), [("conv-2024", 45.1), ("code-2024", 27.8), ("conv-2023", 5.53), ("code-2023", 2.57)]
)
def test_official_loads_have_their_published_rates(name: str, rate: float) -> None:
    """As FACTS.md states them."""
    assert load_trace(name, official).mean_rate == pytest.approx(rate, rel=0.01)


@pytest.mark.official_data
def test_both_weeks_overlap_for_five_days() -> None:
    """12 to 16 May."""
    load = load_trace("both-2024", official)
    assert [len(part.rate.per_second) for part in load.parts] == [5 * 8640, 5 * 8640]
