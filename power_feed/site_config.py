"""`[[power_feed.farms.sites]]`: the sites of a farm that feeds several, one entry per server.

    [[power_feed.farms]]
    farm_id = "coast-farm"
    nameplate_watts = 60_000.0
    source = { kind = "csv", path = "Wind_data.csv", column = "Area1" }
    [[power_feed.farms.sites]]
    site_id = "coast-1"
    [[power_feed.farms.sites]]
    site_id = "coast-2"

What is left out is taken from the `[[sites]]` entry of that name where the same file has one, else from what
the site's agent says of itself (SiteInfo).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from fleet.config import ConfigModel
from fleet.keys import FLEET_NAME
from power_feed.claims import DEFAULT_MARGIN_RATIO, SiteTerms
from power_feed.server_config import ServerConfig

MAX_SITES_PER_FARM = 256
MAX_SITE_WATTS = 1e9

Name = Annotated[str, Field(pattern=f"^{FLEET_NAME.pattern}$")]
SiteWatts = Annotated[float, Field(ge=0, le=MAX_SITE_WATTS)]

ANY_ADDRESS = ("0.0.0.0", "::", "")  # noqa: S104 -- compared, not bound


class FarmSite(ConfigModel):
    """One server of a farm, with an agent of its own."""

    site_id: Name
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """Lower is given power first; equal ones in the order of the file. A plan's shares come before it."""
    margin_ratio: Annotated[float, Field(ge=0, lt=1)] = DEFAULT_MARGIN_RATIO
    """That its agent takes off the grant."""
    server_idle_watts: SiteWatts | None = None
    """Drawn with every engine stopped; None: as its SiteInfo says."""
    max_site_watts: SiteWatts | None = None
    """Most that it may draw; None: as its SiteInfo says."""
    safe_floor_watts: SiteWatts | None = None
    """Its firm power; None: as its SiteInfo says."""
    ingress_url: Annotated[str, Field(pattern=r"^https?://[^/]+$", max_length=512)] | None = None
    """Where its agent is asked for its report while Redis is silent; None: it is not asked."""

    server: ServerConfig | None = None
    """How its whole server is switched off and on; None: that is never done."""

    @field_validator("ingress_url")
    @classmethod
    def _has_a_host(cls, url: str | None) -> str | None:
        if url is not None and not urlsplit(url).hostname:
            raise ValueError("must be scheme://host:port without a path")
        return url

    def terms(self) -> SiteTerms:
        """For the allocator."""
        return SiteTerms(
            site_id=self.site_id,
            priority=self.priority,
            margin_ratio=self.margin_ratio,
            server_idle_watts=self.server_idle_watts,
            max_site_watts=self.max_site_watts,
            safe_floor_watts=self.safe_floor_watts,
        )


def known_of_sites(tables: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What the `[[sites]]` of the same file say that a feed wants to know, by site; faults are left to the
    agent.
    """
    known: dict[str, dict[str, Any]] = {}
    for entry in tables.get("sites", []):
        if not isinstance(entry, Mapping) or not isinstance(entry.get("site_id"), str):
            continue
        values = {
            key: entry[key]
            for key in ("margin_ratio", "max_site_watts", "safe_floor_watts")
            if isinstance(entry.get(key), int | float)
        }
        host, port = entry.get("host", "127.0.0.1"), entry.get("port")
        if isinstance(entry.get("ingress_url"), str):
            values["ingress_url"] = entry["ingress_url"].rstrip("/")
        elif isinstance(host, str) and host not in ANY_ADDRESS and isinstance(port, int) and port > 0:
            scheme = "https" if "tls_certificate_file" in entry else "http"
            values["ingress_url"] = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        known[entry["site_id"]] = values
    return known
