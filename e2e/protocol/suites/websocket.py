"""The Autobahn testsuite, groups 1 to 7, 9 and 10: through the gateway as the origin itself scores.

The suite runs on Python 2.7 alone. Where there is none, `kosoku` drives the same case files from
Python 3, against another origin. Groups 12 and 13 (compression) are the endpoints' affair only.
"""

import json
import re
import subprocess
from collections import Counter
from pathlib import Path

from gateway import Outcome, running
from tools import Missing

GROUPS = ["1", "2", "3", "4", "5", "6", "7", "9", "10"]
TOTAL = 301
# The origin for Python 3 answers 7.1.5 with another close code than the case wants.
ORIGIN_FAULTS_MAX = 1
ORIGIN = Path(__file__).resolve().parents[1] / "websocket_origin.py"
# `wstest -m testeeserver`, but without an address of its own: with one it refuses any other port in Host.
TESTEE = """
import sys
from twisted.internet import reactor
from autobahntestsuite.testee import TesteeServerFactory
reactor.listenTCP(int(sys.argv[1]), TesteeServerFactory(None), interface="127.0.0.1")
reactor.run()
"""
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}


def install(tools):
    """The driver: a class below."""
    try:
        return Autobahn(tools.python2("autobahntestsuite==25.10.1"))
    except Missing as missing:
        print(f"   instead of Autobahn's own runner, kosoku runs its cases: {missing}", flush=True)
        return Kosoku(tools.python("kosoku==0.1.0", "websockets==17.4"))


def run(driver, gateway):
    """Origin, then gateway in plain text, then over TLS."""
    ways = {"origin": f"ws://127.0.0.1:{gateway.http_port}", "plain": f"ws://127.0.0.1:{gateway.plain_port}"}
    if driver.speaks_tls:
        ways["TLS"] = f"wss://127.0.0.1:{gateway.tls_port}"
    with running(driver.origin(gateway.http_port), gateway.folder / "origin.log", gateway.http_port):
        scores = {name: driver.score(name, url, gateway.folder) for name, url in ways.items()}
    expected = scores["origin"]
    detail = [f"{name} {case}: {got.get(case)}, the origin itself: {expected.get(case)}"
              for name, got in scores.items() for case in sorted({*got, *expected}) if got.get(case) != expected.get(case)]
    good = sum(set(score) <= GOOD for score in expected.values())
    if good < TOTAL - ORIGIN_FAULTS_MAX:
        detail.append(f"the origin itself passes {good} of {TOTAL}: the comparison would say little")
    detail = detail[:20] + ([f"and {len(detail) - 20} more"] if len(detail) > 20 else [])
    is_ok = not detail and len(expected) == TOTAL
    figures = ", ".join(
        f"{name} " + "/".join(f"{count} {word}" for word, count in Counter(score[0] for score in got.values()).most_common())
        for name, got in scores.items())
    return Outcome(is_ok, figures, detail)


class Autobahn:
    """The testsuite's own runner and origin."""

    speaks_tls = True

    def __init__(self, bin_folder):
        self.wstest = bin_folder / "wstest"

    def origin(self, port):
        return [self.wstest.parent / "python", "-c", TESTEE, str(port)]

    def score(self, name, url, folder):
        spec = folder / f"{name}.json"
        reports = folder / name
        spec.write_text(json.dumps({
            "outdir": str(reports), "servers": [{"agent": name, "url": url}],
            "cases": [f"{group}.*" for group in GROUPS], "exclude-cases": [], "exclude-agent-cases": {}}))
        _to_end([self.wstest, "-m", "fuzzingclient", "-s", spec], folder / f"{name}.log")
        return _scores(reports)


class Kosoku:
    """The same cases from Python 3."""

    speaks_tls = False

    def __init__(self, bin_folder):
        self.bin_folder = bin_folder

    def origin(self, port):
        # More fragments than its default are in case 9.3.1.
        return ["env", "WEBSOCKETS_MAX_FRAGMENTS=100000", self.bin_folder / "python", ORIGIN, port]

    def score(self, name, url, folder):
        groups = [argument for group in GROUPS for argument in ("-i", f"{group}.*")]
        _to_end([self.bin_folder / "kosoku", *groups, "-p", "2", "-o", folder / name,
                 re.sub("^ws://", "", url)], folder / f"{name}.log")
        return _scores(folder / name)


def _to_end(command, log_path):
    with open(log_path, "w") as log:
        subprocess.run([str(part) for part in command], stdout=log, stderr=log, timeout=900)


def _scores(reports):
    """Case to what the suite says about the messages and about the close."""
    (cases,) = json.loads((reports / "index.json").read_text()).values()
    return {case: (result["behavior"], result["behaviorClose"]) for case, result in cases.items()}
