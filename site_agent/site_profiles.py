"""The performance profiles of one site's `[sites.engine]`: which, read once, and whether they agree.

Rule: everything is found and checked when the configuration is read, so that an agent starts with a profile
it can use or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet.profile import PROFILES, PerformanceProfile
from fleet.profile_file import Profiles, is_file, placed
from fleet.profiles.measured_watts import AssumedWatts
from site_agent.drivers.options import EmulatedOptions, EngineOptions
from site_agent.site_model import assumed_profile

PROFILE_KEYS = ("profile", "other_profiles", "hardware_profile")


@dataclass(slots=True, kw_only=True)
class SiteProfiles:
    """Of one engine table."""

    engine: EngineOptions
    _profiles: Profiles = field(init=False)

    def __post_init__(self) -> None:
        self._profiles = Profiles(assumed=assumed_watts(self.engine))

    @property
    def own(self) -> PerformanceProfile:
        """Of the site's own tensor-parallel degree; assumed figures where the hardware is unknown."""
        engine = self.engine
        if engine.profile is not None:
            return self._profiles.find(engine.profile)
        return assumed_profile(
            model=engine.model,
            stopped_watts=engine.assumed_stopped_watts,
            idle_watts=engine.assumed_idle_watts,
            busy_watts=engine.assumed_busy_watts,
        )

    def others(self) -> tuple[PerformanceProfile, ...]:
        """Of `other_tensor_parallel_degrees`, in their order.

        Raises:
            ValueError: there is none for a degree; the message says for which there are.
        """
        own = self.own
        known = {
            one.tensor_parallel_degree: one
            for one in (*PROFILES.values(), own, *map(self._profiles.find, self.engine.other_profiles))
            if (one.model, one.gpu_model) == (own.model, own.gpu_model)
        }
        found: list[PerformanceProfile] = []
        for degree in self.engine.other_tensor_parallel_degrees:
            if degree not in known:
                raise ValueError(
                    f"engine.other_tensor_parallel_degrees: no profile of {own.model} on {own.gpu_model} at "
                    f"{degree}; there are {', '.join(map(str, sorted(known)))}; files: engine.other_profiles"
                )
            found.append(known[degree])
        return tuple(found)

    def references(self) -> dict[str, str]:
        """Name or file of each profile that the table names, by the profile's id."""
        return {self._profiles.find(reference).profile_id: reference for _, reference in self._named()}

    def warnings(self) -> list[str]:
        """What an operator must know at start of each profile that the table names."""
        return [
            f"engine.{key}: no watts were measured in {reference}: the cap holds only as far as "
            "assumed_idle_watts and assumed_busy_watts are right"
            for key, reference in self._named()
            if self._profiles.find(reference).has_assumed_watts
        ]

    def check(self) -> None:
        """Find them all.

        Raises:
            ValueError: one cannot be used, or they do not agree with the table; which key, and why.
        """
        for key, reference in self._named():
            try:
                self._profiles.find(reference)
            except ValueError as error:
                raise ValueError(f"engine.{key}: {error}") from None
        self._check_degree()
        self._check_layouts()

    def _named(self) -> list[tuple[str, str]]:
        """Key, and name or file."""
        engine = self.engine
        found = [] if engine.profile is None else [("profile", engine.profile)]
        found += [("other_profiles", reference) for reference in engine.other_profiles]
        if isinstance(engine, EmulatedOptions) and engine.hardware_profile is not None:
            found.append(("hardware_profile", engine.hardware_profile))
        return found

    def _check_degree(self) -> None:
        engine, degree = self.engine, self.own.tensor_parallel_degree
        if isinstance(engine, EmulatedOptions):
            if engine.hardware_profile is None:
                return
            if engine.other_tensor_parallel_degrees:
                raise ValueError("engine.hardware_profile: not together with other_tensor_parallel_degrees")
            if self._profiles.find(engine.hardware_profile).tensor_parallel_degree != degree:
                raise ValueError(f"engine.hardware_profile: must be of tensor-parallel {degree}, as profile")
            return
        if engine.profile is None or not is_file(engine.profile):
            return
        if engine.gpus_per_instance not in (0, degree):
            raise ValueError(
                f"engine.profile: {engine.profile} was measured at tensor-parallel {degree}, "
                f"engine.gpus_per_instance is {engine.gpus_per_instance}: measure such an engine (--gpus)"
            )

    def _check_layouts(self) -> None:
        engine = self.engine
        degrees = engine.other_tensor_parallel_degrees
        if engine.other_max_concurrency and len(engine.other_max_concurrency) != len(degrees):
            raise ValueError(
                f"engine.other_max_concurrency has {len(engine.other_max_concurrency)} values for "
                f"{len(degrees)} other_tensor_parallel_degrees"
            )
        if not degrees:
            return
        if engine.profile is None:
            raise ValueError("engine.other_tensor_parallel_degrees needs engine.profile")
        gpus = engine.instances * self.own.tensor_parallel_degree
        if len({*degrees, self.own.tensor_parallel_degree}) != len(degrees) + 1:
            raise ValueError("engine.other_tensor_parallel_degrees: a degree is given twice")
        for degree in degrees:
            if gpus % degree:
                raise ValueError(
                    f"engine.other_tensor_parallel_degrees: {degree} does not divide {gpus} GPUs"
                )
        self.others()


def assumed_watts(engine: EngineOptions) -> AssumedWatts:
    """What the table says itself; a default is nobody's word."""
    said = {name: getattr(engine, name) for name in engine.model_fields_set}
    return AssumedWatts(
        stopped=said.get("assumed_stopped_watts"),
        idle=said.get("assumed_idle_watts"),
        busy=said.get("assumed_busy_watts"),
    )


def with_profile_paths(engine: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """A raw engine table, its profile files relative to the configuration file's directory.

    Raises:
        ValueError: a path that cannot be; which key, and why.
    """

    def at_place(key: str, value: Any) -> Any:
        if isinstance(value, list):
            return [at_place(key, one) for one in value]
        try:
            return placed(value, directory) if isinstance(value, str) else value
        except ValueError as error:
            raise ValueError(f"engine.{key}: {error}") from None

    return {key: at_place(key, value) if key in PROFILE_KEYS else value for key, value in engine.items()}
