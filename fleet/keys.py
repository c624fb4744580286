"""Names of the Redis keys and channels of DESIGN §4. One fleet, one prefix, written nowhere else."""

from __future__ import annotations

import re
from dataclasses import dataclass

FLEET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""What a fleet, site, farm or feed may be called: it becomes part of keys, URLs and metric labels."""


def is_name(text: str) -> bool:
    """Whether `text` may name a fleet, site, farm or feed."""
    return FLEET_NAME.fullmatch(text) is not None


KEY_ID = re.compile(r"[0-9a-f]{64}")
"""A SHA-256 in hex."""


def is_key_id(text: str) -> bool:
    """Whether `text` may stand for an API key."""
    return KEY_ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Every key and channel of one fleet."""

    fleet: str = "default"

    def __post_init__(self) -> None:
        if not is_name(self.fleet):
            raise ValueError(f"fleet name {self.fleet!r}: allowed is {FLEET_NAME.pattern}")

    @property
    def prefix(self) -> str:
        return f"heron:{self.fleet}:"

    def power(self, site_id: str) -> str:
        return f"{self.prefix}power:{site_id}"

    def power_log(self, site_id: str) -> str:
        return f"{self.prefix}power-log:{site_id}"

    def site_info(self, site_id: str) -> str:
        return f"{self.prefix}site-info:{site_id}"

    def site(self, site_id: str) -> str:
        return f"{self.prefix}site:{site_id}"

    def cordon(self, site_id: str) -> str:
        return f"{self.prefix}cordon:{site_id}"

    @property
    def sites(self) -> str:
        return f"{self.prefix}sites"

    @property
    def plan(self) -> str:
        return f"{self.prefix}plan"

    @property
    def planner_lease(self) -> str:
        return f"{self.prefix}planner-lease"

    def router(self, router_id: str) -> str:
        return f"{self.prefix}router:{router_id}"

    def api_key(self, sha256_hex: str) -> str:
        return f"{self.prefix}key:{sha256_hex}"

    @property
    def quotas(self) -> str:
        return f"{self.prefix}quotas"

    def power_channel(self, site_id: str) -> str:
        return f"{self.prefix}events:power:{site_id}"

    @property
    def power_channel_pattern(self) -> str:
        """Every site's power channel, for `PSUBSCRIBE`."""
        return f"{self.prefix}events:power:*"

    @property
    def site_channel(self) -> str:
        return f"{self.prefix}events:site"

    @property
    def plan_channel(self) -> str:
        return f"{self.prefix}events:plan"
