"""`[sites.meter]`: a meter of the whole site's power that answers JSON over HTTP.

[sites.meter]
url = "https://10.0.0.9/redfish/v1/Chassis/1/Power"    # the server's own management controller, or
path = "PowerControl.0.PowerConsumedWatts"             # a meter in the supply
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from fleet.config import ConfigModel

WATTS: Mapping[str, float] = {"W": 1.0, "kW": 1e3, "mW": 1e-3}
_CREDENTIALS = re.compile(r"^https?://[^/?#]*@")


class MeterOptions(ConfigModel):
    """One number, asked for again and again."""

    url: Annotated[str, Field(pattern=r"^https?://[^/\s]+", max_length=512)]
    path: Annotated[str, Field(min_length=1, max_length=256)]
    """Names and list positions to the number, with dots between them."""
    unit: Literal["W", "kW", "mW"] = "W"
    period_seconds: Annotated[float, Field(ge=0.1, le=10)] = 0.5
    """Between two questions."""
    timeout_seconds: Annotated[float, Field(gt=0, le=10)] = 1.0
    max_age_seconds: Annotated[float, Field(gt=0, le=60)] = 3.0
    """A value older than that counts no more: the draw is then the GPUs', or modelled."""
    lag_seconds: Annotated[float, Field(ge=0, le=60)] = 1.0
    """How late the meter shows a change: what it averages over, and how often it measures."""
    username: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    password_file: Path | None = None
    """A file with the password alone; relative to the configuration file. Read at start."""
    verify_tls: bool = True
    """False for a controller whose certificate is its own, on a network that you trust."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if _CREDENTIALS.match(self.url):
            raise ValueError("url: name and password go into username and password_file")
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username and password_file go together")
        if self.max_age_seconds <= self.period_seconds:
            raise ValueError("max_age_seconds must be more than period_seconds")
        return self


def with_password_path(meter: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """A raw `[sites.meter]`, its file relative to the configuration file's directory."""
    value = meter.get("password_file")
    if not isinstance(value, str):
        return dict(meter)
    return {**meter, "password_file": str(directory / Path(value).expanduser())}
