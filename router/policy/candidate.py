"""What a policy weighs: a site that passed the filter of `router.policy.dispatch`. Pure."""

from __future__ import annotations

from typing import NamedTuple

from router.policy.load import Load
from router.policy.snapshot import Freshness, ModelView


class Candidate(NamedTuple):
    """One site (a tuple: several are made per request)."""

    view: ModelView
    room_requests: float
    """Further requests that fit there, less what this router sent since the last report; at least 1."""
    freshness: Freshness
    load: Load
    """What this router itself knows of the site."""
