"""Reading an engine's metrics page: missing is unknown, never zero."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import official_data

from site_agent import engine_metrics
from site_agent.engine_metrics import EngineMetrics, MetricsWindow

PAGE = """
# HELP vllm:num_requests_running Number of requests in model execution batches.
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 9.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.5
vllm:inter_token_latency_seconds_bucket{engine="0",le="0.01",model_name="m"} 10.0
vllm:inter_token_latency_seconds_bucket{engine="0",le="0.02",model_name="m"} 30.0
vllm:inter_token_latency_seconds_bucket{engine="0",le="+Inf",model_name="m"} 40.0
vllm:inter_token_latency_seconds_count{engine="0",model_name="m"} 40.0
"""


def test_counts_are_summed_over_engines_and_use_is_the_highest() -> None:
    """Labels with other names do not disturb."""
    metrics = engine_metrics.parse(PAGE)
    assert metrics.running_requests == 5
    assert metrics.waiting_requests == 1
    assert metrics.kv_cache_usage_ratio == 0.5
    assert metrics.itl == {0.01: 10.0, 0.02: 30.0, float("inf"): 40.0}
    assert metrics.ttft is None


@pytest.mark.parametrize(
    "page", ["", "vllm:gpu_cache_usage_perc 0.5\n", "vllm:kv_cache_usage_perc NaN\n", "\x00"]
)
def test_what_the_page_does_not_have_is_unknown(page: str) -> None:
    """An older version's name is no value either."""
    assert engine_metrics.parse(page) == EngineMetrics()


@pytest.mark.parametrize("value", ["+Inf", "-Inf", "NaN", "1e", "1.2.3", "--1", "+", "1e999"])
def test_a_value_that_is_none_is_left_out(value: str) -> None:
    """Whatever an engine of somebody else writes, it ends no agent."""
    page = (
        f"vllm:num_requests_running {value}\nvllm:kv_cache_usage_perc {value}\nvllm:num_requests_waiting 2\n"
    )
    assert engine_metrics.parse(page) == EngineMetrics(waiting_requests=2)


@given(st.text(max_size=300))
def test_any_page_can_be_read(page: str) -> None:
    """It comes from another process."""
    assert isinstance(engine_metrics.parse(page), EngineMetrics)


def test_the_real_page_of_vllm_is_read() -> None:
    """As captured from 0.32 with three requests done."""
    metrics = engine_metrics.parse(official_data.path("metrics-0.32.txt").read_text())
    assert metrics.running_requests == 0
    assert metrics.waiting_requests == 0
    assert metrics.kv_cache_usage_ratio == 0
    assert metrics.ttft is not None
    assert metrics.ttft[float("inf")] == 3
    assert engine_metrics.quantile(metrics.ttft, 0.5) == pytest.approx(0.0125)


def test_quantiles_are_linear_inside_a_bucket() -> None:
    """As Prometheus estimates them; beyond the last bound it is that bound."""
    histogram = {0.01: 10.0, 0.02: 30.0, float("inf"): 40.0}
    assert engine_metrics.quantile(histogram, 0.5) == pytest.approx(0.015)
    assert engine_metrics.quantile(histogram, 0.99) == 0.02
    assert engine_metrics.quantile({0.01: 0.0, float("inf"): 0.0}, 0.5) is None
    assert engine_metrics.quantile({}, 0.5) is None


def test_a_window_knows_only_what_came_within_it() -> None:
    """Quantiles of late, not since the engine started."""
    window = MetricsWindow()
    for second in range(30):
        window.add(EngineMetrics(itl={1.0: second * 2.0, float("inf"): second * 3.0}), float(second))
    assert window.itl() == {1.0: 20.0, float("inf"): 30.0}
    assert window.ttft() is None
    assert window.latest(29.0) is not None
    assert window.latest(39.0) is None


def test_a_restarted_engine_gives_no_negative_counts() -> None:
    """Until there are two pages of the new one, nothing is known."""
    window = MetricsWindow()
    window.add(EngineMetrics(itl={1.0: 50.0}), 0.0)
    window.add(EngineMetrics(itl={1.0: 1.0}), 1.0)
    assert window.itl() is None
    window.clear()
    assert window.latest(1.0) is None


def test_histograms_with_other_buckets_are_not_mixed() -> None:
    """Two versions of an engine on one site."""
    merged = engine_metrics.merge([{1.0: 1.0}, {1.0: 2.0}, {2.0: 5.0}])
    assert merged == {1.0: 3.0}
    assert engine_metrics.merge([]) == {}
    assert engine_metrics.increase({1.0: 1.0}, {2.0: 5.0}) is None


@pytest.mark.parametrize(
    "page",
    [
        'vllm:time_to_first_token_seconds_bucket{le="abc"} 1.0\n',
        'vllm:time_to_first_token_seconds_bucket{le="-5"} 1.0\n',
        "vllm:num_requests_running 1e308\nvllm:num_requests_running 1e308\n",
        "vllm:num_requests_waiting 2e9\n",
        "vllm:prompt_tokens_total 9e14\nvllm:prompt_tokens_total 9e14\n",
        "vllm:generation_tokens_total 1e300\n",
        "vllm:num_requests_running -3\n",
    ],
)
def test_nonsense_is_unknown(page: str) -> None:
    """Reports, limits and the power loop reckon with these."""
    metrics = engine_metrics.parse(page)
    assert metrics == EngineMetrics(ttft={} if "bucket" in page else None)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["vllm:num_requests_running", "vllm:prompt_tokens_total", 'vllm:request_success_total{x="y"}']
            ),
            st.floats() | st.sampled_from(["1e999", "-0", "+Inf", "1e", "--1"]),
        )
    )
)
def test_what_is_read_can_be_reported(lines: list[tuple[str, object]]) -> None:
    """Whatever an engine says: within a record's limits, or unknown."""
    metrics = engine_metrics.parse("".join(f"{name} {value}\n" for name, value in lines))
    for value in (metrics.running_requests, metrics.prompt_tokens, metrics.finished_requests):
        assert value is None or 0 <= value <= engine_metrics.MAX_TOTAL
