"""`heron_site_*` of energy and GPUs; read from the energy meter when Prometheus asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from site_agent.energy_meter import EnergyMeter


@dataclass(slots=True, kw_only=True, eq=False)
class EnergyCollector(Collector):
    """One per agent."""

    site_id: str
    model: str
    meter: EnergyMeter

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        account = self.meter.account
        yield self._counter(
            "energy_joules",
            "The site's energy by what it was spent on, with overhead. Much idle: keep fewer engines awake.",
            ("model", "phase"),
            {(self.model, phase): joules for phase, joules in account.joules.items()},
        )
        yield self._counter(
            "energy_measured_joules",
            "Of that energy, what was measured; the rest is modelled. Less: see the GPU driver.",
            (),
            {(): account.measured_joules},
        )
        yield self._counter(
            "energy_unaccounted_seconds",
            "Time in which nobody looked (a machine that stood still). Growing: look at the machine.",
            (),
            {(): account.unaccounted_seconds},
        )
        yield self._counter(
            "tokens",
            "Tokens that the energy was split by. 0 with requests: the engine's metrics are not read.",
            ("model", "phase"),
            {(self.model, "prefill"): account.prompt_tokens, (self.model, "decode"): account.output_tokens},
        )
        yield self._gauge(
            "joules_per_token",
            "Mean of the last ten seconds with tokens. High: small batches, or clocks too high for the load.",
            ("model", "phase"),
            {
                (self.model, "prefill"): account.joules_per_prompt_token,
                (self.model, "decode"): account.joules_per_output_token,
            },
        )
        requests = self.meter.requests
        family = HistogramMetricFamily(
            "heron_site_request_joules",
            "Energy of each request that ended here. High for few tokens: small batches, or clocks too high.",
            labels=["site", "model"],
        )
        family.add_metric([self.site_id, self.model], requests.buckets(), sum_value=requests.sum_joules)
        yield family
        yield self._counter(
            "unbilled_joules",
            "Energy on tokens that no request was billed for. Much: many are cancelled before a token came.",
            ("model",),
            {(self.model,): requests.unbilled_joules},
        )
        yield self._counter(
            "wind_joules",
            "The site's granted wind: granted = used + curtailed. Much curtailed: send more, add GPUs.",
            ("use",),
            {
                ("granted",): account.granted_joules,
                ("used",): account.wind_used_joules,
                ("curtailed",): account.curtailed_joules,
            },
        )
        yield self._gauge(
            "farm_capacity_factor_ratio",
            "The farm's available power over its nameplate since this agent started. For scale.",
            (),
            {(): account.capacity_factor_ratio},
        )
        yield from self._gpus()

    def _gpus(self) -> Iterable[Metric]:
        readings = self.meter.gpus
        yield self._gauge(
            "gpu_power_watts",
            "Each GPU's power. heron_site_info says whether they are fake.",
            ("gpu",),
            {(str(one.index),): one.power_watts for one in readings},
        )
        yield self._gauge(
            "gpu_sm_clock_mhz",
            "Each GPU's clock now. Above the one ordered: the lock does not hold, see the GPU driver.",
            ("gpu",),
            {(str(one.index),): one.clock_mhz for one in readings},
        )
        yield self._gauge(
            "gpu_temperature_celsius",
            "Each GPU's temperature. Near its limit: it throttles by itself, look at the cooling.",
            ("gpu",),
            {(str(one.index),): one.temperature_celsius for one in readings},
        )

    def _gauge(
        self, name: str, text: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], float | None]
    ) -> Metric:
        family = GaugeMetricFamily(f"heron_site_{name}", text, labels=["site", *labels])
        for key, value in values.items():
            if value is not None:
                family.add_metric([self.site_id, *key], value)
        return family

    def _counter(
        self, name: str, text: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], float]
    ) -> Metric:
        family = CounterMetricFamily(f"heron_site_{name}", text, labels=["site", *labels])
        for key, value in values.items():
            family.add_metric([self.site_id, *key], value)
        return family
