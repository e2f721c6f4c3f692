"""Everyday clients: curl over 1.0, 1.1, 2 and 2 in plain text, h2load, keep-alive, bodies, trailers.

Not a conformance suite: it finds what the others assume, such as that ALPN offers both versions.
"""

import re
import subprocess
import sys
from pathlib import Path

from gateway import Outcome, running

ORIGIN = Path(__file__).resolve().parents[1] / "origin.py"
MEBIBYTE = 1 << 20


def install(tools):
    """curl and h2load."""
    return tools.debian("curl", "curl"), tools.debian("nghttp2-client", "h2load")


def run(needs, gateway):
    """One row for each check; every check is an exact comparison."""
    curl, h2load = needs
    plain, tls = f"http://127.0.0.1:{gateway.plain_port}", f"https://127.0.0.1:{gateway.tls_port}"
    upload = gateway.folder / "upload"
    upload.write_bytes(bytes(MEBIBYTE))
    trust = ["--cacert", gateway.certificate]
    versions = [
        ("1.0", ["--http1.0", f"{plain}/a"], "200 1.1 GET /a 0"),
        ("1.1", ["--http1.1", f"{plain}/a"], "200 1.1 GET /a 0"),
        ("h2c", ["--http2-prior-knowledge", f"{plain}/a"], "200 2 GET /a 0"),
        ("TLS, ALPN http/1.1", [*trust, "--http1.1", f"{tls}/a"], "200 1.1 GET /a 0"),
        ("TLS, ALPN h2", [*trust, "--http2", f"{tls}/a"], "200 2 GET /a 0"),
        ("TLS, no ALPN", [*trust, "--no-alpn", f"{tls}/a"], "200 1.1 GET /a 0"),
        ("upgrade to h2c is not taken", ["--http2", f"{plain}/a"], "200 1.1 GET /a 0"),
        ("upload 1.1", ["--http1.1", "-T", upload, f"{plain}/u"], f"200 1.1 PUT /u {MEBIBYTE}"),
        ("upload 1.1 chunked", ["--http1.1", "-T", upload, "-H", "transfer-encoding: chunked", f"{plain}/u"],
         f"200 1.1 PUT /u {MEBIBYTE}"),
        ("upload h2", [*trust, "--http2", "-T", upload, f"{tls}/u"], f"200 2 PUT /u {MEBIBYTE}"),
        ("upload h2 without length", [*trust, "--http2", "-H", "content-length:", "-T", upload, f"{tls}/u"],
         f"200 2 PUT /u {MEBIBYTE}"),
        ("upload with Expect", ["--http1.1", "-H", "expect: 100-continue", "-T", upload, f"{plain}/u"],
         f"200 1.1 PUT /u {MEBIBYTE}"),
        ("HEAD", ["--http1.1", "-I", "-o", "/dev/null", f"{plain}/a"], "200 1.1"),
        ("HEAD h2", [*trust, "--http2", "-I", "-o", "/dev/null", f"{tls}/a"], "200 2"),
        ("dot segments", ["--http1.1", "--path-as-is", f"{plain}/x/../a/./b"], "200 1.1 GET /a/b 0"),
        ("three on one connection", ["--http1.1", f"{plain}/1", f"{plain}/2", f"{plain}/3"],
         "200 1.1 GET /1 0 200 1.1 GET /2 0 200 1.1 GET /3 0"),
    ]
    bad = []
    with running([sys.executable, ORIGIN, gateway.http_port], gateway.folder / "origin.log", gateway.http_port):
        for name, arguments, expected in versions:
            got = _curl(curl, arguments)
            if got != expected:
                bad.append(f"{name}: wanted '{expected}', got '{got}'")
        loads = [("h1", ["--h1", f"{plain}/l"]), ("h2c", [f"{plain}/l"]), ("TLS h2", [f"{tls}/l"])]
        for name, arguments in loads:
            wrong = _h2load(h2load, arguments)
            bad += [f"h2load {name}: {line}" for line in wrong]
    total = len(versions) + len(loads)
    return Outcome(not bad, f"{total - len(bad)}/{total}", bad)


def _curl(curl, arguments):
    """'status version body' of each answer, in one line."""
    done = subprocess.run([curl, "-sS", "-m", "20", "-w", "%{stderr}%{http_code} %{http_version}\n", *map(str, arguments)],
                          capture_output=True, text=True, timeout=60)
    heads, bodies = done.stderr.splitlines(), done.stdout.splitlines()
    bodies += [""] * (len(heads) - len(bodies))
    return " ".join(f"{head} {body}".strip() for head, body in zip(heads, bodies))


def _h2load(h2load, arguments):
    done = subprocess.run([h2load, "-n", "2000", "-c", "8", "-m", "10", *arguments],
                          capture_output=True, text=True, timeout=120)
    ok = re.search(r"2000 succeeded, 0 failed, 0 errored, 0 timeout", done.stdout)
    ok = ok and re.search(r"status codes: 2000 2xx", done.stdout)
    return [] if ok else [line for line in done.stdout.splitlines() if line.startswith(("requests", "status"))]
