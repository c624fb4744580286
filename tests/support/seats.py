"""Instances that take requests, without an engine."""

from __future__ import annotations

from fleet.instance import InstanceState
from gateway.upstream import Origin
from site_agent.instance import Instance
from support.fake_drivers import specs

ORIGIN = Origin.parse("http://127.0.0.1:1")


def ready_instances(count: int) -> tuple[Instance, ...]:
    """Instances `i0`, `i1`, …, all ready."""
    made = tuple(Instance(spec=spec) for spec in specs(count))
    for one in made:
        one.move(InstanceState.STARTING, 0.0)
        one.origin = ORIGIN
        one.move(InstanceState.READY, 0.0)
    return made
