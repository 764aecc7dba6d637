"""What `kubectl create --dry-run=client` asks an API server for, and nothing else: discovery.

kubectl has to know which resource a kind is, and whether it lives in a namespace; it asks the
server, also for a dry run on its own side. Here the answers are those of a cluster with the
Prometheus operator. Whatever else is asked for is refused, so nothing is ever created.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from typing_extensions import override

_RESOURCES: Final = {
    "v1": {"ConfigMap": "configmaps"},
    "apps/v1": {"DaemonSet": "daemonsets"},
    "monitoring.coreos.com/v1": {"PodMonitor": "podmonitors", "PrometheusRule": "prometheusrules"},
}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answer = _answer(self.path.partition("?")[0])
        content = json.dumps(answer).encode()
        self.send_response(404 if answer is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _answer(path: str) -> dict[str, object] | None:
    match path.removeprefix("/").split("/", 1):
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            groups = [_group(*version.split("/")) for version in _RESOURCES if "/" in version]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        case ["api" | "apis", version] if version in _RESOURCES:
            resources = [
                {
                    "name": name, "singularName": "", "kind": kind, "namespaced": True,
                    "verbs": ["create", "get"],
                }
                for kind, name in _RESOURCES[version].items()
            ]  # fmt: skip
            return {
                "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version,
                "resources": resources,
            }  # fmt: skip
        case _:
            return None


def _group(name: str, version: str) -> dict[str, object]:
    one = {"groupVersion": f"{name}/{version}", "version": version}
    return {"name": name, "versions": [one], "preferredVersion": one}


@contextmanager
def discovery() -> Iterator[str]:
    """Serve it; gives the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
