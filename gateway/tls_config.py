"""The keys of a port that speaks TLS, and where `[fleet]` says how such ports are called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

from pydantic import model_validator

from fleet.config import ConfigError, ConfigModel, FleetConfig
from gateway.tls import CallerFiles, PortFiles, Tls, TlsError


class TlsPortConfig(ConfigModel):
    """Of a table with a port. Both, or neither: then it speaks plain HTTP."""

    tls_certificate_file: Path | None = None
    """PEM: the port's certificate, then those between it and its CA. Relative to the configuration file. The
    port then speaks HTTPS alone; a pair that changes is used within 10 s, without a restart."""
    tls_key_file: Path | None = None
    """PEM, without a passphrase."""

    @model_validator(mode="after")
    def _is_a_pair(self) -> Self:
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_certificate_file and tls_key_file belong together: give both, or neither")
        return self

    @property
    def speaks_tls(self) -> bool:
        """Whether the port speaks HTTPS."""
        return self.tls_certificate_file is not None

    @property
    def port_files(self) -> PortFiles | None:
        """None: plain HTTP."""
        if self.tls_certificate_file is None or self.tls_key_file is None:
            return None
        return PortFiles(certificate=self.tls_certificate_file, key=self.tls_key_file)


def caller_files(fleet: FleetConfig) -> CallerFiles:
    """What `[fleet]` says to whoever calls sites or the feed."""
    return CallerFiles(
        ca=fleet.tls_ca_file,
        certificate=fleet.tls_client_certificate_file,
        key=fleet.tls_client_key_file,
    )


def check_files(source: str, table: str, fleet: FleetConfig, port: PortFiles | None) -> None:
    """Load all of them once, so that what is wrong is told before anything starts.

    Raises:
        ConfigError: a file cannot be used.
    """
    callers = caller_files(fleet)
    loads: list[tuple[str, Callable[[], Tls]]] = []
    if callers.paths:
        loads.append(("fleet", callers.load))
    if port is not None:
        loads.append((table, port.load))
    faults = []
    for name, load in loads:
        try:
            load()
        except TlsError as error:
            faults.append(f"{source}: [{name}] {error}")
    if faults:
        raise ConfigError("\n".join(faults))
