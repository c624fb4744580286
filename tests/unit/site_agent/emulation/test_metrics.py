"""The /metrics page of an emulated engine."""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families
from support import official_data

from fleet.profile import LLAMA_70B_H100_TP4 as PROFILE
from site_agent.emulation.engine import EmulatedEngine, Sequence
from site_agent.emulation.metrics import MetricsPage


def make_page() -> str:
    """After one request of 10 + 3 tokens, with another running."""
    engine = EmulatedEngine(PROFILE, max_concurrency=1)
    engine.submit(Sequence(prompt_tokens=10, max_tokens=3), 0.0)
    while engine.step_ends_at is not None:
        now = engine.step_ends_at
        engine.complete_step()
        engine.begin_step(now)
    engine.submit(Sequence(prompt_tokens=20, max_tokens=3), 5.0)
    engine.submit(Sequence(prompt_tokens=20, max_tokens=3), 5.0)
    engine.complete_step()
    engine.begin_step(5.1)
    return MetricsPage(engine, "m").render().decode()


def test_values_are_real() -> None:
    """Gauges, counters and histograms follow what ran."""
    samples = {
        (sample.name, sample.labels.get("finished_reason") or sample.labels.get("le")): sample.value
        for family in text_string_to_metric_families(make_page())
        for sample in family.samples
    }
    assert samples["vllm:num_requests_running", None] == 1
    assert samples["vllm:num_requests_waiting", None] == 1
    assert samples["vllm:kv_cache_usage_perc", None] == 20 / PROFILE.kv_tokens
    assert samples["vllm:prompt_tokens_total", None] == 30
    assert samples["vllm:generation_tokens_total", None] == 4
    assert samples["vllm:request_success_total", "length"] == 1
    assert samples["vllm:time_to_first_token_seconds_count", None] == 2
    assert samples["vllm:inter_token_latency_seconds_bucket", "0.01"] == 0
    assert samples["vllm:inter_token_latency_seconds_bucket", "0.025"] == 2


def test_page_says_that_it_is_fake() -> None:
    """Nobody may take it for a GPU's."""
    assert "heron_emulated_engine_info{" in make_page()
    assert "fake" in make_page()


def test_names_types_and_buckets_are_those_of_real_vllm() -> None:
    """Held against a page captured from vLLM 0.32."""
    captured = official_data.path("metrics-0.32.txt").read_text()
    ours = make_page()
    types = dict(re.findall(r"^# TYPE (vllm:\S+) (\S+)$", captured, re.MULTILINE))
    for name, kind in re.findall(r"^# TYPE (vllm:\S+) (\S+)$", ours, re.MULTILINE):
        assert types[name] == kind
    labels = re.findall(r'^(vllm:\S+_bucket)\{.*?le="([^"]+)"', ours, re.MULTILINE)
    theirs = set(re.findall(r'^(vllm:\S+_bucket)\{.*?le="([^"]+)"', captured, re.MULTILINE))
    # token buckets depend on the model's length, which was 2,048 there
    assert {pair for pair in labels if not pair[0].endswith("_tokens_bucket")} <= theirs
