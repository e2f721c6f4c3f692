"""gRPC's own interoperability cases, client and server of grpc-go, in plain text and over TLS."""

import subprocess

from gateway import Outcome, running

VERSION = "v1.85.0"
CASES = [
    "empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
    "timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response", "status_code_and_message",
    "special_status_message", "custom_metadata", "unimplemented_method", "unimplemented_service",
]


def install(tools):
    """Client and server."""
    return [tools.go(f"google.golang.org/grpc/interop/{part}", VERSION, f"grpc-{part}") for part in ("client", "server")]


def run(needs, gateway):
    """Every case by both listeners; first straight to the server, to know that the case itself works."""
    client, server = needs
    # In plain text the client has no option for the authority, so the route has this name too.
    plain = ["--server_host=localhost", f"--server_port={gateway.plain_port}"]
    tls = ["--use_tls", "--use_test_ca", f"--ca_file={gateway.certificate}", "--server_host=127.0.0.1",
           f"--server_port={gateway.tls_port}", "--server_host_override=grpc.gateway.test"]
    ways = {"origin": ["--server_host=127.0.0.1", f"--server_port={gateway.h2c_port}"], "h2c": plain, "TLS": tls}
    passed, detail = dict.fromkeys(ways, 0), []
    with running([server, f"--port={gateway.h2c_port}"], gateway.folder / "server.log", gateway.h2c_port):
        for case in CASES:
            for name, where in ways.items():
                done = subprocess.run([client, f"--test_case={case}", *where], capture_output=True, text=True, timeout=60)
                passed[name] += done.returncode == 0
                if done.returncode != 0:
                    detail += [f"{name} {case}: {line[:300]}" for line in done.stderr.strip().splitlines()[-3:]]
    figures = ", ".join(f"{name} {count}/{len(CASES)}" for name, count in passed.items())
    return Outcome(all(count == len(CASES) for count in passed.values()), figures, detail)
