"""What a worker is told first: who it is, and its configuration. Over the socket, so that the site token
stands in no command line and no environment.
"""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

from fleet.config import FleetConfig
from gateway.tls import CallerFiles
from router.config import RouterConfig


class WorkerSetup(BaseModel):
    """One worker's part of the configuration."""

    model_config = ConfigDict(frozen=True)

    index: int
    workers: int
    is_ipv6: bool
    """Family of the connections that are handed over."""
    log_level: str
    config: RouterConfig
    site_token: str | None
    max_clock_skew_seconds: float
    calls: CallerFiles
    """TLS towards sites."""

    @property
    def fleet(self) -> FleetConfig:
        """As much of `[fleet]` as a worker needs; it has nothing to do with Redis."""
        values: dict[str, Any] = {
            "max_clock_skew_seconds": self.max_clock_skew_seconds,
            "tls_ca_file": self.calls.ca,
            "tls_client_certificate_file": self.calls.certificate,
            "tls_client_key_file": self.calls.key,
        }
        if self.site_token is not None:
            values["site_token"] = self.site_token
        return FleetConfig.model_validate(values)

    @property
    def own_config(self) -> RouterConfig:
        """The configuration with its part of what may be held back: the bound is the router's."""
        held = -(-self.config.hold_requests // self.workers)
        paced = self.config.flex_requests_per_second / self.workers
        return self.config.model_copy(update={"hold_requests": held, "flex_requests_per_second": paced})

    def to_json(self) -> bytes:
        """For the SETUP frame."""
        return orjson.dumps(self.model_dump(mode="json"))
