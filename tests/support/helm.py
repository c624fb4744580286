"""The Helm chart, rendered by a real Helm, and what its objects say of each other."""

from __future__ import annotations

import base64
import functools
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "heron"
NAMESPACE = "wind"
TOOLS_VARIABLE = "HERON_HELM_TOOLS"
KUBERNETES = ("1.29", "1.37")
"""The oldest that the chart takes, and the newest whose schemas there are."""
NOT_KUBERNETES = ("HTTPRoute", "PodMonitor", "PrometheusRule")
"""Custom resources: whoever installs their operators has their schemas."""
WORKLOADS = ("Deployment", "StatefulSet")

Object = dict[str, Any]


def tools() -> Path:
    """The directory of scripts/helm-tools. Without it the test skips; in CI (`CI=true`) it fails."""
    found = os.environ.get(TOOLS_VARIABLE)
    if found:
        return Path(found)
    message = f"no Helm: set {TOOLS_VARIABLE} to what scripts/helm-tools prints (scripts/test does)"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Helm's own command line, which knows no cluster and nobody's settings."""
    with tempfile.TemporaryDirectory() as home:
        return subprocess.run(
            [str(tools() / "helm"), *arguments],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "HOME": home, "KUBECONFIG": "/dev/null"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


def values_file(values: Mapping[str, Any], directory: Path) -> Path:
    path = directory / "values.yaml"
    path.write_text(yaml.safe_dump(dict(values)))
    return path


def render(*arguments: str, release: str = "heron") -> list[Object]:
    """Every object of the release; `arguments` as for `helm template`."""
    done = helm("template", release, str(CHART), "--namespace", NAMESPACE, *arguments)
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    return [found for found in objects if found["kind"] in kinds]


def named(objects: list[Object], kind: str, name: str) -> Object:
    return next(found for found in of_kind(objects, kind) if found["metadata"]["name"] == name)


def component(found: Object) -> str:
    label: str = found["metadata"]["labels"]["app.kubernetes.io/component"]
    return label


def pod_of(workload: Object) -> Object:
    template: Object = workload["spec"]["template"]
    return template


def container_of(workload: Object) -> Object:
    containers = pod_of(workload)["spec"]["containers"]
    assert len(containers) == 1
    only: Object = containers[0]
    return only


def selected(workloads: list[Object], labels: Mapping[str, str]) -> list[Object]:
    """The workloads whose pods have these labels."""
    return [one for one in workloads if labels.items() <= pod_of(one)["metadata"]["labels"].items()]


def secrets_of(objects: list[Object]) -> dict[tuple[str, str], str]:
    """(Secret, key) → what the chart made."""
    return {
        (found["metadata"]["name"], key): base64.b64decode(value).decode()
        for found in of_kind(objects, "Secret")
        for key, value in found["data"].items()
    }


def environment_of(workload: Object, objects: list[Object]) -> dict[str, str]:
    """As the kubelet makes it; a Secret that is not the chart's gives its key in capitals."""
    known = secrets_of(objects)
    made: dict[str, str] = {}
    for entry in container_of(workload).get("env", []):
        if "valueFrom" in entry:
            reference = entry["valueFrom"]["secretKeyRef"]
            place = (reference["name"], reference["key"])
            foreign = "redis://somewhere/0" if place[1] == "redis-url" else place[1].upper()
            made[entry["name"]] = known.get(place, foreign)
        else:
            made[entry["name"]] = expand(entry["value"], made)
    return made


def expand(text: str, environment: Mapping[str, str]) -> str:
    """Kubernetes' `$(NAME)`; of a name that is not there it leaves the text."""
    return re.sub(r"\$\(([A-Za-z_]\w*)\)", lambda match: environment.get(match[1], match[0]), text)


@functools.cache
def _validator_of(version: str, definition: str) -> jsonschema.protocols.Validator:
    schemas = json.loads((tools() / f"kubernetes-{version}.json").read_text())
    del schemas["$id"]  # no base for references: all are inside
    return jsonschema.Draft202012Validator({**schemas, "$ref": f"#/$defs/{definition}"})


def faults_in(found: Object, version: str) -> Iterator[str]:
    """What Kubernetes' schema of that version finds wrong, keys that it does not know too."""
    group, _, api = found["apiVersion"].rpartition("/")
    name = f"io.k8s.api.{group.partition('.')[0] or 'core'}.{api}.{found['kind']}"
    for error in _validator_of(version, name).iter_errors(found):
        yield f"{found['kind']} {found['metadata']['name']}: {error.json_path}: {error.message}"


def nulls_in(value: Any, path: str = "") -> Iterator[str]:
    """Where a template left a key without a value."""
    if value is None:
        yield path
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, child in children:
        yield from nulls_in(child, f"{path}.{key}")
