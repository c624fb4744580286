"""docker-compose.yml: read by the real docker-compose, its commands by the real command line."""

from __future__ import annotations

import ipaddress
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from support.deployed import read_as_started
from support.programs import need

ROOT = Path(__file__).parents[3]
HERON_SERVICES = ("power-feed", "router", "site-coast", "site-north", "site-plains", "site-ridge")
OTHERS = ("alertmanager", "grafana", "prometheus", "redis")
IMAGES = ("Dockerfile", "Dockerfile.vllm")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The whole file, the GPU profile too, as docker-compose itself understands it."""
    command = [need("docker-compose", "docker-compose"), "-f", "docker-compose.yml", "--profile", "gpu"]
    done = subprocess.run([*command, "config"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    config: dict[str, Any] = yaml.safe_load(done.stdout)
    return config


def mounts(service: dict[str, Any]) -> dict[Path, Path]:
    """Path in the container → path here, of what is mounted from the checkout."""
    found = {}
    for volume in service.get("volumes", []):
        source, target = (
            str(volume).split(":")[:2] if isinstance(volume, str) else (volume["source"], volume["target"])
        )
        if "/" in source:
            found[Path(target)] = Path(source)
    return found


def test_it_has_every_service_and_only_the_gpu_site_needs_asking(compose: dict[str, Any]) -> None:
    """`docker compose up` starts what needs no GPU."""
    services = compose["services"]
    assert sorted(services) == sorted((*HERON_SERVICES, *OTHERS))
    assert [name for name, service in services.items() if service.get("profiles")] == ["site-plains"]
    devices = services["site-plains"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices[0]["driver"] == "nvidia"


@pytest.mark.parametrize("name", HERON_SERVICES)
def test_every_command_line_parses_and_its_configuration_loads(compose: dict[str, Any], name: str) -> None:
    """In the real parser, with the mounted file and the service's own environment."""
    service = compose["services"][name]
    environment = {key: str(value) for key, value in service["environment"].items()}
    arguments, config = read_as_started(service["command"], environment, mounts(service).__getitem__)
    if arguments.command == "router":
        assert config.host == "0.0.0.0"  # noqa: S104
    elif arguments.command == "power-feed":
        fed = {f"site-{site.site_id}" for farm in config.farms for site in farm.fed_sites}
        assert fed == {n for n in HERON_SERVICES if "site-" in n}
    else:
        assert f"site-{config.site_id}" == name
        assert config.engine.kind == ("vllm" if name == "site-plains" else "emulated")
        assert config.safe_floor_watts >= config.site_model().server_idle_watts


def test_every_mounted_and_every_built_file_exists(compose: dict[str, Any]) -> None:
    """A file that is missing would be made by Docker, as an empty directory."""
    count = 0
    for service in compose["services"].values():
        for source in mounts(service).values():
            assert source.exists(), source
            count += 1
        if "build" in service:
            build = service["build"]
            assert (Path(build["context"]) / build["dockerfile"]).is_file()
    assert count >= len(HERON_SERVICES) + 4


def test_only_the_clients_port_is_for_clients(compose: dict[str, Any]) -> None:
    """Published, on loopback unless told otherwise: clients' API, operators' pages; no operations port."""
    published = {
        name: service["ports"] for name, service in compose["services"].items() if "ports" in service
    }
    assert sorted(published) == ["alertmanager", "grafana", "prometheus", "router"]
    for ports in published.values():
        assert all(str(port).startswith("127.0.0.1:") for port in ports)
    assert [str(port).split(":")[2].removesuffix("/tcp") for port in published["router"]] == ["8000"]


def test_addresses_agree_over_all_files(compose: dict[str, Any]) -> None:
    """Service names and ports in the fleet's file and Prometheus' are those of the Compose file."""
    fleet = tomllib.loads((ROOT / "deploy/compose/fleet.toml").read_text())
    subnet = ipaddress.ip_network(compose["networks"]["fleet"]["ipam"]["config"][0]["subnet"])
    assert fleet["router"]["site_networks"] == [str(subnet)]
    assert urlsplit(fleet["fleet"]["redis_url"]).hostname in compose["services"]
    targets = {f"router:{fleet['router']['operations_port']}", f"power-feed:{fleet['power_feed']['port']}"}
    for site in fleet["sites"]:
        name = f"site-{site['site_id']}"
        assert site["ingress_url"] == f"http://{name}:{site['port']}"
        assert site["feed_url"] == f"http://power-feed:{fleet['power_feed']['port']}"
        targets.add(f"{name}:{site['operations_port']}")
        test = " ".join(compose["services"][name]["healthcheck"]["test"])
        assert f":{site['operations_port']}/healthz" in test
    scraped: set[str] = set()
    prometheus = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    told = prometheus["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert told == ["alertmanager:9093"]
    for job in prometheus["scrape_configs"]:
        scraped.update(target for group in job.get("static_configs", []) for target in group["targets"])
        scraped.update(
            f"{n}:{group['port']}" for group in job.get("dns_sd_configs", []) for n in group["names"]
        )
    assert scraped == targets | {"127.0.0.1:9090", *told}, "each service, and what tells of them"


def test_redis_keeps_its_data_and_everything_is_bounded(compose: dict[str, Any]) -> None:
    """API keys outlive a restart; no service can take the machine's memory, no log its disk."""
    command = compose["services"]["redis"]["command"]
    assert command[command.index("--appendonly") + 1] == "yes"
    assert "redis:/data" in str(compose["services"]["redis"]["volumes"])
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    for name, service in compose["services"].items():
        assert service["logging"]["options"]["max-size"], name
        if name != "site-plains":  # a real engine, whose model nobody knows here
            assert service["deploy"]["resources"]["limits"]["memory"], name


def test_grafana_finds_its_files(compose: dict[str, Any]) -> None:
    """The provider's directory is mounted, the data source is the one that the dashboard names."""
    inside = mounts(compose["services"]["grafana"])
    provisioning = ROOT / "deploy/grafana/provisioning"
    assert inside[Path("/etc/grafana/provisioning")] == provisioning
    provider = yaml.safe_load((provisioning / "dashboards/heron.yml").read_text())["providers"][0]
    assert (inside[Path(provider["options"]["path"])] / "heron.json").is_file()
    source = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"][0]
    assert source["uid"] == "prometheus"
    assert urlsplit(source["url"]).hostname in compose["services"]


def stages(image: str) -> list[list[str]]:
    """The COPY lines of each stage."""
    text = (ROOT / "deploy/docker" / image).read_text()
    bodies = re.split(r"^FROM .*$", text, flags=re.MULTILINE)[1:]
    return [re.findall(r"^COPY .+$", body, re.MULTILINE) for body in bodies]


def test_the_services_image_runs_what_scripts_compile_made() -> None:
    """Made in its first stage, taken to where Python looks first; the build fails where it is not used."""
    text = (ROOT / "deploy/docker/Dockerfile").read_text()
    first, second = text.split("FROM ")[1:]
    assert "COPY scripts scripts" in first
    assert "RUN scripts/compile\n" in first
    needed = re.findall(r"^cp -r (.+) \"", (ROOT / "scripts/compile").read_text(), re.MULTILINE)[0].split()
    copied = set(re.findall(r"\S+", " ".join(re.findall(r"^COPY (.+) \S+$", first, re.MULTILINE))))
    assert set(needed) <= copied  # what it takes beyond that it takes where it is: no benchmarks here
    taken = re.search(r"^COPY --from=compiled (\S+) (\S+)$", second, re.MULTILINE)
    assert taken is not None
    assert taken[1] == "/opt/heron/build/compiled"
    assert f"ENV PYTHONPATH=/opt/heron/{taken[2]} PYTHONSAFEPATH=1" in second
    tried = re.findall(r"import ([a-z_.]+) as one; assert one.__file__.endswith\('.so'\)", second)
    assert tried
    compiled = (ROOT / "scripts/compiled-modules.txt").read_text().splitlines()
    assert {name.replace(".", "/") + ".py" for name in tried} <= set(compiled)


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_every_package_and_every_data_file(image: str) -> None:
    """What is copied exists; every stage copies every package; what is no Python is in `package-data`."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = [pattern.removesuffix("*") for pattern in setuptools["packages"]["find"]["include"]]
    for stage in stages(image):
        sources = [word for line in stage if "--from=" not in line for word in line.split()[1:-1]]
        for source in sources:
            assert (ROOT / source).exists(), source
        assert set(packages) <= set(sources)
    data = dict(setuptools["package-data"])
    patterns = [*data.pop("*")]
    patterns += [f"{name.replace('.', '/')}/{pattern}" for name, own in data.items() for pattern in own]
    for package in packages:
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts:
                assert any(path.match(pattern) for pattern in patterns), path
