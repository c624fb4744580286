"""The profiles there are, by name, and what a whole site draws. Pure.

The door to profiles: services import from here. What a profile is stands in `fleet.performance`, where the
default's figures come from in `fleet.profiles`, how well it fits in docs/profiles.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleet.performance import UNKNOWN_KV_TOKENS, ClockModel, PerformanceProfile, ProfileRow
from fleet.profiles.llama_70b_h100 import build_all
from fleet.records import SiteInfo

__all__ = [
    "LLAMA_70B_H100_TP2",
    "LLAMA_70B_H100_TP4",
    "LLAMA_70B_H100_TP8",
    "PROFILES",
    "UNKNOWN_KV_TOKENS",
    "ClockModel",
    "PerformanceProfile",
    "ProfileRow",
    "SitePowerModel",
    "profile_of",
]

PROFILES: dict[str, PerformanceProfile] = build_all()
"""By profile id. Llama-3.1-70B on H100: published figures at full clock, the rest modelled and marked so."""

LLAMA_70B_H100_TP2 = PROFILES["llama-3.1-70b/h100/tp2"]
LLAMA_70B_H100_TP4 = PROFILES["llama-3.1-70b/h100/tp4"]
LLAMA_70B_H100_TP8 = PROFILES["llama-3.1-70b/h100/tp8"]


def profile_of(info: SiteInfo, profile_id: str | None) -> PerformanceProfile | None:
    """What a site reckons its engines with: by its own word, else the shipped one of that name.

    None: it names none, or one that nobody here knows. A site's word counts for that site alone.
    """
    if profile_id is None:
        return None
    for one in info.profiles:
        if one.profile_id == profile_id:
            return one.profile
    return PROFILES.get(profile_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePowerModel:
    """What a whole site draws: GPUs × overhead + hosts."""

    overhead_ratio: float = 1.1
    host_idle_watts: float = 0.0
    """Hosts, switches and the agent itself, before overhead."""

    def site_watts(self, gpu_watts: float) -> float:
        """Draw of the site when all its GPUs together draw `gpu_watts`."""
        return (gpu_watts + self.host_idle_watts) * self.overhead_ratio
