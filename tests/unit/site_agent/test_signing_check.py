"""What the doctor says of signed records."""

from __future__ import annotations

from pathlib import Path

from support.signing_keys import SigningKeys

from fleet.config import FleetConfig
from site_agent import signing_check
from site_agent.config import SiteConfig

KEYS = SigningKeys()


def said(fleet: FleetConfig, directory: Path, key: Path | None = None) -> list[tuple[str, str]]:
    site = SiteConfig(site_id="north", farm_id="f", state_dir=directory, signing_key_file=key)
    return [(one.status, one.message) for one in signing_check.examine(fleet, site)]


def test_without_keys_it_depends_on_where_redis_is(tmp_path: Path) -> None:
    """On one machine nobody else writes to it."""
    for url in ("redis://127.0.0.1:6379/0", "redis://localhost/0", "unix:///run/redis.sock"):
        assert said(FleetConfig(redis_url=url), tmp_path)[0][0] == "pass"
    [(status, message)] = said(FleetConfig(redis_url="redis://redis.example.org/0"), tmp_path)
    assert status == "warn"
    assert "more than the wind gives" in message


def test_with_keys(tmp_path: Path) -> None:
    """Whom it believes, and that its own key is its own."""
    fleet = FleetConfig(redis_url="redis://redis.example.org/0", trusted_keys=KEYS.trusted("north"))
    key = KEYS.write(tmp_path, "north")
    key.chmod(0o600)
    assert said(fleet, tmp_path, key) == [
        ("pass", "power is believed where its feed has signed it"),
        ("pass", f"this site signs with {key}"),
    ]
    key.chmod(0o644)
    assert said(fleet, tmp_path, key)[1][0] == "warn"
