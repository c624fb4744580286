"""What the doctor says of a site's TLS: whether the certificate will do, and what goes without.

Files that cannot be used at all are told by the configuration, before anything is looked at.
"""

from __future__ import annotations

import stat
import time
from urllib.parse import urlsplit

from fleet.config import FleetConfig
from gateway.tls import PortFiles, time_fault
from site_agent.config import SiteConfig, is_loopback
from site_agent.promises import Finding

RENEW = "renew it in its place; a running agent takes it within 10 s"


def examine(fleet: FleetConfig, config: SiteConfig) -> list[Finding]:
    """Of the ingress."""
    files = config.port_files
    if files is None:
        return [_plain(config)]
    found = [_certificate(files, config), *_key(files)]
    if files.client_ca is not None and fleet.tls_client_certificate_file is None:
        message = (
            "callers must show a certificate; [fleet] names none, so the doctor cannot ask a running agent"
        )
        found.append(_warn(message, "[fleet] tls_client_certificate_file and tls_client_key_file"))
    return found


def _plain(config: SiteConfig) -> Finding:
    if config.ingress_url is not None and config.ingress_url.startswith("https:"):
        return _pass(f"in front of this port: {config.ingress_url}")
    if is_loopback(config.host):
        return _pass("none; the ingress listens on this machine only")
    return _warn(
        "none: the site token and what clients ask cross the network as they are",
        "tls_certificate_file and tls_key_file, unless that network is yours alone",
    )


def _certificate(files: PortFiles, config: SiteConfig) -> Finding:
    certificate = files.load().certificate
    assert certificate is not None, "a port shows one"
    host = urlsplit(config.ingress_at(config.port)).hostname or config.host
    fault = files.name_fault(host)
    if fault is not None:
        action = f"routers refuse it: a certificate for {host}, or an ingress_url with a name that it is for"
        return _fail(f"{files.certificate} {fault}", action)
    now = time.time()
    fault = time_fault(certificate, now)
    if fault is None:
        days = int((certificate.expires_at_unix_seconds - now) / 86_400)
        return _pass(f"{files.certificate} is for {host}, for {days} days yet")
    is_valid = certificate.begins_at_unix_seconds <= now < certificate.expires_at_unix_seconds
    return (_warn if is_valid else _fail)(f"{files.certificate} {fault}", RENEW)


def _key(files: PortFiles) -> list[Finding]:
    if not files.key.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        return []
    return [_warn(f"{files.key}: everybody on this machine may read it", f"chmod o-rwx {files.key}")]


def _pass(message: str) -> Finding:
    return Finding(check="TLS", status="pass", message=message)


def _warn(message: str, action: str) -> Finding:
    return Finding(check="TLS", status="warn", message=message, action=action)


def _fail(message: str, action: str) -> Finding:
    return Finding(check="TLS", status="fail", message=message, action=action)
