"""Runs `nantian-shim standalone` on a folder of manifests made for one run.

Ports are chosen by the kernel, the certificate is made anew by openssl. The suites use the
addresses of `Gateway`; what the gateway logs is in target/protocol/<suite>/gateway.log.
"""

import base64
import contextlib
import http.client
import json
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field

NAMES = ["gateway.test", "*.gateway.test", "localhost"]


@dataclass
class Outcome:
    """What a suite found: one line of figures, and lines for who asks why."""

    is_ok: bool
    figures: str
    detail: list = field(default_factory=list)


def free_port():
    """A loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port, process, seconds=30):
    """Waits until something accepts at the port."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"ended with {process.returncode}: {process.args}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens on port {port}: {process.args}")


@contextlib.contextmanager
def running(command, log_path, port):
    """A server for as long as the block lasts."""
    with open(log_path, "w") as log:
        process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_for_port(port, process)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Gateway:
    """A gateway with an HTTP and an HTTPS listener, and a backend port for each kind of origin."""

    def __init__(self, tools, binary, name):
        self.folder = tools.folder(name)
        self.log_path = self.folder / "gateway.log"
        self.binary = binary
        self.plain_port, self.tls_port = free_port(), free_port()
        self.admin_port, control_port = free_port(), free_port()
        # The origins that a suite may start: HTTP/1.1 (and WebSocket), and HTTP/2 in plain text.
        self.http_port, self.h2c_port = free_port(), free_port()
        self.certificate = self.folder / "certificate.pem"
        self.key = self.folder / "key.pem"
        self._make_certificate()
        manifests = self.folder / "manifests"
        manifests.mkdir()
        # JSON is YAML.
        (manifests / "gateway.yaml").write_text("\n---\n".join(json.dumps(it, indent=1) for it in self._manifests()))
        self.command = [binary, "standalone", "--admin-addr", f"127.0.0.1:{self.admin_port}",
                        "--control-admin-addr", f"127.0.0.1:{control_port}", manifests]

    def __enter__(self):
        self._stack = contextlib.ExitStack()
        self.process = self._stack.enter_context(running(self.command, self.log_path, self.admin_port))
        wait_for_port(self.tls_port, self.process)
        wait_for_port(self.plain_port, self.process)
        return self

    def __exit__(self, *_):
        # A second signal ends it at once: nothing of a suite is left that would be worth draining.
        self.process.send_signal(signal.SIGTERM)
        self._stack.close()

    def died(self):
        """Whether the gateway ended by itself, or a task in it panicked."""
        return self.process.poll() is not None or "panicked" in self.log_path.read_text(errors="replace")

    def get(self, path="/", headers=()):
        """Status and body of one plain request, to see that it still serves."""
        connection = http.client.HTTPConnection("127.0.0.1", self.plain_port, timeout=10)
        connection.request("GET", path, headers={"host": "gateway.test", **dict(headers)})
        response = connection.getresponse()
        return response.status, response.read()

    def _make_certificate(self):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-days", "30", "-subj", "/CN=gateway.test", "-addext",
             "subjectAltName=" + ",".join(f"DNS:{name}" for name in NAMES) + ",IP:127.0.0.1",
             "-keyout", str(self.key), "-out", str(self.certificate)],
            check=True, capture_output=True)

    def _manifests(self):
        api = "gateway.networking.k8s.io/v1"

        def meta(name):
            return {"name": name, "namespace": "default"}

        def route(kind, name, hosts, backend):
            return {"apiVersion": api, "kind": kind, "metadata": meta(name),
                    "spec": {"parentRefs": [{"name": "gateway"}], "hostnames": hosts,
                             "rules": [{"backendRefs": [{"name": backend, "port": 80}]}]}}

        def backend(name, port, protocol):
            yield {"apiVersion": "v1", "kind": "Service", "metadata": meta(name),
                   "spec": {"ports": [{"name": "main", "port": 80, "targetPort": port, **protocol}]}}
            yield {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                   "metadata": {**meta(name), "labels": {"kubernetes.io/service-name": name}},
                   "addressType": "IPv4", "ports": [{"name": "main", "port": port}],
                   "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}]}

        yield {"apiVersion": api, "kind": "GatewayClass", "metadata": {"name": "nantian-gw"},
               "spec": {"controllerName": "gateway.networking.k8s.io/nantian-gw"}}
        yield {"apiVersion": "v1", "kind": "Secret", "metadata": meta("certificate"), "type": "kubernetes.io/tls",
               "data": {"tls.crt": base64.b64encode(self.certificate.read_bytes()).decode(),
                        "tls.key": base64.b64encode(self.key.read_bytes()).decode()}}
        yield {"apiVersion": api, "kind": "Gateway", "metadata": meta("gateway"),
               "spec": {"gatewayClassName": "nantian-gw", "listeners": [
                   {"name": "plain", "protocol": "HTTP", "port": self.plain_port},
                   {"name": "tls", "protocol": "HTTPS", "port": self.tls_port,
                    "tls": {"mode": "Terminate", "certificateRefs": [{"name": "certificate"}]}}]}}
        yield from backend("http", self.http_port, {})
        yield from backend("h2c", self.h2c_port, {"appProtocol": "kubernetes.io/h2c"})
        # The suites name the host as it comes: an address, a port behind it, or a name of the certificate.
        # Only one of them is accepted where their host names meet, and the other is for every host.
        if self.folder.name == "grpc":
            yield route("GRPCRoute", "grpc", ["grpc.gateway.test", "localhost"], "h2c")
        else:
            yield route("HTTPRoute", "http", [], "http")
