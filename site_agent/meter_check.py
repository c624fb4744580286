"""`heron doctor`'s look at the site's meter: asked once, and held against what the GPUs draw."""

from __future__ import annotations

from fleet.config import ConfigError
from site_agent.meter_options import MeterOptions
from site_agent.promises import Finding
from site_agent.site_meter import HttpMeter, MeterError

NAME = "site meter"


async def examine(options: MeterOptions | None, gpu_watts: float | None) -> list[Finding]:
    """One finding; none where the site has no meter. `gpu_watts`: of the GPUs together, None: unknown."""
    if options is None:
        return []
    try:
        meter = HttpMeter(options)
    except ConfigError as error:
        return [Finding(check=NAME, status="fail", message=str(error), action="[sites.meter] password_file")]
    try:
        watts = await meter.read()
    except MeterError as error:
        action = "[sites.meter] url, path; without an answer the draw is the GPUs', or modelled"
        return [Finding(check=NAME, status="fail", message=str(error), action=action)]
    finally:
        await meter.aclose()
    said = f"{watts:.0f} W now"
    if gpu_watts is not None and watts < gpu_watts:
        return [
            Finding(
                check=NAME,
                status="fail",
                message=f"{said}, and the GPUs alone draw {gpu_watts:.0f} W",
                action="[sites.meter] unit and path; is it the meter of this server's whole supply?",
            )
        ]
    return [Finding(check=NAME, status="pass", message=f"{said}, late by {options.lag_seconds:g} s at most")]
