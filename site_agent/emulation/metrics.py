"""An emulated engine's `/metrics` page: vLLM's names and labels with real values, and a line that it is fake.

The step loop counts in plain integers (`statistics`); this turns them into Prometheus text when asked. What
vLLM exports and the emulation does not have (external prefix caches, speculative decoding, …) is left out:
missing means unknown.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from site_agent.emulation.answer import FAKE_VERSION
from site_agent.emulation.engine import EmulatedEngine

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LABELS = ("model_name", "engine")

_HISTOGRAMS = {
    "time_to_first_token_seconds": "Histogram of time to first token in seconds.",
    "inter_token_latency_seconds": "Histogram of inter-token latency in seconds.",
    "request_time_per_output_token_seconds": "Histogram of time_per_output_token_seconds per request.",
    "e2e_request_latency_seconds": "Histogram of e2e request latency in seconds.",
    "request_queue_time_seconds": "Histogram of time spent in WAITING phase for request.",
    "request_prefill_time_seconds": "Histogram of time spent in PREFILL phase for request.",
    "request_decode_time_seconds": "Histogram of time spent in DECODE phase for request.",
    "request_inference_time_seconds": "Histogram of time spent in RUNNING phase for request.",
    "request_prompt_tokens": "Number of prefill tokens processed.",
    "request_generation_tokens": "Number of generation tokens processed.",
    "iteration_tokens_total": "Histogram of number of tokens per engine_step.",
}


class EngineCollector(Collector):
    """Reads one engine's statistics at each scrape."""

    def __init__(self, engine: EmulatedEngine, model: str) -> None:
        self._engine = engine
        self._labels = (model, "0")

    def collect(self) -> Iterator[Metric]:
        yield from self._identity()
        yield from self._gauges()
        yield from self._counters()
        for name, documentation in _HISTOGRAMS.items():
            histogram = getattr(self._engine.statistics, name)
            family = HistogramMetricFamily(f"vllm:{name}", documentation, labels=_LABELS)
            family.add_metric(self._labels, histogram.cumulative(), sum_value=histogram.sum)
            yield family

    def _identity(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "heron_emulated_engine_info",
            "This engine is fake: no model runs here and no GPU. Always 1.",
            labels=("version", "profile"),
        )
        info.add_metric((FAKE_VERSION, self._engine.profile.profile_id), 1.0)
        yield info
        cache = GaugeMetricFamily(
            "vllm:cache_config_info",
            "Information of the LLMEngine CacheConfig.",
            labels=("engine", "kv_cache_size_tokens"),
        )
        cache.add_metric(("0", str(self._engine.kv_tokens)), 1.0)
        yield cache

    def _gauges(self) -> Iterator[Metric]:
        engine = self._engine
        values = (
            ("num_requests_running", "Number of requests in model execution batches.", len(engine.running)),
            ("num_requests_waiting", "Number of requests waiting to be processed.", len(engine.waiting)),
            ("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", engine.kv_usage_ratio),
        )
        for name, documentation, value in values:
            family = GaugeMetricFamily(f"vllm:{name}", documentation, labels=_LABELS)
            family.add_metric(self._labels, value)
            yield family
        sleep = GaugeMetricFamily(
            "vllm:engine_sleep_state",
            "Engine sleep state; the emulated engine is always awake.",
            labels=(*_LABELS, "sleep_state"),
        )
        for state, value in (("awake", 1.0), ("weights_offloaded", 0.0), ("discard_all", 0.0)):
            sleep.add_metric((*self._labels, state), value)
        yield sleep

    def _counters(self) -> Iterator[Metric]:
        statistics = self._engine.statistics
        values = (
            ("prompt_tokens", "Number of prefill tokens processed.", statistics.prompt_tokens),
            ("generation_tokens", "Number of generation tokens processed.", statistics.generation_tokens),
            ("num_preemptions", "Cumulative number of preemption from the engine.", statistics.preemptions),
            (
                "prefix_cache_queries",
                "Prefix cache queries, in terms of number of queried tokens.",
                statistics.prefix_cache_queries,
            ),
            (
                "prefix_cache_hits",
                "Prefix cache hits, in terms of number of cached tokens.",
                statistics.prefix_cache_hits,
            ),
        )
        for name, documentation, value in values:
            family = CounterMetricFamily(f"vllm:{name}", documentation, labels=_LABELS)
            family.add_metric(self._labels, value)
            yield family
        success = CounterMetricFamily(
            "vllm:request_success",
            "Count of successfully processed requests.",
            labels=(*_LABELS, "finished_reason"),
        )
        for reason, count in statistics.finished.items():
            success.add_metric((*self._labels, reason), count)
        yield success
        rejections = CounterMetricFamily(
            "vllm:admission_rejections",
            "Number of admission attempts rejected by a queue limit, by reason.",
            labels=("model_name", "reason"),
        )
        for reason, count in statistics.rejected.items():
            rejections.add_metric((self._labels[0], reason), count)
        yield rejections


class MetricsPage:
    """The page of one engine."""

    def __init__(self, engine: EmulatedEngine, model: str) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(EngineCollector(engine, model))

    def render(self) -> bytes:
        """Prometheus text, version 0.0.4."""
        return generate_latest(self._registry)
