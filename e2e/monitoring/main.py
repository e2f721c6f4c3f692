"""The dashboards and alerts of the chart against the real thing. Entry point: ./run, see README.md.

Starts `nantian-shim standalone` with HTTP backends and an AI service, a load, and Prometheus; then asks
for every query of every panel, which must have an answer. The alerts go through `promtool`.
"""

import argparse
import contextlib
import http.server
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

sys.dont_write_bytecode = True

import dashboards  # noqa: E402

HERE = Path(__file__).resolve().parent
PATIENCE = 90


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Backend(http.server.BaseHTTPRequestHandler):
    """Answers 200, 404 and 503 by the path, and as a language model where it is asked as one."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, status, body, kind="text/plain"):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.send({"/shop/no": 404, "/shop/bad": 503}.get(self.path, 200), b"hello\n")

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not asked.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
            answer = {"id": "1", "object": "chat.completion", "created": 1, "model": asked["model"], "choices": [choice],
                      "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}}  # fmt: skip
            return self.send(200, json.dumps(answer).encode(), "application/json")
        pieces = []
        for word in ("yes", " and", " no"):
            delta = [{"index": 0, "delta": {"content": word}, "finish_reason": None}]
            pieces.append({"id": "1", "object": "chat.completion.chunk", "created": 1, "model": asked["model"], "choices": delta})
        pieces[-1]["choices"][0]["finish_reason"] = "stop"
        text = "".join(f"data: {json.dumps(it)}\n\n" for it in pieces) + "data: [DONE]\n\n"
        self.send(200, text.encode(), "text/event-stream")


def manifests(port, backend):
    api, own = "gateway.networking.k8s.io/v1", "gateway.nantian.dev/v1alpha1"

    def resource(version, kind, name, **rest):
        metadata = {"name": name, "namespace": "default", **rest.pop("metadata", {})}
        return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}

    def rule(path, target):
        match = {"path": {"type": "PathPrefix", "value": path}}
        return {"matches": [match], "backendRefs": [target]}

    controller = "gateway.networking.k8s.io/nantian-gw"
    yield {"apiVersion": api, "kind": "GatewayClass", "metadata": {"name": "gw"}, "spec": {"controllerName": controller}}
    listener = {"name": "http", "protocol": "HTTP", "port": port}
    yield resource(api, "Gateway", "web", spec={"gatewayClassName": "gw", "listeners": [listener]})
    rules = [rule("/shop", {"name": "shop", "port": 80}), rule("/gone", {"name": "gone", "port": 80})]
    yield resource(api, "HTTPRoute", "shop", spec={"parentRefs": [{"name": "web"}], "rules": rules})
    chat = rule("/v1", {"group": "gateway.nantian.dev", "kind": "AIService", "name": "chat"})
    yield resource(api, "HTTPRoute", "chat", spec={"parentRefs": [{"name": "web"}], "rules": [chat]})
    service = {"provider": "openai", "model": "tiny", "endpoint": f"http://127.0.0.1:{backend}/v1",
               "auth": {"type": "bearer", "secretRef": {"name": "key", "key": "token"}}}  # fmt: skip
    yield resource(own, "AIService", "chat", spec=service)
    yield resource("v1", "Secret", "key", stringData={"token": "a-key"})
    for name, at in (("shop", backend), ("gone", free_port())):
        ports = [{"name": "http", "port": 80, "targetPort": at}]
        yield resource("v1", "Service", name, spec={"selector": {"app": name}, "ports": ports})
        yield resource(
            "discovery.k8s.io/v1", "EndpointSlice", f"{name}-1", addressType="IPv4",
            metadata={"labels": {"kubernetes.io/service-name": name}}, ports=[{"name": "http", "port": at}],
            endpoints=[{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
        )  # fmt: skip


def get(url, body=None):
    request = urllib.request.Request(url, body, {"content-type": "application/json"} if body else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def wait(what, holds):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if holds():
                return
        time.sleep(0.2)
    raise SystemExit(f"{what}: not within {PATIENCE} s")


def load(gateway, over):
    while not over.wait(0.02):
        for path in ("/shop", "/shop/no", "/shop/bad", "/gone", "/nowhere"):
            get(gateway + path)
        for stream in (False, True):
            asked = {"model": "tiny", "stream": stream, "messages": [{"role": "user", "content": "well?"}]}
            get(f"{gateway}/v1/chat/completions", json.dumps(asked).encode())


@contextlib.contextmanager
def running(command, log):
    with open(log, "wb") as out:
        process = subprocess.Popen([str(it) for it in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield process
    finally:
        for _ in range(2):
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def asked(prometheus, expression):
    """How many series a query of a panel finds, as Grafana would ask it."""
    for name, text in (("$__rate_interval", "20s"), ("$controlplane_job", "shim"), ("$job", ".*"), ("$instance", ".*"), ("$route", ".*")):
        expression = expression.replace(name, text)
    status, text = get(f"{prometheus}/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
    answer = json.loads(text)
    return len(answer["data"]["result"]) if answer["status"] == "success" else f"{status}: {answer['error']}"


def panels():
    for name in dashboards.DASHBOARDS:
        board = json.loads((dashboards.OUT / f"{name}.json").read_text())
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield f"{name}: {panel['title']}", target["expr"]


def try_dashboards(folder, binaries):
    backend = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    threading.Thread(target=backend.serve_forever, daemon=True).start()
    port, data_plane, control_plane, at = free_port(), free_port(), free_port(), free_port()
    (folder / "manifests").mkdir()
    for number, it in enumerate(manifests(port, backend.server_port)):
        (folder / f"manifests/{number}.yaml").write_text(json.dumps(it))
    targets = {"dataplane": data_plane, "shim": control_plane}
    jobs = [{"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{it}"]}]} for job, it in targets.items()]
    config = folder / "prometheus.yaml"
    config.write_text(json.dumps({"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs}))
    gateway = [binaries / "nantian-shim", "standalone", "--admin-addr", f"127.0.0.1:{data_plane}",
               "--control-admin-addr", f"127.0.0.1:{control_plane}", folder / "manifests"]  # fmt: skip
    scraper = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{at}"]
    over = threading.Event()
    prometheus, here = f"http://127.0.0.1:{at}", f"http://127.0.0.1:{port}"
    with running(gateway, folder / "gateway.log"), running(scraper, folder / "prometheus.log"):
        wait("the gateway serves", lambda: get(f"{here}/shop")[0] == 200)
        loads = [threading.Thread(target=load, args=(here, over), daemon=True) for _ in range(2)]
        for it in loads:
            it.start()
        wait("Prometheus scrapes", lambda: asked(prometheus, "up == 1") == 2)
        left = dict.fromkeys(panels())
        end = time.monotonic() + PATIENCE
        while left and time.monotonic() < end:
            left = {it: found for it in left if (found := asked(prometheus, it[1])) == 0 or isinstance(found, str)}
            time.sleep(1 if left else 0)
        over.set()
        for it in loads:
            it.join(15)
    count = sum(1 for _ in panels())
    for (where, expression), found in left.items():
        print(f"NO DATA: {where}: {found}: {expression}")
    print(f"{count - len(left)} of {count} queries of panels are answered")
    return not left


def try_alerts(folder):
    """The rules of the chart, as Helm would write them, checked and tested."""
    text = (dashboards.ROOT / "charts/nantian-gw/files/rules.yaml").read_text()
    text = re.sub(r'\{\{ "(\{\{ .*? \}\})" \}\}', r"\1", text)
    text = text.replace('{{ include "nantian-gw.namespace" . }}', "nantian-gw")
    rules = folder / "rules.yaml"
    rules.write_text("groups:\n" + "".join(f"  {line}\n" for line in text.splitlines()))
    (folder / "alerts.test.yaml").write_text((HERE / "alerts.test.yaml").read_text())
    tests = [["promtool", "check", "rules", rules], ["promtool", "test", "rules", folder / "alerts.test.yaml"]]
    for command in tests:
        done = subprocess.run([str(it) for it in command], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            print(done.stdout + done.stderr)
            return False
    tested = set(re.findall(r"alertname: (\w+)", (HERE / "alerts.test.yaml").read_text()))
    untested = set(re.findall(r"alert: (\w+)", text)) - tested
    print(f"{len(tested)} alerts are tested" + (f", NOT {', '.join(sorted(untested))}" if untested else ""))
    return not untested


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binaries", type=Path, required=True)
    binaries = parser.parse_args().binaries.absolute()
    with tempfile.TemporaryDirectory(prefix="monitoring-") as folder:
        are_fresh = subprocess.run([sys.executable, HERE / "dashboards.py", "--check"], check=False).returncode == 0
        done = [are_fresh, try_alerts(Path(folder)), try_dashboards(Path(folder), binaries)]
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
