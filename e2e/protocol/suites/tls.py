"""TLS as two scanners see it: only 1.2 and 1.3, only AEAD with forward secrecy, nothing vulnerable.

testssl.sh tries what OpenSSL of the machine no longer speaks over sockets of its own; sslyze brings
an old OpenSSL. The certificate is self-made, so what they say about trust is left out.
"""

import json
import subprocess
import sys
from pathlib import Path

from gateway import Outcome, running
from tools import Missing

ORIGIN = Path(__file__).resolve().parents[1] / "origin.py"
SCANS = ["--sslv2", "--sslv3", "--tlsv1", "--tlsv1_1", "--tlsv1_2", "--tlsv1_3", "--reneg", "--heartbleed",
         "--openssl_ccs", "--compression", "--early_data", "--robot", "--ems"]
REFUSED = ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"]
# testssl.sh tells of these at these severities; everything else above INFO is a finding.
BAD = {"LOW", "MEDIUM", "HIGH", "CRITICAL", "WARN"}
# Every suite offered is good, so the client, who knows what its hardware is fast at, chooses.
NO_FAULT = {"cipher_order", "engine_problem"}
# What belongs to a certificate made for one run, or to the answer of the origin and not to TLS.
OF_THE_CERTIFICATE = ("cert", "OCSP", "chain_of_trust", "DNS_CAArecord", "overall_grade", "grade_", "final_score",
                      "protocol_support_score", "key_exchange_score", "cipher_strength_score", "trust", "scanTime")
OF_THE_ORIGIN = ("HSTS", "HTTP", "banner", "cookie", "security_headers", "X-", "BREACH", "HPKP")


def install(tools):
    """Both scanners; one alone will do."""
    found, missing = {}, []
    for name, get in [("testssl", lambda: tools.debian("testssl.sh", "testssl")),
                      ("sslyze", lambda: tools.python("sslyze==6.3.1") / "sslyze")]:
        try:
            found[name] = get()
        except Missing as why:
            missing.append(str(why))
            print(f"   NOT RUN: {name}: {why}", flush=True)
    if not found:
        raise Missing("; ".join(missing))
    return found


def run(found, gateway):
    """Scans the HTTPS listener."""
    figures, detail = [], []
    with running([sys.executable, ORIGIN, gateway.http_port], gateway.folder / "origin.log", gateway.http_port):
        for name, binary in found.items():
            figure, bad = {"testssl": _testssl, "sslyze": _sslyze}[name](binary, gateway)
            figures.append(figure)
            detail += [f"{name}: {line}" for line in bad]
    return Outcome(not detail, ", ".join(figures), detail)


def _testssl(binary, gateway):
    report = gateway.folder / "testssl.json"
    with open(gateway.folder / "testssl.log", "w") as log:
        subprocess.run([binary, "--warnings", "batch", "--color", "0", "--nodns", "none", "--ip", "127.0.0.1",
                        "--jsonfile", report, f"gateway.test:{gateway.tls_port}"],
                       stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=900)
    findings = json.loads(report.read_text())
    skipped = OF_THE_CERTIFICATE + OF_THE_ORIGIN
    judged = [it for it in findings if not it["id"].startswith(skipped)]
    bad = [f"{it['id']}: {it['finding']}" for it in judged if it["severity"] in BAD and it["id"] not in NO_FAULT]
    said = {it["id"]: it["finding"] for it in findings}
    for key, wanted in [("SSLv2", "not offered"), ("SSLv3", "not offered"), ("TLS1", "not offered"), ("TLS1_1", "not offered"),
                        ("TLS1_2", "offered"), ("TLS1_3", "offered"), ("secure_client_renego", "not vulnerable")]:
        # It says "likely not vulnerable" of renegotiation when the server answers a try with silence.
        if not said.get(key, "missing from the report").removeprefix("likely ").startswith(wanted):
            bad.append(f"{key}: {said.get(key)}, wanted '{wanted}'")
    return f"testssl.sh {len(judged) - len(bad)}/{len(judged)}", bad


def _sslyze(binary, gateway):
    report = gateway.folder / "sslyze.json"
    with open(gateway.folder / "sslyze.log", "w") as log:
        subprocess.run([binary, f"--json_out={report}", "--sni=gateway.test", "--mozilla_config=disable",
                        *SCANS, f"127.0.0.1:{gateway.tls_port}"], stdout=log, stderr=log, timeout=900)
    scan = json.loads(report.read_text())["server_scan_results"][0]["scan_result"]
    checks = []

    def check(name, is_ok):
        checks.append((name, is_ok))

    for version in REFUSED:
        check(f"{version} refused", not scan[f"{version}_cipher_suites"]["result"]["accepted_cipher_suites"])
    for version in ("tls_1_2", "tls_1_3"):
        accepted = [it["cipher_suite"]["name"] for it in scan[f"{version}_cipher_suites"]["result"]["accepted_cipher_suites"]]
        check(f"{version} accepted", bool(accepted))
        for suite in accepted:
            aead = any(word in suite for word in ("GCM", "CHACHA20", "CCM"))
            check(f"{suite} is AEAD with forward secrecy", aead and (version == "tls_1_3" or "ECDHE" in suite))
    renegotiation = scan["session_renegotiation"]["result"]
    check("no renegotiation by the client", not renegotiation["is_vulnerable_to_client_renegotiation_dos"])
    check("secure renegotiation is signalled", renegotiation["supports_secure_renegotiation"])
    check("no Heartbleed", not scan["heartbleed"]["result"]["is_vulnerable_to_heartbleed"])
    check("no CCS injection", not scan["openssl_ccs_injection"]["result"]["is_vulnerable_to_ccs_injection"])
    check("no compression", not scan["tls_compression"]["result"]["supports_compression"])
    check("no 0-RTT", not scan["tls_1_3_early_data"]["result"]["supports_early_data"])
    check("no ROBOT", scan["robot"]["result"]["robot_result"].startswith("NOT_VULNERABLE"))
    check("extended master secret", scan["tls_extended_master_secret"]["result"]["supports_ems_extension"])
    bad = [name for name, is_ok in checks if not is_ok]
    return f"sslyze {len(checks) - len(bad)}/{len(checks)}", bad
