"""`[router]` of the configuration file."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from fleet.config import (
    NO_FILE,
    ConfigError,
    ConfigModel,
    FleetConfig,
    Port,
    build,
    load_fleet,
    read_file,
    with_files,
)
from fleet.request import RequestClass
from fleet.signing_keys import check_signing
from gateway.tls_config import TlsPortConfig, check_files
from router.live.networks import Network
from router.parameter_file import read_parameters
from router.policy.policies import DEFAULT_POLICY, POLICIES, check_tables

MAX_WORKERS = 64
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9.\-\[\]:_]+(?<!/)")
Positive = Annotated[float, Field(gt=0, le=86_400)]


class SloConfig(ConfigModel):
    """What one request class is promised; left out: nothing."""

    ttft_seconds: Positive | None = None
    e2e_seconds: Positive | None = None


class PlannerConfig(ConfigModel):
    """`[router.planner]`: plans for the whole fleet; one router of those that share a Redis leads. Needs the
    extra `plan` (`pip install '.[plan]'` in a checkout); without it the router says so and goes on without.
    """

    enabled: bool = False
    """Whether this router may lead; every router and agent follows plans, whoever makes them. Off unless
    asked for: where one tensor-parallel degree is the best at any power, a plan brings nothing."""
    learn_seconds: Annotated[float, Field(ge=0, le=86_400)] = 300.0
    """No plan before the load was watched for so long: what is not known yet must not look like no load."""
    interval_seconds: Annotated[float, Field(ge=10, le=86_400)] = 900.0
    """Between two slow plans; also how far ahead they look."""
    valid_for_seconds: Annotated[float, Field(ge=10, le=86_400)] = 1800.0
    """After so long without a newer plan routing is reactive."""
    timeout_seconds: Annotated[float, Field(ge=0.1, le=3600)] = 120.0
    """A solver that has not answered by then is killed; the last plan stays until it is over."""
    gap_ratio: Annotated[float, Field(ge=0, le=1)] = 0.01
    """How far from the best possible plan the solver may end."""
    max_nodes: Annotated[int, Field(ge=1, le=10_000_000)] = 2000
    """Or after so many nodes of its search."""
    margin_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """As the sites' own: of the granted power, what a plan leaves alone."""


class RouterConfig(TlsPortConfig):
    """What one router does; times in seconds. The public port's TLS: gateway/tls_config.py."""

    host: str = "127.0.0.1"
    port: Port = 8000
    operations_host: str = "127.0.0.1"
    operations_port: Port = 8001
    """The operator's surface; never the public port."""
    operations_names: tuple[Annotated[str, Field(pattern=r"^[a-z0-9.-]+$")], ...] = ()
    """DNS names under which operators ask there, in lower case, such as `heron.ops.example.org`. Addresses,
    `localhost` and names without a dot need none; any other is refused: a stranger's page could own it."""
    signing_key_file: Path | None = None
    """PEM: the Ed25519 private key that signs what this writes (docs/records.md#signed-records). None: it is
    not signed. Relative to the configuration file."""
    workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)] = 1
    """Processes that forward, behind one port; 1: this process does it itself. One per core is enough.
    Queues, order between tiers, fairness, retry budgets and breakers are per worker."""
    policy: str = DEFAULT_POLICY
    """Which sites get requests: docs/policies.md. Can be switched without a restart."""
    policy_parameters: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """By policy, as tables: `[router.policy_parameters.power_weighted]`. Of all policies, so that one that is
    switched to finds its own; `--policy-parameters FILE` gives them instead."""
    affinity: bool = True
    """Requests go where the KV cache of their session or prompt prefix is, as far as load allows."""
    auth: Literal["keys", "open"] = "open"
    """keys: requests need an API key (`heron keys add`); open: whoever reaches the port may use it, which is
    said loudly at start. Must be set where `host` reaches beyond this machine."""
    site_networks: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """A site's ingress_url is called only inside these."""
    max_body_bytes: Annotated[int, Field(ge=1024, le=1 << 30)] = 16 << 20
    max_answer_bytes: Annotated[int, Field(ge=1024, le=1 << 30)] = 64 << 20
    """Of an answer that is not streamed: it is held whole, so that it can be retried."""
    connect_timeout_seconds: Positive = 2.0
    first_byte_timeout_seconds: Positive = 60.0
    """Of a stream, until its first event; an answer in one piece has until `request_timeout_seconds`."""
    stall_timeout_seconds: Positive = 20.0
    """A stream without a token for so long is broken."""
    request_timeout_seconds: Positive = 600.0
    retry_budget_ratio: Annotated[float, Field(ge=0, le=1)] = 0.2
    retry_budget_minimum: Annotated[float, Field(ge=0, le=10_000)] = 10.0
    """Retries a second that are always allowed."""
    max_pushbacks: Annotated[int, Field(ge=1, le=100)] = 3
    hold_seconds: Annotated[float, Field(ge=0, le=3600)] = 20.0
    """New work waits so long for room before it is refused."""
    hold_requests: Annotated[int, Field(ge=0, le=1_000_000)] = 4096
    """Of each service tier, at most so many wait."""
    flex_hold_seconds: Annotated[float, Field(ge=0, le=86_400)] = 300.0
    """The same for `flex`, which waits for surplus power."""
    flex_surplus_ratio: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Of a site's capacity, what must stay free after a flex request."""
    flex_requests_per_second: Annotated[float, Field(gt=0, le=100_000)] = 5.0
    """At most so many flex requests start, of this router process."""
    slo: dict[RequestClass, SloConfig] = Field(default_factory=dict)
    """By request class (`SS` to `LL`): work that cannot meet it is refused at once, and where there is too
    little for all, `heron` serves what can be in time, the cheapest first (`router.policy.triage`). None by
    default; `flex` has none."""
    slo_factor: Annotated[float, Field(gt=1, le=1000)] | None = None
    """Every request of a class without a table in `slo` is promised so many times what it takes alone, on the
    fastest configuration that any of its model's sites announces: 5 is DynamoLLM's. None: nothing."""
    planner: PlannerConfig = PlannerConfig()
    streams_as_chats: bool = True
    """Streams of Messages and Responses are asked for as chats where that is exact, since a chat can go on at
    another site (docs/resume.md). Off: as they came."""
    resume_wait_seconds: Annotated[float, Field(ge=0, le=3600)] = 30.0
    resume_reserve_ratio: Annotated[float, Field(ge=0, le=0.9)] = 0.1
    """Of a site's capacity, kept free of new work for streams that lost their site."""
    shutdown_grace_seconds: Annotated[float, Field(ge=0, le=3600)] = 20.0
    shutdown_delay_seconds: Annotated[float, Field(ge=0, le=300)] = 0.0
    """Before that `/readyz` says no for so long while everything is served: as long as what balances over
    several routers takes to notice (5 to 10 s)."""
    sse_keep_alive_seconds: Positive = 5.0
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may read answers in a browser, such as `https://chat.example.org`; `*`: every one.
    Empty: no answer carries a CORS header."""
    access_log: bool = False
    """One JSON line per request, in the log of the process."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Where it is set it goes over the command line's."""

    @field_validator("policy")
    @classmethod
    def _is_known_policy(cls, name: str) -> str:
        if name not in POLICIES:
            raise ValueError(f"allowed are {', '.join(sorted(POLICIES))}")
        return name

    @field_validator("policy_parameters")
    @classmethod
    def _are_parameters(cls, tables: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return check_tables(tables)

    @field_validator("site_networks")
    @classmethod
    def _are_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for text in networks:
            try:
                ipaddress.ip_network(text)
            except ValueError as error:
                raise ValueError(f"{error}; allowed are networks such as 10.1.0.0/16 or fd00::/8") from None
        return networks

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for text in origins:
            if text != "*" and _ORIGIN.fullmatch(text) is None:
                raise ValueError(
                    f"{text!r} is no origin: scheme://host or scheme://host:port, in lower case, or *"
                )
        return origins

    @property
    def networks(self) -> tuple[Network, ...]:
        """`site_networks`, parsed."""
        return tuple(ipaddress.ip_network(text) for text in self.site_networks)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def load(
    path: Path | None, environ: Mapping[str, str] | None = None, *, parameters: Path | None = None
) -> tuple[FleetConfig, RouterConfig]:
    """Read `[fleet]` and `[router]`, the environment over the file. `parameters`: a file of policies' own.

    Raises:
        ConfigError: one line per fault.
    """
    tables = {} if path is None else read_file(path)
    source = NO_FILE if path is None else str(path)
    fleet = load_fleet(tables, source, environ, path=path)
    table = with_files(tables.get("router", {}), path)
    if parameters is not None:
        table["policy_parameters"] = read_parameters(parameters)
    config = build(
        RouterConfig,
        table,
        table="router",
        source=source,
        environment=environ,
        environment_prefix="HERON_ROUTER_",
    )
    if fleet.site_token is None and not all(network.is_loopback for network in config.networks):
        raise ConfigError(
            f"{source}: [router] site_networks = {list(config.site_networks)!r} reaches beyond this machine,"
            " so [fleet] site_token must be set: without it anybody in that network can use the sites"
        )
    if "auth" not in config.model_fields_set and not is_loopback(config.host):
        raise ConfigError(
            f"{source}: [router] host = {config.host!r} reaches beyond this machine, so auth must be set:"
            ' "keys" (`heron keys add` makes one), or "open" if whoever reaches the port may use the fleet'
        )
    check_files(source, "router", fleet, config.port_files)
    check_signing(source, "router", fleet, "router", config.signing_key_file)
    return fleet, config
