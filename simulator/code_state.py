"""Which state of the code a result belongs to: a hash over the sources that can change it.

Finer than a commit where only documents changed, and right where the working tree differs from any commit.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

PACKAGES = ("fleet", "power_feed", "replay", "router/policy", "site_agent", "simulator")
UNRELATED = frozenset({"report.py", "plots.py", "html.py", "batch.py", "cache.py"})
"""Of the simulator: they show results, or find cells to run."""


@lru_cache(maxsize=1)
def code_state() -> str:
    """The same string for the same sources."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            if package == "simulator" and path.name in UNRELATED:
                continue
            digest.update(str(path.relative_to(root)).encode() + b"\0")
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
