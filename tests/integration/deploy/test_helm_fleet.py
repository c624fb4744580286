"""What the chart renders, run: its command lines, environment, configuration and probes in real processes.

Service names become ports of this machine, and nothing else is changed. The root is read-only, as in
the pods.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from support.helm import (
    ROOT,
    Object,
    component,
    container_of,
    environment_of,
    expand,
    named,
    of_kind,
    pod_of,
    render,
    values_file,
)
from support.processes import kill_all_with, pids_with
from support.programs import need
from support.scraped_fleet import wait_until

from cli.ports import free_ports
from fleet.api_key import KEY_PREFIX

VALUES: dict[str, Any] = {
    "router": {"replicas": 1, "config": {"site_networks": ["127.0.0.0/8"], "shutdown_delay_seconds": 0.5}},
    "powerFeed": {
        "enabled": True,
        "config": {
            "farms": [
                {
                    "farm_id": "farm",
                    "site_id": "north",
                    "nameplate_watts": 26000,
                    "source": {"kind": "schedule", "points": [[0, 0.9]]},
                }
            ]
        },
    },
    "sites": {
        "north": {
            "config": {
                "farm_id": "farm",
                "safe_floor_watts": 1750,
                "firm_power_source": "grid",
                "engine": {"kind": "emulated", "instances": 1, "start_seconds": 0.1},
            }
        }
    },
}
PORTS = {
    8000: "http",
    8001: "operations",
    8100: "feed",
    8101: "ingress",
    8201: "site operations",
    6379: "redis",
}
READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,ro,bind / && shift && exec "$@"'


def read_only(writable: Path) -> list[str]:
    """A prefix for a command that may write below `writable` alone, where this machine permits that."""
    prefix = ["unshare", "--map-root-user", "--mount", "sh", "-c", READ_ONLY, "sh", str(writable)]
    if shutil.which("unshare") is not None:
        outside = writable.parent / "outside"
        done = subprocess.run([*prefix, "touch", str(outside)], capture_output=True, text=True, check=False)
        if "Read-only" in done.stderr and not outside.exists():
            return prefix
    warnings.warn("no user namespaces here: the services ran with a writable root", stacklevel=2)
    return []


@dataclass(frozen=True, kw_only=True)
class Release:
    """A running release."""

    objects: list[Object]
    address: Callable[[str], str]
    run: Callable[..., subprocess.CompletedProcess[str]]
    processes: dict[str, subprocess.Popen[bytes]]
    directory: Path

    def log(self, part: str) -> str:
        return (self.directory / f"{part}.log").read_text()[-4000:]


def workload_of(objects: list[Object], part: str) -> Object:
    return next(one for one in of_kind(objects, "Deployment", "StatefulSet") if component(one) == part)


@contextmanager
def running(directory: Path) -> Iterator[Release]:
    """Redis, power feed, site and router, each as its container would start."""
    objects = render("--values", str(values_file(VALUES, directory)))
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    text = named(objects, "ConfigMap", "heron")["data"]["fleet.toml"]
    writable = directory / "writable"  # the pod's emptyDirs: /tmp and /var/lib/heron
    writable.mkdir()

    def here(given: str) -> str:
        for service in of_kind(objects, "Service"):
            given = given.replace(f"{service['metadata']['name']}:", "127.0.0.1:")
        for port, own in ports.items():
            given = given.replace(f":{port}", f":{own}").replace(f"port = {port}\n", f"port = {own}\n")
        return given.replace("/var/lib/heron", str(writable)).replace('"0.0.0.0"', '"127.0.0.1"')

    config = directory / "fleet.toml"
    config.write_text(here(text))
    prefix = read_only(writable)
    clean = {"PATH": os.environ["PATH"], "HOME": "/dev/null", "TMPDIR": str(writable)}
    clean |= {"PYTHONPATH": str(ROOT), "TEST_OF_HERON": str(directory)}

    def command_of(workload: Object) -> tuple[list[str], dict[str, str]]:
        container = container_of(workload)
        environment = environment_of(workload, objects)
        arguments = [expand(argument, environment) for argument in container["args"]]
        if component(workload) == "redis":
            program = [need("redis-server", "redis-server")]
            arguments = [str(writable) if argument == "/data" else argument for argument in arguments]
            arguments += ["--port", str(ports[6379]), "--bind", "127.0.0.1"]
        else:
            program = [sys.executable, "-m", "cli.main"]
            arguments = [argument.replace("/etc/heron/fleet.toml", str(config)) for argument in arguments]
        return [*program, *arguments], {name: here(value) for name, value in environment.items()}

    def run(part: str, command: str) -> subprocess.CompletedProcess[str]:
        """`kubectl exec` in a part's pod."""
        environment = command_of(workload_of(objects, part))[1]
        words = [word.replace("/etc/heron/fleet.toml", str(config)) for word in shlex.split(command)]
        return subprocess.run(
            [*prefix, sys.executable, "-m", "cli.main", *words],
            env=clean | environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    processes: dict[str, subprocess.Popen[bytes]] = {}
    with ExitStack() as stack:
        stack.callback(kill_all_with, f"TEST_OF_HERON={directory}")
        for part in ("redis", "power-feed", "site", "router"):
            command, environment = command_of(workload_of(objects, part))
            log = stack.enter_context((directory / f"{part}.log").open("wb"))
            processes[part] = subprocess.Popen(
                [*prefix, *command], env=clean | environment, cwd=ROOT, stdout=log, stderr=log
            )
        yield Release(
            objects=objects,
            address=lambda name: (
                f"http://127.0.0.1:{next(ports[port] for port in PORTS if PORTS[port] == name)}"
            ),
            run=run,
            processes=processes,
            directory=directory,
        )


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """Started once; the last test stops it."""
    directory = tmp_path_factory.mktemp("release")
    with running(directory) as started:
        yield started
    assert pids_with(f"TEST_OF_HERON={directory}") == [], "processes are left behind"


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize("part", ["power-feed", "site", "router"])
def test_every_probe_succeeds(release: Release, part: str) -> None:
    """As the kubelet asks: alive, and ready once the fleet is."""
    container = container_of(workload_of(release.objects, part))
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]
        port = "site operations" if part == "site" else asked["port"]
        url = release.address(port) + asked["path"]
        wait_until(lambda url=url: answers(url), seconds=30, what=lambda: release.log(part))  # type: ignore[misc]


def test_a_key_made_as_the_notes_say_opens_the_api(release: Release) -> None:
    """Redis refuses whoever has no password, the router whoever has no key; the OpenAI client is served."""
    router = release.address("operations")
    wait_until(lambda: answers(f"{router}/readyz"), seconds=30, what=lambda: release.log("router"))
    client = openai.OpenAI(base_url=f"{release.address('http')}/v1", api_key="unknown", max_retries=0)
    question: dict[str, Any] = {
        "model": "llama-3.1-70b",
        "messages": [{"role": "user", "content": "Why?"}],
        "max_tokens": 8,
    }
    with pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(**question)
    made = release.run("router", "keys add --tenant acme --config /etc/heron/fleet.toml")
    assert made.returncode == 0, made.stderr
    key = next(word for word in made.stdout.split() if word.startswith(KEY_PREFIX))
    client = openai.OpenAI(base_url=f"{release.address('http')}/v1", api_key=key, max_retries=0)

    def is_served() -> bool:
        try:
            answer = client.chat.completions.create(**question)
        except openai.AuthenticationError:  # routers read keys every few seconds
            return False
        return answer.usage is not None and answer.usage.completion_tokens == 8

    wait_until(is_served, seconds=20, what=lambda: release.log("router"))


def test_the_doctor_of_the_notes_finds_nothing_to_fear(release: Release) -> None:
    """The same environment and files; it reaches the feed and Redis."""
    done = release.run("site", "doctor --config /etc/heron/fleet.toml --site north")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "site token: set" in done.stdout


def test_operators_reach_the_console_by_the_services_name(release: Release) -> None:
    """Its own DNS names, no stranger's."""
    (service,) = [
        one for one in of_kind(release.objects, "Service") if one["metadata"]["name"].endswith("-operations")
    ]
    url = release.address("operations")
    for suffix, status in (
        ("", 200),
        (".wind.svc", 200),
        (".wind.svc.cluster.local", 200),
        (".evil.example", 421),
    ):
        host = service["metadata"]["name"] + suffix + ":8001"
        answer = httpx.get(f"{url}/healthz", headers={"host": host}, trust_env=False)
        assert answer.status_code == status, host


def test_each_stops_in_the_time_that_its_pod_has(release: Release) -> None:
    """SIGTERM, and an exit without a fault."""
    for part in ("router", "site", "power-feed", "redis"):
        process = release.processes[part]
        process.send_signal(signal.SIGTERM)
        grace = pod_of(workload_of(release.objects, part))["spec"]["terminationGracePeriodSeconds"]
        assert process.wait(timeout=grace) == 0, release.log(part)
