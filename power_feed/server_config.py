"""`server` of a farm's site: how its whole server is switched off and on. Without it that is never done.

server = { kind = "redfish", system_url = "https://10.0.0.9/redfish/v1/Systems/1", username = "heron",
           password_file = "bmc-password" }
server = { kind = "wake_on_lan", mac = "00:1a:2b:3c:4d:5e",
           off_command = ["ssh", "coast-1", "(sleep 1; poweroff -f) >/dev/null 2>&1 &"] }
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fleet.config import ConfigError, ConfigModel
from power_feed.server_switch import SwitchRule
from power_feed.servers.interface import ServerDriver

MAX_PASSWORD_BYTES = 1024

Duration = Annotated[float, Field(ge=0, le=86_400)]


class _Switched(ConfigModel):
    """Times; why, see server_switch.py."""

    min_on_seconds: Duration = 300.0
    min_off_seconds: Duration = 120.0
    max_starts_per_hour: Annotated[int, Field(ge=1, le=60)] = 4
    firm_wait_seconds: Duration = 300.0
    """Where firm power covers the idle draw: a lull shorter than that switches nothing."""
    start_seconds: Duration = 600.0
    """From switching on to the first report. Without one the start has failed, and the next one waits."""

    def rule(self) -> SwitchRule:
        """For the decision."""
        return SwitchRule(
            min_on_seconds=self.min_on_seconds,
            min_off_seconds=self.min_off_seconds,
            max_starts_per_hour=self.max_starts_per_hour,
            firm_wait_seconds=self.firm_wait_seconds,
            start_seconds=self.start_seconds,
        )


class RedfishConfig(_Switched):
    """A management controller that speaks Redfish."""

    kind: Literal["redfish"]
    system_url: Annotated[str, Field(pattern=r"^https?://[^/]+/.+", max_length=512)]
    """Of the ComputerSystem resource."""
    username: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    password_file: Path | None = None
    """A file with the password alone; relative to the configuration file."""
    verify_tls: bool = True
    """False for a controller whose certificate is its own, on a network that you trust."""


class WakeOnLanConfig(_Switched):
    """A network card that wakes its server, and a command that stops it."""

    kind: Literal["wake_on_lan"]
    mac: Annotated[str, Field(pattern=r"^([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}$")]
    broadcast: Annotated[str, Field(min_length=1, max_length=64)] = "255.255.255.255"
    port: Annotated[int, Field(ge=1, le=65535)] = 9
    off_command: Annotated[tuple[str, ...], Field(min_length=1, max_length=64)]
    """A program and its arguments: it must have the power cut, and end with 0 before that happens."""
    off_seconds: Annotated[float, Field(ge=0, le=120)] = 10.0
    """From its end until the power is gone for certain; till then the server counts as drawing."""


ServerConfig = Annotated[RedfishConfig | WakeOnLanConfig, Field(discriminator="kind")]


def build_driver(config: RedfishConfig | WakeOnLanConfig, site_id: str) -> ServerDriver:
    """The switch of one site's server.

    Raises:
        ConfigError: its password cannot be read.
    """
    if isinstance(config, WakeOnLanConfig):
        from power_feed.servers.wake_on_lan import WakeOnLanServer

        return WakeOnLanServer(
            config.mac,
            broadcast=config.broadcast,
            port=config.port,
            off_command=config.off_command,
            off_seconds=config.off_seconds,
        )
    from power_feed.servers.redfish import RedfishServer

    password = None
    if config.password_file is not None:
        try:
            password = config.password_file.read_bytes()[:MAX_PASSWORD_BYTES].decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"[power_feed] site {site_id}: server.password_file: {error}") from None
    return RedfishServer(
        config.system_url, username=config.username, password=password, is_verified=config.verify_tls
    )
