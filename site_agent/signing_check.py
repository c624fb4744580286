"""What the doctor says of signed records: whom this site believes, and who would believe it.

A key that cannot be used, or that is not among those that are trusted, is told by the configuration.
"""

from __future__ import annotations

import stat
from urllib.parse import urlsplit

from fleet.config import FleetConfig
from fleet.signing_keys import trust_of
from site_agent.config import SiteConfig, is_loopback
from site_agent.promises import Finding

CHECK = "signed records"
TURN_ON = "docs/records.md, Signed records"
NOT_BELIEVED = "its signing_key_file, and [fleet.trusted_keys] power_feed here"


def examine(fleet: FleetConfig, config: SiteConfig) -> list[Finding]:
    """Of the feed's readings, and of the site's own key."""
    found = [_readings(fleet)]
    path = config.signing_key_file
    if path is None:
        return found
    if path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        message = f"{path}: everybody on this machine may read it, and speak for this site"
        found.append(Finding(check=CHECK, status="warn", message=message, action=f"chmod o-rwx {path}"))
    else:
        found.append(Finding(check=CHECK, status="pass", message=f"this site signs with {path}"))
    return found


def _readings(fleet: FleetConfig) -> Finding:
    if trust_of(fleet).asks("power_feed"):
        return Finding(check=CHECK, status="pass", message="power is believed where its feed has signed it")
    parts = urlsplit(fleet.redis_url)
    if parts.scheme == "unix" or is_loopback(parts.hostname or ""):
        return Finding(check=CHECK, status="pass", message="none; Redis is on this machine")
    message = "none: whoever can write to Redis can grant this site more than the wind gives"
    return Finding(check=CHECK, status="warn", message=message, action=TURN_ON)
