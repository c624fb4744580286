"""The instances of a site in every layout that its GPUs can be run in. Pure.

Ids and order are stable: first the site's own tensor-parallel degree, `<site>-0`, `<site>-1`, … as ever; then
the others, `<site>-tp2-0`, …, ascending. Instance i of degree d has GPUs i·d … i·d + d − 1, so that instances
of one degree never share a GPU, and one of 4 shares its GPUs with exactly two of 2.
"""

from __future__ import annotations

from site_agent.drivers.interface import InstanceSpec
from site_agent.site_model import SiteModel


def instance_specs(
    site_id: str,
    model: SiteModel,
    *,
    model_name: str,
    first_port: int = 0,
    gpus_per_instance: int | None = None,
) -> tuple[InstanceSpec, ...]:
    """All of them; those that share GPUs never run together.

    `first_port` 0: free ports are chosen. `gpus_per_instance` of the own degree, where its profile does not
    say (0: no GPU is used); None: as many as its degree.
    """
    specs: list[InstanceSpec] = []
    for degree in (model.degree, *sorted(one.tensor_parallel_degree for one in model.other_profiles)):
        prefix = site_id if degree == model.degree else f"{site_id}-tp{degree}"
        gpus = degree if degree != model.degree or gpus_per_instance is None else gpus_per_instance
        for number in range(model.most(degree)):
            index = len(specs)
            specs.append(
                InstanceSpec(
                    instance_id=f"{prefix}-{number}",
                    index=index,
                    port=first_port + index if first_port else 0,
                    model=model_name,
                    gpu_indices=tuple(range(number * gpus, (number + 1) * gpus)),
                    tensor_parallel_degree=degree,
                )
            )
    return tuple(specs)
