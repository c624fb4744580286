"""Engines that somebody else runs: probed, admitted to, drained by refusing; no process is touched.

"Started" means that the agent admits to it, "stopped" that it does not. So stopping saves the watts of the
work, not those of the engine: the site's model has no state below "awake and empty" (`SiteConfig`). What
other clients send to such an engine is outside Heron's cap; the GPUs' meter, where NVML reads it, sees it.
"""

from __future__ import annotations

import logging

from gateway.api_paths import USUAL_PATHS
from gateway.upstream import Origin, UpstreamError
from site_agent import engine_metrics
from site_agent.drivers import gpus
from site_agent.drivers.interface import (
    DriverContext,
    DriverError,
    Drivers,
    EngineCapabilities,
    InstanceSpec,
)
from site_agent.drivers.options import ExternalOptions
from site_agent.drivers.probe import Description, Prober

logger = logging.getLogger(__name__)


def create(context: DriverContext) -> Drivers:
    """The driver registry's entry.

    Raises:
        DriverError: the options are another kind's, or the GPUs cannot be had.
    """
    if not isinstance(context.options, ExternalOptions):
        raise DriverError("failed", f"engine kind is {context.options.kind!r}, not 'external'")
    return Drivers(
        engines=ExternalEngines(context, context.options), gpus=gpus.create(context, context.options)
    )


class ExternalEngines:
    """EngineDriver without processes."""

    def __init__(self, context: DriverContext, options: ExternalOptions) -> None:
        key = options.engine_api_key
        bearer = () if key is None else ((b"authorization", b"Bearer " + key.get_secret_value().encode()),)
        self._model = options.model
        self._keeps_responses = options.keeps_responses
        self._origins = {
            spec.instance_id: Origin.parse(url) for spec, url in zip(context.specs, options.urls, strict=True)
        }
        self._prober = Prober(bearer)
        self._started: set[str] = set()
        self._seen: dict[str, tuple[int | None, Description]] = {}
        """Of each engine that was ready once since it was started: its longest context, its API."""
        self._faults: dict[str, str] = {}
        self._given_up: dict[str, float | None] = {}
        """Engines that were cut off, perhaps as hung, and the tokens that each had made at the last look."""

    async def open(self) -> None:
        """See EngineDriver. Nothing is shared; an engine that is down is waited for."""

    async def start(self, spec: InstanceSpec) -> str:
        """See EngineDriver: from now on it is probed, and admitted to once it is ready."""
        self._faults.pop(spec.instance_id, None)
        self._seen.pop(spec.instance_id, None)
        self._started.add(spec.instance_id)
        return str(self._origins[spec.instance_id])

    async def stop(self, instance_id: str, *, kill: bool = False) -> None:
        """See EngineDriver: the agent has stopped to admit, the engine is left alone."""
        self._started.discard(instance_id)
        if kill:
            self._given_up[instance_id] = None

    async def is_ready(self, instance_id: str) -> bool:
        """See EngineDriver. An engine that serves another model is not."""
        if instance_id not in self._started:
            return False
        origin = self._origins[instance_id]
        if not await self._prober.is_healthy(origin):
            return False
        if instance_id in self._given_up and not await self._works(instance_id, origin):
            return False
        if instance_id not in self._seen:
            return await self._learn(instance_id, origin)
        return True

    async def _works(self, instance_id: str, origin: Origin) -> bool:
        """One that was cut off is taken back once it has nothing to do, or makes tokens: vLLM that hangs says
        that it is healthy. One that does not count is believed.
        """
        try:
            status, page = await self._prober.get(origin, "/metrics")
        except UpstreamError:
            return False
        seen = engine_metrics.parse(page.decode("utf-8", "replace") if status == 200 else "")
        tokens = None if seen.output_tokens is None else seen.output_tokens + (seen.prompt_tokens or 0.0)
        before = self._given_up[instance_id]
        if tokens is not None and seen.running_requests and (before is None or tokens == before):
            self._given_up[instance_id] = tokens
            return False
        del self._given_up[instance_id]
        return True

    async def _learn(self, instance_id: str, origin: Origin) -> bool:
        try:
            cards = await self._prober.models(origin)
        except UpstreamError:
            return False
        names = [] if cards is None else [card.model for card in cards]
        if cards is not None and self._model not in names:
            self._faults[instance_id] = (
                f"{origin} serves {', '.join(names) or 'no model'}, not {self._model!r}: set engine.model to "
                "what it serves (`--served-model-name` of vLLM and SGLang)"
            )
            return False
        lengths = [card.max_model_len for card in cards or () if card.model == self._model]
        described = await self._prober.describe(origin, self._model)
        if described.is_answered:
            self._seen[instance_id] = lengths[0] if lengths else None, described
        return True

    def exit_reason(self, instance_id: str) -> str | None:
        """See EngineDriver: only for an engine of another model; one that is down fails its probes."""
        return self._faults.get(instance_id)

    def capabilities(self) -> EngineCapabilities:
        """See EngineDriver: what every engine seen so far can do."""
        seen = [self._seen[name] for name in self._origins if name in self._seen]
        if not seen:
            return EngineCapabilities(paths=USUAL_PATHS)
        lengths = [length for length, _ in seen if length is not None]
        inline_systems = {described.inline_system for _, described in seen}
        return EngineCapabilities(
            paths=tuple(
                path for path in seen[0][1].paths if all(path in described.paths for _, described in seen)
            ),
            token_ids=all(described.token_ids for _, described in seen),
            max_model_len=min(lengths) if lengths else None,
            keeps_responses=self._keeps_responses,
            inline_system=inline_systems.pop() if len(inline_systems) == 1 else None,
        )

    async def aclose(self, *, kill: bool = False) -> None:  # noqa: ARG002
        """See EngineDriver."""
        self._started.clear()
        await self._prober.aclose()
