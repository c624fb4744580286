"""A fake of the little of a Kubernetes API server that Helm asks before it renders: kinds, and one Secret."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KINDS = {
    "v1": ("Secret", "ConfigMap", "Service"),
    "apps/v1": ("Deployment", "StatefulSet"),
    "policy/v1": ("PodDisruptionBudget",),
    "networking.k8s.io/v1": ("NetworkPolicy",),
}


def _pages() -> dict[str, Any]:
    """Path → answer."""
    groups = [version for version in KINDS if "/" in version]
    pages: dict[str, Any] = {
        "/version": {"major": "1", "minor": "33", "gitVersion": "v1.33.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [
                {
                    "name": version.partition("/")[0],
                    "versions": [{"groupVersion": version, "version": "v1"}],
                    "preferredVersion": {"groupVersion": version, "version": "v1"},
                }
                for version in groups
            ],
        },
    }
    for version, kinds in KINDS.items():
        resources = [
            {
                "name": kind.lower() + ("ies" if kind.endswith("y") else "s"),
                "singularName": "",
                "namespaced": True,
                "kind": kind,
                "verbs": ["get"],
            }
            for kind in kinds
        ]
        path = f"/apis/{version}" if "/" in version else f"/api/{version}"
        pages[path] = {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
    return pages


@contextmanager
def kubernetes_api(secret: dict[str, Any]) -> Iterator[str]:
    """Its URL; the cluster holds this Secret and nothing else."""
    metadata = secret["metadata"]
    pages = _pages() | {f"/api/v1/namespaces/{metadata['namespace']}/secrets/{metadata['name']}": secret}
    missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = pages.get(self.path.partition("?")[0])
            body = json.dumps(missing if found is None else found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
