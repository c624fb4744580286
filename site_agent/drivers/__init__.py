"""Engine and GPU drivers, one module per kind; `interface` says what one is."""

from __future__ import annotations

import importlib

from site_agent.drivers.interface import DriverContext, DriverError, Drivers

KINDS = {
    "emulated": "site_agent.drivers.emulated",
    "external": "site_agent.drivers.external",
    "vllm": "site_agent.drivers.vllm",
}
"""`[sites.engine] kind` → the module that has `create`; imported only where it is used."""


def create(context: DriverContext) -> Drivers:
    """The drivers of the configured kind.

    Raises:
        DriverError: they cannot be had here.
    """
    kind = context.options.kind
    try:
        module = importlib.import_module(KINDS[kind])
    except ImportError as error:
        raise DriverError("not_installed", f"engine kind {kind!r}: {error}") from error
    drivers = module.create(context)
    assert isinstance(drivers, Drivers)
    return drivers
