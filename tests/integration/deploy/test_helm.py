"""The Helm chart: rendered by a real Helm, held to Kubernetes' schemas, to Heron's readers and to itself."""

from __future__ import annotations

import base64
import json
import re
import shlex
import subprocess
import tarfile
import tomllib
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml
from support.deployed import read_as_started
from support.helm import (
    CHART,
    KUBERNETES,
    NAMESPACE,
    NOT_KUBERNETES,
    ROOT,
    WORKLOADS,
    Object,
    component,
    container_of,
    environment_of,
    faults_in,
    helm,
    named,
    nulls_in,
    of_kind,
    pod_of,
    render,
    secrets_of,
    selected,
    values_file,
)
from support.kubernetes_api import kubernetes_api
from support.programs import need

from cli import main
from power_feed.config import FeedConfig
from router.config import RouterConfig
from site_agent.config import SiteConfig
from site_agent.drivers.options import EmulatedOptions, ExternalOptions, VllmOptions
from site_agent.drivers.vllm import KILL_SECONDS

EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
MONITORING = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
VLLM = {"kind": "vllm", "model": "m", "model_path": "o/m", "instances": 2, "gpus_per_instance": 2}
SITE = {"farm_id": "f", "feed_url": "http://10.8.0.1:8100", "engine": VLLM}
EVERY_OPTION: dict[str, Any] = {
    "fullnameOverride": "wind",
    "fleetName": "Fleet.1",
    "image": {"repository": "r.example.org/heron", "digest": "sha256:" + "0" * 64},
    "imagePullSecrets": [{"name": "pull"}],
    "files": {"wind.csv": "time,a\n0,0.5\n"},
    "secretFiles": "passwords",
    "podLabels": {"team": "wind"},
    "podAnnotations": {"note": "1"},
    "priorityClassName": "high",
    "networkPolicy": {"operationsFrom": MONITORING, "clientsFrom": MONITORING},
    "router": {
        "replicas": 3,
        "config": {
            "auth": "open",
            "workers": 4,
            "shutdown_delay_seconds": 0,
            "shutdown_grace_seconds": 90.5,
            "slo": {"SS": {"ttft_seconds": 2}},
            "policy_parameters": {"heron": {}},
        },
        "operationsNames": ["heron.ops.example.org"],
        "service": {"type": "LoadBalancer", "port": 8000, "loadBalancerSourceRanges": ["10.0.0.0/8"]},
        "ingress": {"enabled": True, "className": "nginx", "host": "llm.example.org", "tlsSecret": "tls"},
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]},
        "nodeSelector": {"a": "b"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "extraEnv": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://otel:4318"}],
    },
    "redis": {"storageClassName": "fast", "service": {"type": "LoadBalancer"}},
    "powerFeed": {
        "enabled": True,
        "config": {
            "speed": 2,
            "farms": [
                {
                    "farm_id": "f",
                    "nameplate_watts": 60_000_000,
                    "source": {"kind": "schedule", "points": [[0, 1], [10.5, 0.25]]},
                    "sites": [{"site_id": "gpu"}, {"site_id": "other", "priority": 1}, {"site_id": "plain"}],
                }
            ],
        },
    },
    "siteDefaults": {"config": {"farm_id": "f", "region": "north"}},
    "sites": {
        "gpu": {
            "config": {"engine": VLLM, "shutdown_grace_seconds": 40},
            "lockClocks": True,
            "runtimeClassName": "nvidia",
            "state": {"size": "1Gi"},
            "modelCache": {"size": "100Gi", "storageClassName": "fast"},
            "huggingFaceSecret": "hf",
        },
        "plain": {
            "config": {"engine": {**VLLM, "stop_grace_seconds": 30}},
            "modelCache": {"existingClaim": "weights"},
        },
        "other": {
            "config": {"engine": {"kind": "external", "model": "m", "urls": ["http://vllm-0.vllm:8000"]}}
        },
    },
    "monitoring": {
        "enabled": True,
        "labels": {"release": "prometheus"},
        "withoutAlerts": ["HeronTargetMissing"],
        "dashboard": {"enabled": True},
    },
}
VALUES: dict[str, dict[str, Any]] = {
    "default": {},
    "own-redis": {"redis": {"enabled": False, "url": "redis://cache.example.org:6379/3"}},
    "own-redis-with-password": {"redis": {"enabled": False}, "existingSecret": "mine"},
    "every-option": EVERY_OPTION,
}
CASES = [*VALUES, *(path.stem for path in EXAMPLES)]
REFUSED = {
    "router.repliacs=2": "at '/router': additional properties 'repliacs' not allowed",
    "router.config.polcy=heron": "at '/router/config': additional properties 'polcy' not allowed",
    "router.config.port=9000": "at '/router/config': additional properties 'port' not allowed",
    "router.config.auth=null": "at '/router/config': missing property 'auth'",
    "router.replicas=two": "at '/router/replicas': got string, want integer",
    "image.digest=latest": "at '/image/digest'",
    "sites.No_rth.config.farm_id=f": "'No_rth' does not match pattern",
    "sites.north=null": "at '/sites/north': got null, want object",
    "sites.north.config.engine.kind=sglang": "must be one of 'vllm', 'external', 'emulated'",
    "sites.north.config.engine.instanses=2": "at '/sites/north/config/engine'",
    "sites.north.lockClocks=true": "sites.north.config.farm_id is missing",
    "router.enabled=false,redis.enabled=false": "nothing is enabled",
    "redis.enabled=false": "name your own in redis.url, or in existingSecret",
    "redis.url=redis://elsewhere": "redis.url is for a Redis of your own",
    "redis.enabled=false,redis.url=redis://:word@elsewhere": "redis.url has a password in it",
    "router.enabled=false,powerFeed.enabled=true": "existingSecret is missing",
    "powerFeed.enabled=true": "powerFeed.config.farms is missing",
    "monitoring.enabled=true": "networkPolicy.operationsFrom",
    "monitoring.enabled=true,networkPolicy.enabled=false,monitoring.withoutAlerts={X}": 'no alert "X"',
    "router.ingress.enabled=true": "router.ingress.host is missing",
    "router.httpRoute.enabled=true": "router.httpRoute.parentRefs is missing",
    "files.fleet\\.toml=x": "fleet.toml is the chart's own",
    "fullnameOverride=a-name-that-is-really-longer-than-forty-characters": "set fullnameOverride",
}
REFUSED_SITES: dict[str, tuple[dict[str, Any], str]] = {
    "no farm": ({"config": {"farm_id": None}}, "config.farm_id is missing"),
    "no engine": ({"config": {"engine": {"kind": None}}}, "config.engine.kind is missing"),
    "no feed": ({"config": {"feed_url": None}}, "config.feed_url is missing"),
    "a secret": (
        {"config": {"engine": {"kind": "external", "urls": ["http://a:1"], "engine_api_key": "k-123"}}},
        "HERON_SITE_ENGINE__ENGINE_API_KEY",
    ),
    "clocks of nobody": ({"lockClocks": True}, "lockClocks needs state.size"),
    "clocks of others": (
        {"lockClocks": True, "config": {"engine": {"kind": "external"}}},
        "lockClocks is for engines of kind vllm",
    ),
    "clocks read only": (
        {
            "lockClocks": True,
            "state": {"size": "1Gi"},
            "config": {"engine": {"gpu_driver": "nvml-read-only"}},
        },
        "contradict each other",
    ),
    "nvml without rights": ({"config": {"engine": {"gpu_driver": "nvml"}}}, "needs lockClocks: true"),
}


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Object]]:
    """Every case's objects."""
    return {name: render(*arguments(name, tmp_path_factory.mktemp(name))) for name in CASES}


def arguments(case: str, directory: Path) -> list[str]:
    example = CHART / "examples" / f"{case}.yaml"
    return ["--values", str(example if case not in VALUES else values_file(VALUES[case], directory))]


@pytest.fixture
def objects(rendered: dict[str, list[Object]], case: str) -> list[Object]:
    return rendered[case]


every_case = pytest.mark.parametrize("case", CASES)


def fleet_of(objects: list[Object]) -> dict[str, Any]:
    (text,) = [
        found["data"]["fleet.toml"]
        for found in of_kind(objects, "ConfigMap")
        if "fleet.toml" in found["data"]
    ]
    return tomllib.loads(text)


def herons(objects: list[Object]) -> list[Object]:
    """The workloads that are Heron's own."""
    return [one for one in of_kind(objects, *WORKLOADS) if component(one) != "redis"]


def refusal(*arguments: str) -> str:
    done = helm("template", "heron", str(CHART), *arguments)
    assert done.returncode != 0, done.stdout
    return done.stderr


@every_case
def test_helm_finds_no_fault(case: str, tmp_path: Path) -> None:
    """Its own linter, warnings too."""
    done = helm("lint", "--strict", str(CHART), *arguments(case, tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr


@every_case
@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_would_take_every_object(objects: list[Object], version: str) -> None:
    """By its own schemas, without a key that it does not know or one without a value; each name once."""
    for found in objects:
        if found["kind"] not in NOT_KUBERNETES:
            assert list(faults_in(found, version)) == []
        assert list(nulls_in(found)) == [], found["metadata"]["name"]
    names = [(found["kind"], found["metadata"]["name"]) for found in objects]
    assert len(set(names)) == len(names)


def test_a_misspelt_key_or_a_wrong_type_would_be_seen(rendered: dict[str, list[Object]]) -> None:
    """The schemas are strict at every depth."""
    router = named(rendered["default"], "Deployment", "heron-router")
    assert list(faults_in(router, KUBERNETES[-1])) == []
    for key, value in (("livenesProbe", {}), ("ports", "8000")):
        wrong = deepcopy(router)
        container_of(wrong)[key] = value
        assert [key in fault for fault in faults_in(wrong, KUBERNETES[-1])] == [True]


def test_each_part_is_switched_by_its_values(rendered: dict[str, list[Object]]) -> None:
    """Central: router and Redis; farm: feed and sites."""
    parts = {case: sorted(component(one) for one in of_kind(rendered[case], *WORKLOADS)) for case in CASES}
    assert parts["default"] == parts["central"] == ["redis", "router"]
    assert parts["farm"] == ["power-feed", "site"]
    assert parts["everything"] == ["power-feed", "redis", "router", "site", "site", "site"]
    assert parts["own-redis"] == parts["own-redis-with-password"] == ["router"]


@every_case
def test_every_command_line_parses_and_its_configuration_loads(
    objects: list[Object], case: str, tmp_path: Path
) -> None:
    """In the real parser and the real readers, with the pod's files and environment."""
    (config,) = [found["data"] for found in of_kind(objects, "ConfigMap") if "fleet.toml" in found["data"]]
    for name, text in config.items():
        (tmp_path / name).write_text(text)
    for workload in herons(objects):
        container = container_of(workload)
        environment = environment_of(workload, objects)
        assert environment["HERON_FLEET_SITE_TOKEN"]
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        command, table = read_as_started(
            container["args"],
            environment,
            lambda path, at=mounted["config"]: tmp_path / path.relative_to(at),  # type: ignore[misc]
        )
        assert command.command == {"site": "site-agent"}.get(component(workload), component(workload))
        if component(workload) == "site":
            assert workload["metadata"]["name"].endswith(f"-site-{table.site_id}")
            assert str(table.state_dir).startswith(mounted["state"] + "/")
        ports = {port["containerPort"] for port in container["ports"]}
        assert ports == {table.port} | {getattr(table, "operations_port", table.port)}
        assert {table.host, getattr(table, "operations_host", table.host)} == {"0.0.0.0"}  # noqa: S104


@every_case
def test_selectors_name_their_own_pods(objects: list[Object]) -> None:
    """Of each workload, Service, disruption budget and policy; no workload's pods are another's."""
    workloads = of_kind(objects, *WORKLOADS)
    for workload in workloads:
        assert selected(workloads, workload["spec"]["selector"]["matchLabels"]) == [workload]
    for service in of_kind(objects, "Service"):
        (behind,) = selected(workloads, service["spec"]["selector"])
        assert service["metadata"]["name"].startswith(behind["metadata"]["name"])
        names = {port["name"] for port in container_of(behind)["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names
    for budget in of_kind(objects, "PodDisruptionBudget"):
        assert len(selected(workloads, budget["spec"]["selector"]["matchLabels"])) == 1
    for workload in of_kind(objects, "StatefulSet"):
        named(objects, "Service", workload["spec"]["serviceName"])


@every_case
def test_addresses_agree_over_all_objects(objects: list[Object], case: str) -> None:
    """What one part is told of another is a Service here with that port, or was given."""
    doors = {
        (service["metadata"]["name"], port["port"]): port["targetPort"]
        for service in of_kind(objects, "Service")
        for port in service["spec"]["ports"]
    }
    given = {"10.8.1.7", "cache.example.org", "somewhere"}
    for workload in herons(objects):
        url = urlsplit(environment_of(workload, objects)["HERON_FLEET_REDIS_URL"])
        assert url.hostname in given or doors[str(url.hostname), url.port] == "redis"
    for site in fleet_of(objects).get("sites", []):
        for key, port in (("ingress_url", "ingress"), ("feed_url", "feed")):
            url = urlsplit(site[key])
            assert url.hostname in given or doors[str(url.hostname), url.port] == port
    for ingress in of_kind(objects, "Ingress"):
        backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
        service = named(objects, "Service", backend["name"])
        assert [port["name"] for port in service["spec"]["ports"]] == [backend["port"]["name"]] == ["http"]
    for route in of_kind(objects, "HTTPRoute"):
        (backend,) = route["spec"]["rules"][0]["backendRefs"]
        assert doors[backend["name"], backend["port"]] == "http"
    if case == "own-redis":
        assert environment_of(herons(objects)[0], objects)["HERON_FLEET_REDIS_URL"].endswith("/3")


@every_case
def test_probes_ask_what_the_services_answer(objects: list[Object]) -> None:
    """/healthz and /readyz at the operations port; the start has time."""
    for workload in herons(objects):
        container = container_of(workload)
        asked = {key: container[f"{key}Probe"]["httpGet"] for key in ("startup", "liveness", "readiness")}
        port = "feed" if component(workload) == "power-feed" else "operations"
        assert {probe["port"] for probe in asked.values()} == {port}
        assert [asked[key]["path"] for key in ("startup", "liveness", "readiness")] == [
            "/healthz",
            "/healthz",
            "/readyz",
        ]


@every_case
def test_clients_never_reach_an_operations_port(objects: list[Object]) -> None:
    """The only Service with one is the router's own, inside the cluster; the policies let nobody else in."""
    for service in of_kind(objects, "Service"):
        if "operations" in {port["targetPort"] for port in service["spec"]["ports"]}:
            assert service["metadata"]["name"].endswith("-router-operations")
            assert service["spec"]["type"] == "ClusterIP"
            assert len(service["spec"]["ports"]) == 1
    policies = of_kind(objects, "NetworkPolicy")
    workloads = of_kind(objects, *WORKLOADS)
    for workload in workloads:
        (policy,) = [
            p for p in policies if workload in selected(workloads, p["spec"]["podSelector"]["matchLabels"])
        ]
        assert policy["spec"]["policyTypes"] == ["Ingress"]
        rules = {port["port"]: rule for rule in policy["spec"]["ingress"] for port in rule["ports"]}
        assert rules.keys() <= {port["name"] for port in container_of(workload)["ports"]}
        for port, rule in rules.items():
            assert port == "http" or rule["from"], "a rule without `from` lets everybody in"
        assert rules.get("operations", {"from": MONITORING})["from"] == MONITORING


@every_case
def test_pods_have_no_rights(objects: list[Object], case: str) -> None:
    """Pod Security "restricted"; but for one who locks clocks, who is root with one capability."""
    for workload in of_kind(objects, *WORKLOADS):
        spec, container = pod_of(workload)["spec"], container_of(workload)
        security, own = spec["securityContext"], container["securityContext"]
        assert spec["automountServiceAccountToken"] is False
        # a Service called heron-router would set HERON_ROUTER_PORT=tcp://…, which Heron reads as its own key
        assert spec["enableServiceLinks"] is False
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"]["drop"] == ["ALL"]
        if case in ("farm", "every-option") and workload["metadata"]["name"].endswith(("-north", "-gpu")):
            assert (security["runAsUser"], own["capabilities"]["add"]) == (0, ["SYS_ADMIN"])
        else:
            assert (security["runAsNonRoot"], security["runAsUser"]) == (True, 10001)
            assert own["allowPrivilegeEscalation"] is False
            assert "add" not in own["capabilities"]
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        claims = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes | claims
        assert not volumes & claims


def test_the_images_user_is_the_charts() -> None:
    """By number, or Kubernetes could not tell that it is not root; the home is that user's."""
    text = (ROOT / "deploy/docker/Dockerfile").read_text()
    assert "useradd --uid 10001 --create-home --home-dir /var/lib/heron" in text
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)


@every_case
def test_one_agent_and_one_feed_and_enough_time_to_stop(objects: list[Object]) -> None:
    """A site's next pod waits for the last to go; a stop is longer than what the service takes for it."""
    fleet = fleet_of(objects)
    sites = {site["site_id"]: site for site in fleet.get("sites", [])}
    for workload in herons(objects):
        grace = pod_of(workload)["spec"]["terminationGracePeriodSeconds"]
        if component(workload) == "site":
            site = sites[pod_of(workload)["metadata"]["labels"]["heron/site"]]
            own = site.get(
                "shutdown_grace_seconds", SiteConfig.model_fields["shutdown_grace_seconds"].default
            )
            engine = VllmOptions.model_fields["stop_grace_seconds"].default
            assert grace > own + site["engine"].get("stop_grace_seconds", engine) + KILL_SECONDS
            assert (workload["kind"], workload["spec"]["replicas"]) == ("StatefulSet", 1)
            assert pod_of(workload)["spec"]["shareProcessNamespace"] is True
        elif component(workload) == "power-feed":
            assert (workload["spec"]["replicas"], workload["spec"]["strategy"]["type"]) == (1, "Recreate")
        else:
            own = RouterConfig.model_validate(fleet["router"])
            assert grace > own.shutdown_delay_seconds + own.shutdown_grace_seconds + 5
            assert workload["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_gpus_are_those_of_the_engines(rendered: dict[str, list[Object]]) -> None:
    """Asked for by instances × gpus_per_instance; no clock is touched where that was not asked for."""
    objects = rendered["every-option"]
    drivers = {site["site_id"]: site["engine"].get("gpu_driver") for site in fleet_of(objects)["sites"]}
    assert drivers == {"gpu": None, "plain": "nvml-read-only", "other": None}
    for name, gpus in (("gpu", 4), ("plain", 4), ("other", None)):
        container = container_of(named(objects, "StatefulSet", f"wind-site-{name}"))
        assert container["resources"].get("limits", {}).get("nvidia.com/gpu") == gpus
        assert container["image"].startswith("heron-vllm:" if gpus else "r.example.org/heron@sha256:")
        assert ("/dev/shm" in str(container["volumeMounts"])) == (gpus is not None)


@every_case
def test_no_secret_is_in_a_config_map(objects: list[Object]) -> None:
    """Nor anywhere but in the Secret."""
    for value in secrets_of(objects).values():
        assert len(value) >= 32
        for found in objects:
            assert found["kind"] == "Secret" or value not in json.dumps(found)


def test_secrets_are_made_once(rendered: dict[str, list[Object]]) -> None:
    """None where one is named; those that are made stay when the release goes, and are looked up first."""
    assert of_kind(rendered["farm"], "Secret") == []
    secret = named(rendered["default"], "Secret", "heron")
    assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert sorted(secret["data"]) == ["redis-password", "site-token"]
    assert sorted(named(rendered["own-redis"], "Secret", "heron")["data"]) == ["site-token"]
    for value in secrets_of(rendered["default"]).values():
        assert re.fullmatch(r"[A-Za-z0-9]{48}", value), "it becomes part of a URL"


def test_an_upgrade_keeps_the_secrets_that_the_cluster_has() -> None:
    """Looked up in a fake of its API, also where the release went and only its Secret stayed; a key that it
    lacks is made beside them.
    """
    data = {"site-token": base64.b64encode(b"from the first install").decode()}
    owner = {"meta.helm.sh/release-name": "heron", "meta.helm.sh/release-namespace": NAMESPACE}
    metadata = {"name": "heron", "namespace": NAMESPACE, "annotations": owner}
    metadata["labels"] = {"app.kubernetes.io/managed-by": "Helm"}
    with kubernetes_api({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}) as url:
        objects = render("--dry-run=server", "--disable-openapi-validation", "--kube-apiserver", url)
    kept = secrets_of(objects)
    assert kept["heron", "site-token"] == "from the first install"
    assert len(kept["heron", "redis-password"]) == 48


def test_a_change_starts_anew_who_reads_it_and_nobody_else(tmp_path: Path) -> None:
    """Engines take minutes to start: a farm's or a router's key is not worth that."""
    base = yaml.safe_load((CHART / "examples" / "everything.yaml").read_text())

    def checksums(**changes: Any) -> dict[str, str]:
        path = values_file({**deepcopy(base), **changes}, tmp_path)
        return {
            one["metadata"]["name"].removeprefix("heron-"): pod_of(one)["metadata"]["annotations"][
                "checksum/config"
            ]
            for one in herons(render("--values", str(path)))
        }

    def changed(**changes: Any) -> set[str]:
        return {name for name, value in checksums(**changes).items() if value != before[name]}

    before = checksums()
    assert changed() == set()
    assert changed(router={"config": {"hold_seconds": 3}}) == {"router"}
    assert changed(router={"replicas": 9}) == set()
    assert changed(fleetName="other") == set(before)
    farms = deepcopy(base["powerFeed"]["config"]["farms"])
    farms[0]["loss_ratio"] = 0.1
    assert changed(powerFeed={"enabled": True, "config": {"farms": farms}}) == {"power-feed"}
    farms = deepcopy(base["powerFeed"]["config"]["farms"])
    del farms[0]["site_id"]
    server = {"kind": "redfish", "url": "https://10.0.0.9"}
    farms[0]["sites"] = [{"site_id": "north", "server": server}]
    assert changed(powerFeed={"enabled": True, "config": {"farms": farms}}) == {"power-feed", "site-north"}
    sites = deepcopy(base["sites"])
    sites["coast"]["config"]["margin_ratio"] = 0.1
    assert changed(sites=sites) == {"power-feed", "site-coast"}


@pytest.mark.parametrize("setting", REFUSED)
def test_bad_values_are_refused(setting: str) -> None:
    """With where and what."""
    assert REFUSED[setting] in refusal("--set", setting)


@pytest.mark.parametrize("which", REFUSED_SITES)
def test_bad_sites_are_refused(which: str, tmp_path: Path) -> None:
    """The name of the site is in the message; the same site without the fault is taken."""
    change, message = REFUSED_SITES[which]
    good = {"sites": {"north": {"config": SITE}}}
    assert render("--values", str(values_file(good, tmp_path)))
    site = deepcopy(good["sites"]["north"]) | {key: value for key, value in change.items() if key != "config"}
    config = change.get("config", {})
    merged = {**SITE["engine"], **config.get("engine", {})}  # type: ignore[dict-item]
    site["config"] = {
        **SITE,
        **config,
        "engine": {key: value for key, value in merged.items() if value is not None},
    }
    site["config"] = {key: value for key, value in site["config"].items() if value is not None}
    error = refusal("--values", str(values_file({"sites": {"north": site}}, tmp_path)))
    assert message in error
    assert "sites.north" in error
    assert "k-123" not in error


@pytest.mark.parametrize("key", ["existingSecret", "networkPolicy"])
def test_a_farm_says_who_its_routers_are(key: str, tmp_path: Path) -> None:
    """Without them nothing could reach its sites."""
    farm = yaml.safe_load((CHART / "examples" / "farm.yaml").read_text())
    assert render("--values", str(values_file(farm, tmp_path)))
    del farm[key]
    error = refusal("--values", str(values_file(farm, tmp_path)))
    assert (
        "existingSecret" if key == "existingSecret" else "networkPolicy.sitesFrom"
    ) + " is missing" in error


def test_the_schema_knows_every_key_and_no_other() -> None:
    """Those of values.yaml, which has each with its meaning; those of the services' own configuration."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(known: dict[str, Any], given: dict[str, Any], path: str) -> None:
        assert known["properties"].keys() - {"global"} == given.keys(), path
        for name, value in given.items():
            child = known["properties"][name]
            child = schema["$defs"][child["$ref"].rpartition("/")[2]] if "$ref" in child else child
            if "properties" in child and name not in ("config", "resources", "state", "modelCache"):
                compare(child, value, f"{path}.{name}")

    compare(schema, values, "")
    own = {"host", "port", "operations_host", "operations_port", "signing_key_file"}
    engines = {key for kind in (EmulatedOptions, VllmOptions, ExternalOptions) for key in kind.model_fields}
    site = schema["$defs"]["siteConfig"]["properties"]
    assert schema["$defs"]["routerConfig"]["properties"].keys() == RouterConfig.model_fields.keys() - own - {
        "operations_names"
    }
    of_tls = {
        "tls_certificate_file",
        "tls_key_file",
    }  # the feed is heard inside its cluster, and probed at that port
    assert schema["$defs"]["feedConfig"]["properties"].keys() == FeedConfig.model_fields.keys() - own - of_tls
    assert site.keys() == SiteConfig.model_fields.keys() - own - {"site_id", "state_dir"}
    assert site["engine"]["properties"].keys() == engines
    assert schema["$defs"]["siteConfig"]["additionalProperties"] is False


def test_ports_that_speak_tls_are_called_by_https(tmp_path: Path) -> None:
    """The files come from one Secret, beside the configuration that names them."""
    pair = {"tls_certificate_file": "tls.crt", "tls_key_file": "tls.key"}
    calls = {"caFile": "ca.crt", "clientCertificateFile": "tls.crt", "clientKeyFile": "tls.key"}
    secured = {"router": {"config": pair}, "secretFiles": "certificates", "callsTls": calls}
    secured["siteDefaults"] = {"config": {**pair, "tls_client_ca_file": "ca.crt"}}
    everything = str(CHART / "examples" / "everything.yaml")
    objects = render("--values", everything, "--values", str(values_file(secured, tmp_path)))
    (config,) = [one for one in of_kind(objects, "ConfigMap") if "fleet.toml" in one["data"]]
    tables = tomllib.loads(config["data"]["fleet.toml"])
    assert tables["fleet"] == {
        "name": "default",
        "tls_ca_file": "ca.crt",
        "tls_client_certificate_file": "tls.crt",
        "tls_client_key_file": "tls.key",
    }
    assert {site["ingress_url"].split(":")[0] for site in tables["sites"]} == {"https"}
    assert {site["feed_url"].split(":")[0] for site in tables["sites"]} == {"http"}
    protocols = {
        (port["name"], port.get("appProtocol"))
        for one in of_kind(objects, "Service")
        for port in one["spec"]["ports"]
    }
    assert {("http", "https"), ("ingress", "https"), ("operations", "http"), ("feed", "http")} <= protocols
    assert ("http", "http") not in protocols
    for workload in herons(objects):
        volumes = pod_of(workload)["spec"]["volumes"]
        (volume,) = [one for one in volumes if one["name"] == "config"]
        assert {"secret": {"name": "certificates"}} in volume["projected"]["sources"]


def test_each_pod_sees_its_own_signing_key_alone(tmp_path: Path) -> None:
    """Under one name, which the configuration of all knows."""
    keys = {"power_feed": ["A"], "router": ["B"], "sites": {"north": ["C"], "coast": ["D"]}}
    signed = {
        "trustedKeys": keys,
        "router": {"signingKeySecret": "of-router"},
        "powerFeed": {"signingKeySecret": "of-feed"},
        "sites": {"north": {"signingKeySecret": "of-north"}, "coast": {"signingKeySecret": "of-coast"}},
    }
    everything = str(CHART / "examples" / "everything.yaml")
    objects = render("--values", everything, "--values", str(values_file(signed, tmp_path)))
    (config,) = [one for one in of_kind(objects, "ConfigMap") if "fleet.toml" in one["data"]]
    tables = tomllib.loads(config["data"]["fleet.toml"])
    assert tables["fleet"]["trusted_keys"] == keys
    for table in (tables["router"], tables["power_feed"], *(tables["sites"])):
        assert table.get("signing_key_file") == ("signing.pem" if table.get("site_id") != "ridge" else None)
    seen = {}
    for workload in herons(objects):
        (volume,) = [one for one in pod_of(workload)["spec"]["volumes"] if one["name"] == "config"]
        seen[workload["metadata"]["name"]] = [
            source["secret"]["name"] for source in volume["projected"]["sources"] if "secret" in source
        ]
    assert sorted(names for secrets in seen.values() for names in secrets) == [
        "of-coast",
        "of-feed",
        "of-north",
        "of-router",
    ]
    assert all(len(secrets) <= 1 for secrets in seen.values())


def test_alerts_and_dashboard_are_the_shipped_ones(rendered: dict[str, list[Object]], tmp_path: Path) -> None:
    """Word for word, the alerts less those that were left out; Prometheus' own checker takes them."""
    objects = rendered["every-option"]
    shipped = yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())
    (rule,) = of_kind(objects, "PrometheusRule")
    for group in shipped["groups"]:
        group["rules"] = [one for one in group["rules"] if one["alert"] != "HeronTargetMissing"]
    assert rule["spec"] == shipped
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump(rule["spec"]))
    command = [need("promtool", "prometheus"), "check", "rules", "--lint-fatal", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    dashboard = named(objects, "ConfigMap", "wind-dashboard")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    shipped_board = (ROOT / "deploy/grafana/dashboards/heron.json").read_text()
    assert json.loads(dashboard["data"]["heron.json"]) == json.loads(shipped_board)


def test_prometheus_finds_every_service_under_the_name_that_alerts_know(
    rendered: dict[str, list[Object]],
) -> None:
    """Each pod by one endpoint; the job is heron- and the component."""
    objects = rendered["every-option"]
    (monitor,) = of_kind(objects, "PodMonitor")
    endpoints = {endpoint["port"]: endpoint for endpoint in monitor["spec"]["podMetricsEndpoints"]}
    chosen = selected(of_kind(objects, *WORKLOADS), monitor["spec"]["selector"]["matchLabels"])
    jobs = set()
    for workload in herons(objects):
        assert workload in chosen
        (port,) = endpoints.keys() & {port["name"] for port in container_of(workload)["ports"]}
        (relabel,) = endpoints[port]["relabelings"]
        assert relabel["targetLabel"] == "job"
        jobs.add(relabel["replacement"].replace("$1", component(workload)))
    assert jobs == {"heron-router", "heron-power-feed", "heron-site"}
    rules = (ROOT / "deploy/prometheus/rules.yml").read_text()
    for job in ('job="heron-router"', 'job="heron-power-feed"', 'job=~"heron-site.*"'):
        assert job in rules


def test_a_package_holds_what_the_links_point_at(tmp_path: Path) -> None:
    """The chart has no second copy of rules and dashboard; Helm follows the links when it packs."""
    done = helm("package", str(CHART), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    with tarfile.open(tmp_path / f"heron-{chart['version']}.tgz") as package:
        for link in sorted((CHART / "files").iterdir()):
            assert link.is_symlink()
            assert link.resolve().is_relative_to(ROOT / "deploy")
            packed = package.extractfile(f"heron/files/{link.name}")
            assert packed is not None
            assert packed.read() == link.read_bytes()


@pytest.mark.parametrize("case", ["everything", "every-option", "farm"])
def test_the_notes_name_what_is_there(case: str, rendered: dict[str, list[Object]], tmp_path: Path) -> None:
    """Every command of Heron's in them parses; every object exists."""
    done = helm(
        *("install", "heron", str(CHART), "--namespace", NAMESPACE, "--dry-run=client"),
        *arguments(case, tmp_path),
    )
    assert done.returncode == 0, done.stderr
    notes = done.stdout.rpartition("NOTES:")[2]
    commands = re.findall(r"kubectl .* exec (\S+) -- \S+ -m cli\.main (.*)", notes)
    asks_for_keys = "auth" in fleet_of(rendered[case]).get("router", {}) and case == "everything"
    assert len(commands) == len(fleet_of(rendered[case])["sites"]) + asks_for_keys
    workloads = {
        one["metadata"]["name"] + ("-0" if one["kind"] == "StatefulSet" else "")
        for one in of_kind(rendered[case], *WORKLOADS)
    }
    for target, command in commands:
        assert target.removeprefix("deploy/") in workloads
        assert main.parse(shlex.split(command)).command in ("keys", "doctor")
    for service in re.findall(r"svc/(\S+)", notes):
        named(rendered[case], "Service", service)
