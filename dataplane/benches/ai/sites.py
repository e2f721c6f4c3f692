"""What is measured and what it talks to: a mock of both providers, our gateway, LiteLLM.

The mock is nginx for answers and whole streams, because it must never be what is waited for, and a
small server of ours (`held.py`) for streams that never end.
"""

import json
import os
import pathlib
import subprocess
import sys

from process import Failure, free_ports

HERE = pathlib.Path(__file__).resolve().parent
SENTENCE = "The quick brown fox jumps over the lazy dog and asks for the report of Tuesday. "
# In one stream.
DELTAS = 2000
LITELLM = "litellm[proxy]==1.106.2"


def write(folder, name, text):
    path = pathlib.Path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def sse(event, data):
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {data if isinstance(data, str) else json.dumps(data)}\n\n"


def openai_stream():
    def chunk(delta, finish=None):
        return sse("", {
            "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})  # fmt: skip
    usage = {"prompt_tokens": 9, "completion_tokens": DELTAS, "total_tokens": DELTAS + 9}
    last = sse("", {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
                    "choices": [], "usage": usage})  # fmt: skip
    return (chunk({"role": "assistant", "content": ""}) + chunk({"content": " token"}) * DELTAS
            + chunk({}, "stop") + last + sse("", "[DONE]"))  # fmt: skip


def anthropic_stream():
    message = {"id": "m", "type": "message", "role": "assistant", "model": "claude", "content": [],
               "stop_reason": None, "usage": {"input_tokens": 9, "output_tokens": 1}}  # fmt: skip
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " token"}}
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    stop = {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": DELTAS}}  # fmt: skip
    return (sse("message_start", {"type": "message_start", "message": message})
            + sse("content_block_start", block) + sse("content_block_delta", delta) * DELTAS
            + sse("content_block_stop", {"type": "content_block_stop", "index": 0})
            + sse("message_delta", stop) + sse("message_stop", {"type": "message_stop"}))  # fmt: skip


def mock(processes, folder):
    """Both providers; whether an answer streams is told by the request's own words."""
    text = SENTENCE * 45
    openai = {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 900, "completion_tokens": 800, "total_tokens": 1700}}  # fmt: skip
    anthropic = {
        "id": "m", "type": "message", "role": "assistant", "model": "claude",
        "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "stop_sequence": None,
        "usage": {"input_tokens": 900, "output_tokens": 800}}  # fmt: skip
    whole, streams, held = free_ports(3)
    for name, content in (("openai.json", json.dumps(openai)), ("anthropic.json", json.dumps(anthropic)),
                          ("openai.sse", openai_stream()), ("anthropic.sse", anthropic_stream())):  # fmt: skip
        write(folder, f"answers/{name}", content)
    # Its workers must be able to read what is in a folder of ours.
    user = "user root;" if os.getuid() == 0 else ""
    config = f"""{user} daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err error;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 100000000; client_max_body_size 8m; client_body_buffer_size 1m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; tcp_nodelay on; sendfile off;
  open_file_cache max=10; types {{ application/json json; text/event-stream sse; }}
  root {folder}/answers; error_page 405 =200 $uri;
  server {{ listen 127.0.0.1:{whole} backlog=4096;
    location ~ /chat/completions$ {{ rewrite ^ /openai.json last; }}
    location ~ /messages$ {{ rewrite ^ /anthropic.json last; }} }}
  server {{ listen 127.0.0.1:{streams} backlog=4096;
    location ~ /chat/completions$ {{ rewrite ^ /openai.sse last; }}
    location ~ /messages$ {{ rewrite ^ /anthropic.sse last; }} }}
}}
"""
    running = processes.start("nginx", ["nginx", "-c", write(folder, "nginx.conf", config)])
    second = processes.start("held", [sys.executable, str(HERE / "held.py"), str(held)])
    return {"whole": whole, "streams": streams, "held": held, "running": [running, second]}


def ours(processes, folder, binaries, site, place):
    port, grpc, shim_admin, admin = free_ports(4)
    write(folder, "manifests/all.yaml", manifests(port, site))
    bootstrap = {
        "nodeId": "bench", "controlPlaneAddr": f"http://127.0.0.1:{grpc}",
        "xdsTls": {"enabled": False}, "adminAddr": f"127.0.0.1:{admin}",
        "accessLog": {"enabled": False},
        # Streams are requests, too: more than 1,024 at once need more than the defaults.
        "runtimeProtection": {
            "httpBackendCircuitBreakerMaxRequests": 8192, "httpBackendMaxConnections": 8192},
        "runtimeTuning": {"httpCapacity": {"workerThreads": 1}, "gracefulDrainPeriodMs": 500},
    }  # fmt: skip
    config = write(folder, "bootstrap.yaml", json.dumps(bootstrap))
    binary = lambda name: os.path.join(binaries, name)  # noqa: E731
    for name in ("nantian-shim", "nantian-dataplane"):
        if not os.path.exists(binary(name)):
            raise Failure(f"{binary(name)} is missing: cargo build --release --workspace")
    processes.start("shim", [binary("nantian-shim"), "serve", "--source", "files",
                             os.path.join(folder, "manifests"), f"--grpc-addr=127.0.0.1:{grpc}",
                             f"--admin-addr=127.0.0.1:{shim_admin}"])  # fmt: skip
    command = [binary("nantian-dataplane"), "--config", config]
    running = processes.start("ours", command, preexec_fn=place)
    return {"name": "ours", "port": port, "running": running}


def manifests(port, site):
    def backend(name, port):
        return f"""apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default}}
spec: {{ports: [{{name: http, port: {port}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, namespace: default, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: http, port: {port}}}]
endpoints: [{{addresses: ["127.0.0.1"]}}]
---
"""

    def service(name, provider, port):
        return f"""apiVersion: gateway.nantian.dev/v1alpha1
kind: AIService
metadata: {{name: {name}, namespace: default}}
spec: {{provider: {provider}, model: m, endpoint: "http://127.0.0.1:{port}", auth: {{type: bearer, secretRef: {{name: key, key: token}}}}}}
---
"""

    def rule(prefix, backend, body=""):
        matches = [{"path": {"type": "PathPrefix", "value": prefix}}]
        if body:
            matches[0]["headers"] = [{"name": "x-bench", "value": body}]
        return {"matches": matches, "backendRefs": [backend]}

    ai = lambda name: {"group": "gateway.nantian.dev", "kind": "AIService", "name": name}  # noqa: E731
    rules = [rule("/plain", {"name": "plain", "port": site["whole"]})]
    services = ""
    for name in ("openai", "anthropic"):
        services += service(name, name, site["whole"]) + service(f"{name}-streams", name, site["streams"])
        rules.append(rule(f"/{name}", ai(f"{name}-streams"), "stream"))
        rules.append(rule(f"/{name}", ai(name)))
    services += service("held", "anthropic", site["held"])
    rules.append(rule("/held", ai("held")))
    route = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
             "metadata": {"name": "all", "namespace": "default"},
             "spec": {"parentRefs": [{"name": "gw"}], "rules": rules}}  # fmt: skip
    return (f"""apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: nantian-gw}}
spec: {{controllerName: gateway.networking.k8s.io/nantian-gw}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gw, namespace: default}}
spec: {{gatewayClassName: nantian-gw, listeners: [{{name: http, protocol: HTTP, port: {port}}}]}}
---
apiVersion: v1
kind: Secret
metadata: {{name: key, namespace: default}}
stringData: {{token: a-key}}
---
""" + backend("plain", site["whole"]) + services + json.dumps(route) + "\n")  # fmt: skip


def install(out):
    """LiteLLM's venv, made once; nothing when that fails, which is said."""
    venv = pathlib.Path(out, "litellm")
    done = venv / "installed"
    if done.exists() and done.read_text(encoding="utf-8") == LITELLM:
        return venv
    steps = ([sys.executable, "-m", "venv", "--clear", str(venv)],
             [str(venv / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", LITELLM])  # fmt: skip
    for step in steps:
        if subprocess.run(step, check=False).returncode:
            print(f"LITELLM IS NOT MEASURED: {' '.join(step)} failed", file=sys.stderr)
            return None
    done.write_text(LITELLM, encoding="utf-8")
    return venv


def litellm(processes, folder, out, site, place):
    """LiteLLM's proxy with one worker."""
    venv = install(out)
    if venv is None:
        return None
    (port,) = free_ports(1)
    models = [
        {"model_name": name, "litellm_params": {
            "model": f"{provider}/m", "api_key": "a-key", "api_base": f"http://127.0.0.1:{at}{base}"}}
        for name, provider, at, base in (
            ("openai", "openai", site["whole"], "/v1"), ("anthropic", "anthropic", site["whole"], ""),
            ("openai-streams", "openai", site["streams"], "/v1"),
            ("anthropic-streams", "anthropic", site["streams"], ""))
    ]  # fmt: skip
    config = {
        "model_list": models, "litellm_settings": {"drop_params": True, "telemetry": False},
        # It would not start without a key of its own; nobody is asked for one here, as with ours.
        "general_settings": {"dangerously_permit_weak_or_unset_master_key": True},
    }  # fmt: skip
    path = write(folder, "litellm.yaml", json.dumps(config))
    command = [str(venv / "bin/litellm"), "--config", path, "--host", "127.0.0.1", "--port", str(port),
               "--num_workers", "1"]  # fmt: skip
    environment = os.environ | {"LITELLM_LOG": "ERROR", "NO_PROXY": "127.0.0.1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    running = processes.start("litellm", command, preexec_fn=place, env=environment)
    return {"name": "litellm", "port": port, "running": running}
