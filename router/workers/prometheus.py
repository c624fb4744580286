"""Between prometheus_client's families and the plain ones that are merged."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from router.workers.merge import Family, Page


def read_page(families: Iterable[Metric]) -> Page:
    """Everything that a registry or a collector has now, but for the moments at which series were made."""
    page: Page = {}
    for metric in families:
        family = page[metric.name] = Family(
            name=metric.name,
            kind=metric.type,  # type: ignore[arg-type]  # the router has no others
            text=metric.documentation,
        )
        for sample in metric.samples:
            if not sample.name.endswith("_created"):
                family.samples[sample.name, tuple(sample.labels.items())] = sample.value
    return page


class _Fixed(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def render(page: Page) -> bytes:
    """Prometheus' text format."""
    families = []
    for family in page.values():
        metric = Metric(family.name, family.text, family.kind)
        for (name, labels), value in family.samples.items():
            metric.add_sample(name, dict(labels), value)
        families.append(metric)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Fixed(families))
    return generate_latest(registry)
