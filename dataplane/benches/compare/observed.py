"""What seeing requests costs: the access log with a scraper, and traces, beside ours without.

Used by `run --observability` and `run --instructions`. Few percent are looked for, which is less than
most machines drift within a minute, and less than two starts of one program differ by. So the first
takes short slices of load in turn, compares neighbours, starts all processes anew again and again and
judges by the differences between starts; the second counts instructions, which no neighbour changes.
Collector and scraper are threads of the script, so their CPU time is nobody's that is measured, and run
on other CPUs where there are some, as in the field: they would take caches and turns from ours.
"""

import functools
import glob
import math
import os
import re
import statistics
import subprocess
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from process import Failure

# The share of the CPU time of ours that each may cost more.
GOALS = {"ours+observed": 0.05, "ours+traces": 0.02}
# Of one variant before the next has its turn; wrk knows whole seconds alone.
SLICE_SECONDS = 1
# Three variants, started so many times for three rounds each, take about ten minutes.
STARTS = 30
STARTS_MIN = 6
# A few samples in a hundred may lie: the interval is one of 95 %.
SIGMAS = 1.96
# Longer than spans and lines wait for being sent on.
LATE_SECONDS = 2
# Before one of them is chosen for what is measured.
CPUS = os.sched_getaffinity(0)
# Two loads, whose difference holds nothing of what connections cost.
FEW, MANY = 1000, 5000


class Collector(BaseHTTPRequestHandler):
    """Takes whatever comes, as an OTLP collector that has no use for it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@functools.cache
def collector():
    """Starts one, which serves all, and returns its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=aside, args=(server.serve_forever,), daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def aside(work, *args):
    """Does it on the CPUs of which nothing is measured, if there are any; for a thread's body."""
    others = CPUS - os.sched_getaffinity(0)
    if others:
        os.sched_setaffinity(0, others)
    work(*args)


def scrape(proxy):
    with urllib.request.urlopen(f"http://127.0.0.1:{proxy.admin}/metrics", timeout=5) as answer:
        answer.read()


def measure(args, proxies, load):
    """Slices of load, one proxy after the other, round by round."""
    samples = []
    for cell in args.cells:
        for proxy in proxies:
            load.run(cell, proxy, 1)
        time.sleep(LATE_SECONDS)
        rows = {proxy.name: [] for proxy in proxies}
        for number in range(args.rounds):
            for proxy in in_turn(proxies, number):
                begun = proxy.running.cpu_exact()
                # Far more often than scrapers are set to, so that each slice holds one.
                asking = threading.Timer(SLICE_SECONDS / 2, aside, [scrape, proxy])
                if proxy.is_scraped:
                    asking.start()
                good, bad = load.run(cell, proxy, SLICE_SECONDS)
                if proxy.is_scraped:
                    asking.join()
                proxy.running.must_run()
                row = {"round": number, "cell": cell, "proxy": proxy.name, "requests": good,
                       "failed": bad, "begun": begun}  # fmt: skip
                rows[proxy.name].append(row)
        time.sleep(LATE_SECONDS)
        for proxy in proxies:
            # What a slice leaves behind, as spans to be sent, is done while others have their turn.
            own = rows[proxy.name]
            ends = [*(row["begun"] for row in own[1:]), proxy.running.cpu_exact()]
            for row, end in zip(own, ends):
                row["us"] = (end - row.pop("begun")) / max(row["requests"], 1) * 1e6
            samples += own
    return samples


def in_turn(proxies, number):
    """Each time another one begins, and each second time it goes backwards."""
    at = number // 2 % len(proxies)
    turned = proxies[at:] + proxies[:at]
    return turned[::-1] if number % 2 else turned


def show(record):
    """Prints what each costs; true when a goal is missed for sure."""
    is_missed = False
    for cell, of_cell in by(record["samples"], "cell").items():
        for name, rows in by(of_cell, "proxy").items():
            middle = statistics.median(row["us"] for row in rows)
            print(f"{cell} {name:14} {middle:8.2f} µs/request")
        starts = [by(rows, "proxy") for rows in by(of_cell, "start").values()]
        for name, goal in GOALS.items():
            more = [added(of[name], of["ours"]) for of in starts if {"ours", name} <= set(of)]
            if not more:
                continue
            middle, low, high = interval(more)
            verdict = "is not decided"
            # Fewer have no interval of that certainty.
            if len(more) >= STARTS_MIN:
                verdict = "holds" if high <= goal else "IS MISSED" if low > goal else verdict
            is_missed |= verdict == "IS MISSED"
            print(f"{cell} {name} costs {middle:+.1%} CPU time of ours ({low:+.1%} to {high:+.1%},"
                  f" {len(more)} starts); the goal of {goal:+.0%} {verdict}")  # fmt: skip
    return is_missed


def added(rows, ours):
    """The share that is added to the CPU time of ours: the median of the rounds of one start."""
    return statistics.median(a["us"] / b["us"] - 1 for a, b in zip(rows, ours))


def interval(values):
    """The median, and between which two of the values that of endless starts is, by their ranks."""
    ordered = sorted(values)
    skipped = max(0, math.floor((len(ordered) - SIGMAS * math.sqrt(len(ordered))) / 2))
    return statistics.median(ordered), ordered[skipped], ordered[-1 - skipped]


def count(args, proxies, load):
    """Instructions per request outside the kernel, by callgrind."""
    samples = []
    for cell in args.cells:
        for proxy in proxies:
            load.count(cell, proxy, FEW)
            counted = []
            for requests in (FEW, MANY):
                dumped(proxy)
                good, bad = load.count(cell, proxy, requests)
                counted.append(dumped(proxy))
            row = {"cell": cell, "proxy": proxy.name, "requests": good, "failed": bad,
                   "instructions": (counted[1] - counted[0]) / (MANY - FEW)}  # fmt: skip
            samples.append(row)
    return samples


def dumped(proxy):
    """How many instructions ran since the last time that this was asked."""
    done = subprocess.run(
        ["callgrind_control", "--dump", str(proxy.running.popen.pid)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    dumps = sorted(glob.glob(f"{proxy.profile}.*"), key=lambda it: int(it.rpartition(".")[2]))
    if done.returncode != 0 or not dumps:
        raise Failure(f"{proxy.name}: callgrind_control:\n{done.stdout}{done.stderr}")
    with open(dumps[-1], encoding="utf-8") as file:
        total = re.search(r"^(?:totals|summary): (\d+)", file.read(), re.MULTILINE)
    return int(total.group(1))


def show_counts(record):
    for cell, of_cell in by(record["samples"], "cell").items():
        counts = {row["proxy"]: row["instructions"] for row in of_cell}
        for name, counted in counts.items():
            more = counted - counts.get("ours", counted)
            share = more / counts.get("ours", counted)
            print(f"{cell} {name:14} {counted:8.0f} instructions/request {more:+7.0f} {share:+6.1%}")


def by(samples, key):
    """The samples by what they say of one thing, in their order."""
    groups = {}
    for sample in samples:
        groups.setdefault(sample[key], []).append(sample)
    return groups
