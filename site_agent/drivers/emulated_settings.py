"""What the process of the fake hardware is told of its site. Pure, but for this agent's own process id."""

from __future__ import annotations

import os

from fleet.profile import PerformanceProfile
from site_agent.drivers.interface import DriverContext
from site_agent.drivers.options import EmulatedOptions
from site_agent.emulation.config import EngineSettings, HostSettings

POWER_LOG_NAME = "fake-power.csv"
ASSUMED = ("assumed_stopped_watts", "assumed_idle_watts", "assumed_busy_watts")


def host_settings(
    context: DriverContext, options: EmulatedOptions, profile: PerformanceProfile
) -> HostSettings:
    """Of all the site's engines; `profile` is that of its hardware."""
    degree = profile.tensor_parallel_degree

    def reference(one: PerformanceProfile) -> str:
        return context.profile_references.get(one.profile_id, one.profile_id)

    return HostSettings(
        site_id=context.site_id,
        model=options.model,
        profile=reference(profile),
        engines=tuple(
            EngineSettings(
                instance_id=spec.instance_id,
                port=spec.port,
                gpu_indices=spec.gpu_indices or tuple(range(spec.index * degree, (spec.index + 1) * degree)),
                profile=(
                    None
                    if spec.tensor_parallel_degree in (0, degree)
                    else reference(context.profiles[spec.tensor_parallel_degree])
                ),
                max_concurrency=context.max_concurrency.get(spec.tensor_parallel_degree),
            )
            for spec in context.specs
        ),
        max_concurrency=options.max_concurrency,
        start_seconds=options.start_seconds,
        overhead_ratio=context.power_model.overhead_ratio,
        host_idle_watts=context.power_model.host_idle_watts,
        power_log=(options.power_log or context.state_dir / POWER_LOG_NAME).absolute(),
        seed=options.seed,
        power_lag_seconds=options.power_lag_seconds,
        power_noise_ratio=options.power_noise_ratio,
        parent_pid=os.getpid(),
        **{name: getattr(options, name) for name in ASSUMED if name in options.model_fields_set},
    )
