"""A site agent's ingress over engines that are the fast upstream: `python -m … PORT UPSTREAM_PORT...`.

The ingress, its forwarding, admission and metrics' counts are the agent's own; left out are the power loop
and the engine processes, which no request waits for.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from contextlib import ExitStack

import uvloop

from benchmarks.router.heron import MODEL, own_version
from benchmarks.router.peers import Launch, Peer, Place
from fleet.instance import InstanceState
from gateway.api_paths import PATHS
from gateway.server import HttpServer
from gateway.upstream import Origin, UpstreamPool
from site_agent.admission import Admission
from site_agent.drivers.interface import InstanceSpec
from site_agent.forwarding import Forwarder
from site_agent.held_responses import HeldResponses
from site_agent.ingress import Ingress
from site_agent.instance import Instance
from site_agent.limits import Limits
from site_agent.slots import Slots

MAX_CONCURRENCY = 128
"""Of each engine: 200 streams and 64 requests fit."""


async def serve(port: int, upstream_ports: list[int]) -> None:
    """Forward until killed."""
    instances = tuple(
        Instance(
            spec=InstanceSpec(
                instance_id=f"bench-{index}", index=index, port=engine_port, model=MODEL, gpu_indices=()
            ),
            state=InstanceState.READY,
            origin=Origin.of("http", "127.0.0.1", engine_port),
        )
        for index, engine_port in enumerate(upstream_ports)
    )
    admission = Admission(
        slots=Slots(
            seats=instances,
            limits=Limits(max_concurrency=MAX_CONCURRENCY),
            resume_reserve_ratio=0.1,
            start_seconds=30.0,
        )
    )
    outcomes: Counter[str] = Counter()
    responses = HeldResponses(instances=instances, clock=asyncio.get_running_loop().time)
    ingress = Ingress(
        admission=admission,
        forwarder=Forwarder(
            admission=admission,
            note_opening=responses.learn,
            upstream=UpstreamPool(),
            request_timeout_seconds=600.0,
            max_answer_bytes=64 << 20,
        ),
        site_token=None,
        engine_paths=lambda: tuple(PATHS),
        responses=responses,
        models=lambda: b"{}",
        report=lambda: b"{}",
        count=lambda outcome: outcomes.update((outcome,)),
        count_pushback=lambda reason: outcomes.update((reason,)),
    )
    server = HttpServer(hot=ingress.route, port=port)
    await server.start()
    await asyncio.Event().wait()


def launch(place: Place, _stack: ExitStack) -> Launch:
    """This module as a program."""
    ports = [str(port) for port in (place.port, *place.upstream_ports)]
    return Launch(command=[sys.executable, "-m", "benchmarks.router.site_ingress", *ports])


SITE_INGRESS = Peer(name="heron-site-ingress", launch=launch, version=own_version)


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), [int(port) for port in sys.argv[2:]]))
