"""From one configuration file to the services that make a fleet, ready for the supervisor.

Rule: everything that can be wrong in the file is found before the first process starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cli.ports import LOOPBACK
from cli.supervisor import Service
from fleet.config import ConfigError, FleetConfig, read_file, without_password
from fleet.redis_server import RedisServerMissingError, find_redis_server
from power_feed import config as feed_config
from router import config as router_config
from site_agent import config as site_config

ROUTER = "router"
POWER_FEED = "power-feed"
REDIS = "redis"
STOP_MARGIN_SECONDS = 5.0
"""On top of a service's own grace before the supervisor loses patience."""
FEED_STOP_SECONDS = 5.0
REDIS_STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """What runs, in the order of stages, and where people and programs reach it."""

    stages: tuple[tuple[Service, ...], ...]
    fleet: FleetConfig
    router: router_config.RouterConfig
    feed: feed_config.FeedConfig | None
    sites: tuple[site_config.SiteConfig, ...]

    @property
    def base_url(self) -> str:
        """The OpenAI API."""
        return _url(self.router.host, self.router.port, "/v1", is_tls=self.router.speaks_tls)

    @property
    def operations_url(self) -> str:
        """The router's operations port."""
        return f"http://{_reachable(self.router.operations_host)}:{self.router.operations_port}"

    @property
    def console_url(self) -> str:
        """The router's console, for a browser."""
        return f"{self.operations_url}/"


def site_agent_name(site_id: str) -> str:
    """What the supervisor calls a site's agent."""
    return f"site-agent {site_id}"


def build_topology(path: Path, environment: Mapping[str, str], *, redis: Service | None) -> Topology:
    """Read and check the whole file. `redis`: the Redis to start with it, None where one runs already.

    Stages: Redis, the feed, the agents, the router; so the router stops first and Redis last.

    Raises:
        ConfigError: a fault in any service's table, a port that is 0 or used twice.
    """
    tables = read_file(path)
    fleet, router = router_config.load(path, environment)
    names = [entry.get("site_id") for entry in tables.get("sites", []) if isinstance(entry, Mapping)]
    if not names:
        raise ConfigError(f"{path}: [[sites]] is missing: a fleet needs at least one site")
    sites = tuple(site_config.load(path, str(name), environment)[1] for name in names)
    feed = feed_config.load(path, environment)[1] if "power_feed" in tables else None
    _check_ports(path, router, feed, sites)
    stages = [
        () if redis is None else (redis,),
        () if feed is None else (_feed_service(path, feed),),
        tuple(_site_service(path, site) for site in sites),
        (_router_service(path, router),),
    ]
    return Topology(
        stages=tuple(stage for stage in stages if stage), fleet=fleet, router=router, feed=feed, sites=sites
    )


def _router_service(path: Path, router: router_config.RouterConfig) -> Service:
    return Service(
        name=ROUTER,
        arguments=("router", "--config", str(path)),
        ready_url=_url(router.operations_host, router.operations_port, "/healthz"),
        stop_grace_seconds=router.shutdown_delay_seconds
        + router.shutdown_grace_seconds
        + STOP_MARGIN_SECONDS,
    )


def _site_service(path: Path, site: site_config.SiteConfig) -> Service:
    return Service(
        name=site_agent_name(site.site_id),
        arguments=("site-agent", "--config", str(path), "--site", site.site_id),
        ready_url=_url(site.operations_host, site.operations_port, "/healthz"),
        stop_grace_seconds=site.shutdown_grace_seconds + STOP_MARGIN_SECONDS,
    )


def _feed_service(path: Path, feed: feed_config.FeedConfig) -> Service:
    return Service(
        name=POWER_FEED,
        arguments=("power-feed", "--config", str(path)),
        ready_url=_url(feed.host, feed.port, "/healthz", is_tls=feed.speaks_tls),
        stop_grace_seconds=FEED_STOP_SECONDS,
    )


def redis_service(url: str, directory: Path) -> Service:
    """A `redis-server` for this fleet alone: on loopback, in memory, nothing written to disk.

    Raises:
        ConfigError: the URL is not one that a server can be started for here, or there is no server.
    """
    parts = urlsplit(url)
    if parts.scheme != "redis" or not is_local(url):
        raise ConfigError(
            f"[fleet] redis_url = {without_password(url)!r}: a Redis can only be started here at "
            "redis://127.0.0.1:PORT"
        )
    try:
        command = find_redis_server()
    except RedisServerMissingError as error:
        raise ConfigError(str(error)) from None
    return Service(
        name=REDIS,
        arguments=(
            str(command),
            *("--bind", LOOPBACK, "--port", str(parts.port or 6379)),
            *("--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", str(directory)),
        ),
        ready_url=url,
        stop_grace_seconds=REDIS_STOP_SECONDS,
        is_heron=False,
        is_awaited=True,
    )


def is_local(url: str) -> bool:
    """Whether a URL names this machine's loopback."""
    return urlsplit(url).hostname in (LOOPBACK, "localhost", "::1")


def _check_ports(
    path: Path,
    router: router_config.RouterConfig,
    feed: feed_config.FeedConfig | None,
    sites: tuple[site_config.SiteConfig, ...],
) -> None:
    """Fixed and distinct: the supervisor polls them, and two services on one port would be found late."""
    used: dict[int, str] = {}
    named = [("[router] port", router.port), ("[router] operations_port", router.operations_port)]
    named += [] if feed is None else [("[power_feed] port", feed.port)]
    for site in sites:
        named += [(f"[sites.{site.site_id}] port", site.port)]
        named += [(f"[sites.{site.site_id}] operations_port", site.operations_port)]
    for name, port in named:
        if port == 0:
            raise ConfigError(f"{path}: {name} = 0: a fleet run from one file needs a fixed port, 1 to 65535")
        if port in used:
            raise ConfigError(f"{path}: {name} = {port}: {used[port]} has this port already")
        used[port] = name


def _url(host: str, port: int, route: str, *, is_tls: bool = False) -> str:
    return f"{'https' if is_tls else 'http'}://{_reachable(host)}:{port}{route}"


def _reachable(host: str) -> str:
    """A host to connect to, where the configuration has one to listen on."""
    if host in ("0.0.0.0", ""):  # noqa: S104 -- compared, not bound
        return LOOPBACK
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host
