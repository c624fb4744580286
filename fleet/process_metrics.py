"""What every service says of its own process: memory, CPU, open files, and which version runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from prometheus_client import CollectorRegistry, Gauge, PlatformCollector, ProcessCollector

from fleet.version import installed_version

Service = Literal["router", "site", "feed"]


def add_process_metrics(registry: CollectorRegistry, service: Service, **labels: str) -> Gauge:
    """Prometheus' usual `process_*` and `python_info`, and `heron_SERVICE_build_info`, which is returned."""
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    build = Gauge(
        f"heron_{service}_build_info",
        "Always 1; which version runs. Versions differ for long: an update did not reach every machine.",
        [*labels, "version"],
        registry=registry,
    )
    build.labels(*labels.values(), installed_version()).set(1.0)
    return build


def resident_bytes(pid: int | None) -> int | None:
    """Memory of another process, as Linux says it; None where there is none, or no such file."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
