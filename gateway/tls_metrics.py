"""What every service says of the certificates that it shows."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge

from fleet.process_metrics import Service
from gateway.tls_renewal import RenewedTls, ServiceTls


def add_tls_metrics(
    registry: CollectorRegistry, service: Service, tls: ServiceTls | None, **labels: str
) -> Gauge:
    """`heron_SERVICE_tls_certificate_expiry_timestamp_seconds`, which is returned; empty without TLS."""
    expiry = Gauge(
        f"heron_{service}_tls_certificate_expiry_timestamp_seconds",
        "When the certificate in use expires: port, or client (shown to sites). Within a week: renew it in "
        "its place; the log says why a new one is not taken.",
        [*labels, "certificate"],
        registry=registry,
    )
    for name, shown in ({} if tls is None else tls.shown()).items():
        expiry.labels(*labels.values(), name).set_function(_expiry_of(shown))
    return expiry


def _expiry_of(shown: RenewedTls) -> Callable[[], float]:
    def read() -> float:
        certificate = shown.certificate
        return 0.0 if certificate is None else certificate.expires_at_unix_seconds

    return read
