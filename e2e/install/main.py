"""An operator's life with the gateway in a real cluster: install, traffic, scaling, restarts, losses,
rotation, upgrade, uninstall. Entry point: ./run, which starts the cluster and loads images.

Each step is a function; what it asserts must hold, and what it returns goes into the table. Load is
500 requests a second of e2e/install/load.py, half of them on new connections.
"""

import argparse
import base64
import concurrent.futures
import contextlib
import datetime
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CHART = ROOT / "charts/nantian-gw"
NAMESPACE = "nantian-gw"
STEPS = []
RATE = int(os.environ.get("RATE", "500"))
DATA_PLANE = "deployment/nantian-gw-dataplane"
CONTROL_PLANE = "deployment/nantian-gw-controlplane"


def step(test):
    STEPS.append(test)
    return test


# --- tools --------------------------------------------------------------------------------------


def run(*command, check=True, text=None):
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=300)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stderr.strip()[-600:]}")
    return done.stdout


def kubectl(*arguments, **more):
    return run("kubectl", *arguments, **more)


def helm(verb, *arguments, chart=CHART):
    command = [verb, "nantian-gw", str(chart)] if verb in ("install", "upgrade") else [verb, "nantian-gw"]
    return run("helm", *command, "-n", NAMESPACE, *arguments)


def until(seconds, what, probe, pause=0.1):
    """Asks until the answer is true, and returns it with the seconds that took."""
    began = time.monotonic()
    problem = ""
    while time.monotonic() - began < seconds:
        try:
            if answer := probe():
                return answer, time.monotonic() - began
        except (OSError, AssertionError, ValueError) as error:
            problem = str(error)[-300:]
        time.sleep(pause)
    raise AssertionError(f"{what}: not after {seconds} s {problem}")


def rolled_out(*workloads, seconds=240):
    for workload in workloads:
        kubectl("-n", NAMESPACE, "rollout", "status", workload, f"--timeout={seconds}s")


def address(gateway="web"):
    find = lambda: kubectl("-n", "samples", "get", "gateway", gateway, "-o", "jsonpath={.status.addresses[0].value}")
    return until(60, f"an address of {gateway}", find)[0]


def get(host, port=80, name="samples.test", tls=None, path="/"):
    """Status and body of one request."""
    with contextlib.closing(socket.create_connection((host, port), timeout=5)) as plain:
        connection = tls.wrap_socket(plain, server_hostname=name) if tls else plain
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.decode() + body.decode(errors="replace")


def serves(host):
    return get(host)[0] == 200


@contextlib.contextmanager
def load(host):
    """Load while the block runs; afterwards what came of it is in the list that it gives."""
    client = subprocess.Popen(
        [sys.executable, str(HERE / "load.py"), host, "80", str(RATE)], stdout=subprocess.PIPE, text=True
    )
    counts = []
    time.sleep(2)
    try:
        yield counts
        time.sleep(2)
    finally:
        client.send_signal(signal.SIGTERM)
        counts.append(json.loads(client.communicate(timeout=60)[0]))


def no_failure(counts):
    it = counts[0]
    assert it["failed"] == 0, f"{it['failed']} of {it['sent']} requests failed: {it['failures']}"
    return f"0 of {it['sent']} requests failed, the longest took {it['longest'] * 1000:.0f} ms"


def edit(host, value):
    """Changes the route, and waits until it is served."""
    filters = [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-edit", "value": value}]}}]
    patch = {"spec": {"rules": [{"filters": filters, "backendRefs": [{"name": "echo", "port": 80}]}]}}
    kubectl("-n", "samples", "patch", "httproute", "echo", "--type=merge", "-p", json.dumps(patch))
    return until(90, f"the edit {value}", lambda: f"x-edit: {value}" in get(host)[1].lower())[1]


def edit_everywhere(host, value):
    """As `edit`; gives when the first data plane served it, and when all did."""
    began = time.monotonic()
    first = edit(host, value)
    # By whichever data plane the next ones are answered.
    until(90, f"the edit {value} everywhere", lambda: all(f"x-edit: {value}" in get(host)[1].lower() for _ in range(20)))
    return first, time.monotonic() - began


def pods(component):
    found = json.loads(kubectl("-n", NAMESPACE, "get", "pods", "-l", f"app.kubernetes.io/component={component}", "-o", "json"))
    return [pod for pod in found["items"] if "deletionTimestamp" not in pod["metadata"]]


def of_data_plane(pod, path):
    token = base64.b64decode(kubectl("-n", NAMESPACE, "get", "secret", "nantian-gw-dataplane-admin-auth", "-o", "jsonpath={.data.token}"))
    return run("curl", "-sf", "-H", f"Authorization: Bearer {token.decode()}", f"http://{pod['status']['podIP']}:19080{path}")


def everything():
    """Every object of the cluster that is neither an event nor bound to a pod's life."""
    kinds = kubectl("api-resources", "--verbs=list", "-o", "name").split()
    volatile = ("events", "leases", "endpoint", "componentstatuses", "metrics", "ipaddresses", "nodes")
    kinds = [kind for kind in kinds if not kind.startswith(volatile)]
    found = kubectl("get", ",".join(kinds), "-A", "-o", "name", "--ignore-not-found", check=False)
    return {name for name in found.split() if name.startswith("lease") is False}


# --- steps --------------------------------------------------------------------------------------


@step
def four_commands(state):
    """Install by Helm: four commands until the first 200"""
    state.before = everything()
    began = time.monotonic()
    for file in sorted(Path(os.environ["CRDS"]).glob("gateway.networking*.yaml")):
        kubectl("apply", "--server-side", "-f", str(file))
    helm("install", "--create-namespace", "-f", str(CHART / "values-standalone.yaml"), "--set", "crds.keep=false")
    kubectl("apply", "-k", str(ROOT / "manifests/samples"))
    state.web = address()
    until(60, "the first 200", lambda: serves(state.web))
    took = time.monotonic() - began
    assert took <= 60, f"{took:.1f} s"
    rolled_out(CONTROL_PLANE, DATA_PLANE)
    return f"{took:.1f} s"


@step
def helm_test(state):
    """helm test"""
    if not shutil.which("busybox"):
        return "NOT RUN: busybox is missing"
    run("helm", "test", "nantian-gw", "-n", NAMESPACE)
    return "passes"


@step
def protocols(state):
    """Traffic over every protocol"""
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = f"{folder}/tls.key", f"{folder}/tls.crt"
        names = "subjectAltName=DNS:samples.test,DNS:passed.samples.test"
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=samples.test",
            "-addext", names, "-keyout", key, "-out", certificate)
        kubectl("-n", "samples", "create", "secret", "tls", "samples-tls", "--key", key, "--cert", certificate)
        trusted = ssl.create_default_context(cafile=certificate)
    kubectl("apply", "-k", str(ROOT / "manifests/samples/protocols"))
    host = address("protocols")
    # By all data planes.
    kubectl("-n", "samples", "wait", "--for=condition=Programmed", "gateway/protocols", "--timeout=90s")
    until(90, "HTTP", lambda: get(host)[0] == 200)
    until(60, "HTTPS", lambda: get(host, 443, tls=trusted)[0] == 200)
    until(60, "TLS passed through", lambda: get(host, 8443, "passed.samples.test", trusted)[0] == 200)
    until(60, "TCP", lambda: get(host, 9000, "any.test")[0] == 200)
    query = bytes.fromhex("123401000001000000000000") + b"".join(
        bytes([len(part)]) + part for part in b"kubernetes.default.svc.cluster.local".split(b".")
    ) + bytes.fromhex("0000010001")

    def asked():
        with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
            client.settimeout(2)
            client.sendto(query, (host, 53))
            return client.recv(512)[:2] == query[:2]

    until(60, "UDP", asked)
    two = run("curl", "-s", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", "--http2-prior-knowledge",
              "-H", "Host: samples.test", f"http://{host}/")
    assert two == "2 200", two

    def upgraded():
        key = "dGhlIHNhbXBsZSBub25jZQ=="
        with contextlib.closing(socket.create_connection((host, 80), timeout=5)) as client:
            client.sendall(
                f"GET /ws HTTP/1.1\r\nHost: samples.test\r\nOrigin: http://samples.test\r\nUpgrade: websocket\r\n"
                f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
            )
            assert b" 101 " in client.recv(4096).split(b"\r\n")[0]
            client.sendall(b"\x81\x85\0\0\0\0hello")
            return b"hello" in client.recv(64)

    until(30, "WebSocket", upgraded)
    # No message of the service is at hand: that it answers by its own status is enough.
    grpc = run("curl", "-s", "-o", "/dev/null", "-D", "-", "--http2-prior-knowledge", "-X", "POST",
               "-H", "Host: grpc.samples.test", "-H", "Content-Type: application/grpc", "-H", "TE: trailers",
               "--data-binary", "@-", f"http://{host}/gateway_api_conformance.echo_basic.grpcecho.GrpcEcho/Echo",
               text="\0\0\0\0\0")
    assert "200" in grpc.split("\n")[0] and "application/grpc" in grpc, grpc
    kubectl("delete", "-k", str(ROOT / "manifests/samples/protocols"), "--wait=false")
    return "HTTP/1.1, HTTP/2, HTTPS, gRPC, WebSocket, TCP, UDP, TLS passed through"


@step
def idle(state):
    """An idle data plane, once its memory no longer changes"""
    pod = pods("dataplane")[0]
    said = []

    def rests():
        metrics = of_data_plane(pod, "/metrics")
        said.append(next(float(line.split()[1]) for line in metrics.splitlines() if line.startswith("process_resident_memory_bytes ")))
        return len(said) > 3 and max(said[-3:]) - min(said[-3:]) < 2**17

    # What configurations need is given back seconds after the last of them.
    until(60, "rest", rests, pause=3)
    memory = said[-1]
    # A debug build is larger than what is promised.
    assert memory <= 20 * 2**20 or "debug" in os.environ.get("E2E_BINARIES", "debug"), f"{memory / 2**20:.1f} MiB resident"
    return f"{memory / 2**20:.1f} MiB resident"


def leading():
    """The pod of the control plane that leads."""
    lease = ("-n", NAMESPACE, "get", "lease", "nantian-controlplane-leader", "-o", "jsonpath={.spec.holderIdentity}")
    return kubectl(*lease).split("_")[0]


@contextlib.contextmanager
def forwarded(workload, port):
    """A port of this host that leads to one of a pod, for as long as the block runs."""
    command = ["kubectl", "-n", NAMESPACE, "port-forward", workload, f":{port}"]
    forward = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield int(forward.stdout.readline().split("->")[0].rsplit(":", 1)[1])
    finally:
        forward.terminate()
        forward.wait(timeout=30)


@step
def look(state):
    """What the pages about operating say to ask: both ends' admin APIs, the console, logs, conditions"""
    said = kubectl("-n", NAMESPACE, "exec", "deploy/nantian-gw-dataplane", "--", "nantian-dataplane", "status")
    assert "ACTIVE" in said and "ready" in said, said
    secret = ("-n", NAMESPACE, "get", "secret", "nantian-gw-controlplane-admin-auth", "-o", "jsonpath={.data.token}")
    token = base64.b64decode(kubectl(*secret)).decode()
    # The others know no data plane.
    with forwarded(leading(), 18081) as port:
        asked = run("curl", "-sf", "-H", f"Authorization: Bearer {token}", f"http://127.0.0.1:{port}/api/v1/clients")
    known = {it["node_id"] for it in json.loads(asked)}
    there = {pod["metadata"]["name"] for pod in pods("dataplane")}
    assert known == there, f"{known} are not {there}"
    with forwarded(DATA_PLANE, 19080) as port:
        assert "<html" in run("curl", "-sf", f"http://localhost:{port}/").lower()
    kubectl("-n", "samples", "wait", "--for=condition=Programmed", "gateway/web", "--timeout=60s")
    assert "web" in kubectl("-n", "samples", "get", "gateway,httproute")
    assert "Programmed" in kubectl("-n", "samples", "describe", "gateway", "web")
    assert kubectl("-n", NAMESPACE, "logs", CONTROL_PLANE)
    return "all answer"


@step
def scale(state):
    """Scale 1 → 5 → 1 under load"""
    kubectl("-n", NAMESPACE, "scale", DATA_PLANE, "--replicas=1")
    until(150, "one pod", lambda: len(pods("dataplane")) == 1)
    rolled_out(DATA_PLANE)
    with load(state.web) as counts:
        kubectl("-n", NAMESPACE, "scale", DATA_PLANE, "--replicas=5")
        rolled_out(DATA_PLANE)
        time.sleep(5)
        kubectl("-n", NAMESPACE, "scale", DATA_PLANE, "--replicas=1")
        time.sleep(25)
    kubectl("-n", NAMESPACE, "scale", DATA_PLANE, "--replicas=2")
    rolled_out(DATA_PLANE)
    return no_failure(counts)


@step
def restart(state):
    """Rollout restart of data planes under load"""
    with load(state.web) as counts:
        kubectl("-n", NAMESPACE, "rollout", "restart", DATA_PLANE)
        rolled_out(DATA_PLANE)
        time.sleep(20)
    return no_failure(counts)


@step
def delete_pod(state):
    """kubectl delete pod of a data plane under load"""
    with load(state.web) as counts:
        kubectl("-n", NAMESPACE, "delete", "pod", pods("dataplane")[0]["metadata"]["name"], "--wait=false")
        time.sleep(25)
    rolled_out(DATA_PLANE)
    return no_failure(counts)


@step
def evict(state):
    """What a node drain does: an eviction under load; the last pod may not go"""
    rolled_out(DATA_PLANE)
    first, second = (pod["metadata"]["name"] for pod in pods("dataplane")[:2])

    def ask(name):
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": NAMESPACE}}
        return run("kubectl", "create", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction", "-f", "-",
                   text=json.dumps(eviction))

    with load(state.web) as counts:
        ask(first)
        refused = False
        try:
            ask(second)
        except AssertionError:
            refused = True
        time.sleep(20)
    assert refused, "both pods were evicted"
    rolled_out(DATA_PLANE)
    return no_failure(counts)


@step
def drain(state):
    """kubectl drain of the node under load; it is given back when one data plane is left, as another node would be there"""
    rolled_out(CONTROL_PLANE, DATA_PLANE)
    node = kubectl("get", "nodes", "-o", "name").split()[0]
    before = {pod["metadata"]["name"] for pod in pods("dataplane")}
    ready = lambda: int(kubectl("-n", NAMESPACE, "get", DATA_PLANE, "-o", "jsonpath={.status.readyReplicas}") or 0)
    with load(state.web) as counts:
        drained = subprocess.Popen(
            ["kubectl", "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=200s",
             "--pod-selector=app.kubernetes.io/instance=nantian-gw,app.kubernetes.io/component=dataplane"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            until(60, "one data plane left", lambda: ready() == 1)
            # The budget holds it, for as long as nowhere is room for another one.
            for _ in range(20):
                assert ready() == 1 and drained.poll() is None, "the last data plane was not held"
                time.sleep(1)
            kubectl("uncordon", node)
            said = drained.communicate(timeout=240)[0]
        finally:
            drained.kill()
            kubectl("uncordon", node)
        assert drained.returncode == 0, said[-600:]
        rolled_out(DATA_PLANE)
        time.sleep(5)
    assert "disruption budget" in said, said[-600:]
    assert not before & {pod["metadata"]["name"] for pod in pods("dataplane")}, "one that was there stayed"
    return no_failure(counts)


@step
def leader(state):
    """Loss of the leading control plane under load"""
    holder = leading()
    with load(state.web) as counts:
        kubectl("-n", NAMESPACE, "delete", "pod", holder, "--grace-period=0", "--force", "--wait=false")
        took = edit(state.web, "leader-lost")
    return f"{no_failure(counts)}; an edit made at once was served after {took:.1f} s"


@step
def away(state):
    """No control plane under load"""
    with load(state.web) as counts:
        kubectl("-n", NAMESPACE, "scale", CONTROL_PLANE, "--replicas=0")
        time.sleep(state.away)
        kubectl("-n", NAMESPACE, "scale", CONTROL_PLANE, "--replicas=2")
        # Another one each time that the step runs in a cluster.
        first, last = edit_everywhere(state.web, f"back-at-{time.time():.0f}")
    rolled_out(CONTROL_PLANE)
    return f"{state.away} s: {no_failure(counts)}; back, an edit was served after {first:.1f} s, by both after {last:.1f} s"


@step
def rotation(state):
    """New certificates and a new authority under load, by helm upgrade"""
    with load(state.web) as counts:
        past = "gateway.nantian.dev/renew-after=0"
        for name in ("ca", "server-tls", "client-tls"):
            kubectl("-n", NAMESPACE, "annotate", "--overwrite", "secret", f"nantian-gw-grpc-{name}", past)
        read = ("-n", NAMESPACE, "get", "secret", "nantian-gw-grpc-server-tls", "-o", "jsonpath={.data.tls\\.crt}")
        former = kubectl(*read)
        helm("upgrade", "-f", str(CHART / "values-standalone.yaml"), "--set", "crds.keep=false")
        assert kubectl(*read) != former, "the certificate is the same"
        time.sleep(75)  # a kubelet's time to renew files
        kubectl("-n", NAMESPACE, "rollout", "restart", CONTROL_PLANE)
        rolled_out(CONTROL_PLANE)
        took = edit(state.web, "rotated")
    return f"{no_failure(counts)}; with the new ones an edit was served after {took:.1f} s"


def first_chart(folder):
    """The chart as it came into this repository, packed as version 0.0.1, and its commit."""
    git = lambda *arguments: run("git", "-C", str(ROOT), *arguments)
    commit = git("log", "--diff-filter=A", "--format=%h", "--", "charts/nantian-gw/Chart.yaml").split()[-1]
    git("archive", "--format=tar", f"--output={folder}/first.tar", commit, "charts", "manifests/crds")
    run("tar", "-xf", f"{folder}/first.tar", "-C", folder)
    run("helm", "package", f"{folder}/charts/nantian-gw", "--version", "0.0.1", "--destination", folder)
    return f"{folder}/nantian-gw-0.0.1.tgz", commit


@step
def upgrade(state):
    """helm upgrade from the first chart of this repository, and rollback to it, under load"""
    with tempfile.TemporaryDirectory() as folder:
        first, commit = first_chart(folder)
        # Other settings too, so that every pod is replaced.
        helm("upgrade", "-f", f"{folder}/charts/nantian-gw/values-standalone.yaml",
             "--set", "crds.keep=false,dataplane.config.log.level=warn,controlplane.podAnnotations.chart=first,dataplane.image.tag=former", chart=first)
        rolled_out(CONTROL_PLANE, DATA_PLANE)
    history = run("helm", "history", "nantian-gw", "-n", NAMESPACE, "--max", "1", "-o", "json")
    former = str(json.loads(history)[-1]["revision"])
    session = ("-n", NAMESPACE, "get", "secret", "nantian-gw-dataplane-session-persistence", "-o", "jsonpath={.data}")
    kept = kubectl(*session)
    with load(state.web) as counts:
        # The control plane first, then data planes.
        for image in ("dataplane.image.tag=former", "dataplane.image.tag="):
            helm("upgrade", "-f", str(CHART / "values-standalone.yaml"), "--set", f"crds.keep=false,{image}")
            rolled_out(CONTROL_PLANE, DATA_PLANE)
        edit(state.web, "upgraded")
        time.sleep(15)
        helm("rollback", former)
        rolled_out(CONTROL_PLANE, DATA_PLANE)
        edit(state.web, "rolled-back")
        time.sleep(15)
    assert kubectl(*session) == kept, "the key of sessions was not kept"
    helm("upgrade", "-f", str(CHART / "values-standalone.yaml"), "--set", "crds.keep=false")
    rolled_out(CONTROL_PLANE, DATA_PLANE)
    return f"{no_failure(counts)} (the chart of {commit}, today's images)"


@step
def migration(state):
    """From another gateway to this one by parentRefs, under load at either; the other is this chart with a class and a controller of its own"""
    other = ("other", "-n", "other-gw")
    patch = lambda *operations: kubectl("-n", "samples", "patch", "httproute", "echo", "--type=json", "-p", json.dumps(operations))
    parent = lambda name: {"name": name}
    run("helm", "install", *other, str(CHART), "--create-namespace", "-f", str(CHART / "values-standalone.yaml"), "--set",
        "crds.install=false,namespace.name=other-gw,gatewayClass.name=other,gatewayClass.controllerName=example.com/other")
    gateway = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "old", "namespace": "samples"},
               "spec": {"gatewayClassName": "other", "listeners": [{"name": "http", "protocol": "HTTP", "port": 80}]}}
    kubectl("apply", "-f", "-", text=json.dumps(gateway))
    patch({"op": "replace", "path": "/spec/parentRefs", "value": [parent("old")]})
    old = address("old")
    until(60, "the first 200 of the other gateway", lambda: serves(old))
    until(60, "the end of the route here", lambda: get(state.web)[0] == 404)
    with load(old) as before:
        patch({"op": "add", "path": "/spec/parentRefs/-", "value": parent("web")})
        until(60, "the first 200 here", lambda: serves(state.web))
        time.sleep(5)
    said = json.loads(kubectl("-n", "samples", "get", "httproute", "echo", "-o", "json"))["status"]["parents"]
    controllers = {it["controllerName"] for it in said if any(c["type"] == "Accepted" and c["status"] == "True" for c in it["conditions"])}
    assert len(controllers) == 2, said
    with load(state.web) as after:
        patch({"op": "replace", "path": "/spec/parentRefs", "value": [parent("web")]})
        until(60, "the end of the route there", lambda: get(old)[0] == 404)
        kubectl("-n", "samples", "delete", "gateway", "old")
        run("helm", "uninstall", *other)
        kubectl("delete", "namespace", "other-gw")
        edit(state.web, "migrated")
    return f"there {no_failure(before)}; here {no_failure(after)}"


@step
def many_routes(state):
    """A data plane starts while there are 5,000 routes"""
    count, parts = 5000, 5
    route = lambda at: {
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": f"many-{at}", "namespace": "samples", "labels": {"many": "routes"}},
        "spec": {"parentRefs": [{"name": "web"}], "hostnames": [f"many-{at}.test"],
                 "rules": [{"backendRefs": [{"name": "echo", "port": 80}]}]},
    }
    made = lambda part: kubectl("create", "-f", "-", text=json.dumps(
        {"apiVersion": "v1", "kind": "List", "items": [route(at) for at in range(part, count, parts)]}))
    with concurrent.futures.ThreadPoolExecutor(parts) as threads:
        list(threads.map(made, range(parts)))
    served = lambda: all(get(state.web, name=f"many-{at}.test")[0] == 200 for at in range(count - parts, count))
    until(120, "the last routes", served)
    took = []
    for _ in range(3):
        before = {pod["metadata"]["name"] for pod in pods("dataplane")}
        kubectl("-n", NAMESPACE, "delete", "pod", sorted(before)[0], "--wait=false")
        fresh = lambda: [pod for pod in pods("dataplane") if pod["metadata"]["name"] not in before and "podIP" in pod["status"]]
        pod = until(60, "a new pod", fresh)[0][0]
        until(60, "that it is ready", lambda: get(pod["status"]["podIP"], 19080, path="/readyz")[0] == 200)
        metrics = of_data_plane(pod, "/metrics").splitlines()
        value = lambda name: next(float(line.split()[1]) for line in metrics if line.startswith(name + " "))
        # By the log: a kubelet tells of a pod up to a second after its start.
        log = kubectl("-n", NAMESPACE, "logs", "--timestamps", pod["metadata"]["name"])
        applied = next(line.split()[0] for line in log.splitlines() if "configuration applied" in line)
        applied = datetime.datetime.fromisoformat(applied[:26].rstrip("Z") + "+00:00").timestamp()
        took.append(applied - value("process_start_time_seconds"))
        assert took[-1] <= 2, f"ready after {took[-1]:.2f} s, its log:\n{log}"
        resident = value("process_resident_memory_bytes")
        rolled_out(DATA_PLANE)
    kubectl("-n", "samples", "delete", "httproutes", "-l", "many=routes", "--wait=false")
    times = ", ".join(f"{it * 1000:.0f}" for it in took)
    return f"ready {times} ms after the start of the process, {resident / 2**20:.0f} MiB resident"


def clean(state):
    kubectl("delete", "-k", str(ROOT / "manifests/samples"), "--ignore-not-found")
    until(60, "the Gateways' Services", lambda: "samples" not in kubectl("get", "svc", "-A", "-o", "name"))


def nothing_left(state):
    def left():
        return {it for it in everything() - state.before if not it.startswith(("pod/", "namespace/nantian-gw", "serviceaccount/default", "configmap/kube-root-ca.crt", "controllerrevision", "customresourcedefinition.apiextensions.k8s.io/"))}

    try:
        until(120, "nothing left", lambda: not left())
    except AssertionError:
        raise AssertionError(f"left: {sorted(left())}") from None
    return "nothing is left"


@step
def uninstall(state):
    """helm uninstall"""
    clean(state)
    helm("uninstall", "--wait")
    kinds = kubectl("get", "crd", "-o", "name")
    assert "gateway.nantian.dev" not in kinds, kinds
    said = nothing_left(state)
    kubectl("delete", "namespace", NAMESPACE)
    return said


def by_kustomize(state, folder, block):
    """Installs a folder, lets the block run with the Gateway's address, and takes all away."""
    began = time.monotonic()
    kubectl("apply", "--server-side", "-k", str(ROOT / "manifests/crds"))
    run(str(ROOT / "manifests/secrets"))
    kubectl("apply", "--server-side", "-k", str(ROOT / "manifests" / folder))
    kubectl("apply", "-k", str(ROOT / "manifests/samples"))
    web = address()
    until(60, "the first 200", lambda: serves(web))
    took = time.monotonic() - began
    rolled_out(CONTROL_PLANE, DATA_PLANE)
    said = block(web)
    clean(state)
    kubectl("delete", "-k", str(ROOT / "manifests" / folder))
    kubectl("delete", "-k", str(ROOT / "manifests/crds"))
    return f"first 200 after {took:.1f} s; {said}{nothing_left(state)}"


@step
def kustomize(state):
    """Install by Kustomize (standalone), renew its certificates under load, and take it away"""

    def renewed(web):
        with load(web) as counts:
            environment = {**os.environ, "RENEW": "1"}
            subprocess.run([str(ROOT / "manifests/secrets")], env=environment, check=True, capture_output=True)
            edit(web, "renewed")
        return no_failure(counts) + "; "

    return by_kustomize(state, "standalone", renewed)


@step
def kind_overlay(state):
    """Install by Kustomize (overlays/kind), and take it away"""
    def control_plane_first(web):
        kubectl("apply", "--server-side", "-k", str(ROOT / "manifests/overlays/kind"), "-l", "app.kubernetes.io/component=controlplane")
        rolled_out(CONTROL_PLANE)
        edit(web, "upgraded")
        return ""

    return by_kustomize(state, "overlays/kind", control_plane_first)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--away", type=int, default=60)
    parser.add_argument("--reuse", action="store_true")
    state = parser.parse_args()
    chosen = [it for it in STEPS if not state.only or it.__name__ in state.only.split(",")]
    if STEPS[0] not in chosen:
        # What is there already stays out of the account of what is left.
        state.before = everything()
        state.web = kubectl("-n", "samples", "get", "gateway", "web", "-o", "jsonpath={.status.addresses[0].value}", check=False)
    rows, failed = [], 0
    for test in chosen:
        began = time.monotonic()
        try:
            outcome = test(state)
        except Exception as error:  # one step that fails does not hide the others
            failed += 1
            outcome = f"**FAILED**: {error}"
        rows.append((test.__doc__, outcome, time.monotonic() - began))
        print(f"{test.__name__}: {outcome} ({rows[-1][2]:.0f} s)", flush=True)
    table = "| what is done | what came of it |\n|---|---|\n" + "".join(f"| {what} | {outcome} |\n" for what, outcome, _ in rows)
    print("\n" + table)
    if state.results:
        state.results.write_text(table)
    sys.exit(1 if failed else 0)


main()
