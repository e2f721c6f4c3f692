"""h2spec: conformance to RFC 9113 and 7541, over TLS and over a port shared with HTTP/1.1.

On the shared port one case cannot pass: an invalid connection preface (3.5, case 2) is a bad
HTTP/1.1 request there, and is answered as one, with 400; the case wants a GOAWAY frame or nothing.
"""

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from gateway import Outcome, running

MODULE, VERSION = "github.com/summerwind/h2spec/cmd/h2spec", "v2.2.1+incompatible"
TOTAL = 146  # with the strict cases, which -S turns on; 145 without
NOT_ON_SHARED_PORT = {"Sends invalid connection preface"}
ORIGIN = Path(__file__).resolve().parents[1] / "origin.py"


def install(tools):
    """The h2spec binary."""
    return tools.go(MODULE, VERSION)


def run(binary, gateway):
    """Both listeners."""
    with running([sys.executable, ORIGIN, gateway.http_port], gateway.folder / "origin.log", gateway.http_port):
        tls = _once(binary, gateway, "tls", gateway.tls_port, ["-t", "-k"])
        plain = _once(binary, gateway, "h2c", gateway.plain_port, [])
    failed = [f"tls: {case}" for case in sorted(tls[1])]
    failed += [f"h2c: {case}" for case in sorted(plain[1])]
    is_ok = tls == (TOTAL, set()) and plain == (TOTAL, NOT_ON_SHARED_PORT)
    figures = ", ".join(f"{name} {total - len(bad)}/{total}" for name, (total, bad) in [("TLS", tls), ("h2c", plain)])
    return Outcome(is_ok, figures, failed)


def _once(binary, gateway, name, port, options):
    report = gateway.folder / f"{name}.xml"
    with open(gateway.folder / f"{name}.log", "w") as log:
        subprocess.run([binary, "-S", "-h", "127.0.0.1", "-p", str(port), "-o", "5", "-j", report, *options],
                       stdout=log, stderr=log, timeout=600)
    cases = list(ET.parse(report).getroot().iter("testcase"))
    bad = {case.get("classname") for case in cases if case.find("failure") is not None or case.find("error") is not None}
    return len(cases), bad
