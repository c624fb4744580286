"""What a request is promised: its class's SLO, or so many times what it takes alone. Pure.

`[router.slo.CLASS]` wins over `slo_factor`. The factor is of one request alone on the fastest configuration
that any site of its model announces, at full clock (`fleet.capacity.reference_slo`), its sizes taken to
within a step (`site_rate.work_step`). Of a model whose sites announce no profile nothing is promised.
`flex` is promised nothing at all.
"""

from __future__ import annotations

from collections.abc import Mapping

from fleet.capacity import reference_slo
from fleet.profile import PerformanceProfile, profile_of
from fleet.request import ClassSlo, RequestClass, RequestFeatures
from router.policy.site_rate import work_of, work_step
from router.policy.snapshot import Snapshot

LOOK_SECONDS = 10.0
"""What sites announce is looked at so often."""
MAX_PROFILES = 64
"""Of one model; a request of a new size looks at each of them. Sites are asked in order of name."""
MAX_MODELS = 256
"""Sites may name any; beyond that all are looked at anew."""


class _Model:
    """The profiles of one model, and what follows from them."""

    __slots__ = ("looked_at", "profiles", "slos")

    def __init__(self, profiles: frozenset[PerformanceProfile], looked_at: float) -> None:
        self.profiles = profiles
        self.looked_at = looked_at
        self.slos: dict[int, ClassSlo] = {}
        """By `work_step`."""


class Promises:
    """One per process."""

    def __init__(self, by_class: Mapping[RequestClass, ClassSlo], factor: float | None) -> None:
        self._by_class = by_class
        self._factor = factor
        self._models: dict[str, _Model] = {}

    def __bool__(self) -> bool:
        """Whether anything is promised to anybody."""
        return bool(self._by_class) or self._factor is not None

    def of(self, features: RequestFeatures, snapshot: Snapshot, now: float) -> ClassSlo | None:
        """What this request is promised; None: nothing."""
        if features.tier == "flex":
            return None
        own = self._by_class.get(features.request_class)
        if own is not None or self._factor is None:
            return own
        known = self._model(features.model, snapshot, now)
        if not known.profiles:
            return None
        step = work_step(features.prompt_tokens, features.expected_output_tokens)
        slo = known.slos.get(step)
        if slo is None:
            # by name: of two that are alike the same one, in every process
            profiles = sorted(known.profiles, key=lambda one: one.profile_id)
            found = reference_slo(profiles, work_of(step), self._factor)
            slo = ClassSlo(ttft_seconds=found.ttft_seconds, e2e_seconds=found.e2e_seconds)
            known.slos[step] = slo
        return slo

    def _model(self, model: str, snapshot: Snapshot, now: float) -> _Model:
        kept = self._models.get(model)
        if kept is not None and 0.0 <= now - kept.looked_at < LOOK_SECONDS:
            return kept
        profiles = _profiles(model, snapshot)
        if kept is not None and kept.profiles == profiles:
            kept.looked_at = now
            return kept
        if len(self._models) >= MAX_MODELS:
            self._models.clear()
        made = self._models[model] = _Model(profiles, now)
        return made


def _profiles(model: str, snapshot: Snapshot) -> frozenset[PerformanceProfile]:
    found = set()
    for view in snapshot.models.get(model, ()):
        site = snapshot.sites.get(view.site_id)
        info = None if site is None else site.info
        if info is None:
            continue
        for one in info.configurations:
            if one.model == model and (profile := profile_of(info, one.profile_id)) is not None:
                found.add(profile)
                if len(found) == MAX_PROFILES:
                    return frozenset(found)
    return frozenset(found)
