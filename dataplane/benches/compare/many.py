"""What an operator's questions cost where there are many routes: /metrics and explain.

Used by `run --routes N`. Each route has a host, a Service and an endpoint of its own, and has answered
a request, so that all of its series are there. Times are those of whole answers over a connection
that is kept.
"""

import http.client
import statistics
import time

from process import Failure, wait_until
from proxies import resource, service, start_ours

# For whatever number of routes; they are set for 5,000.
GOALS = {
    "/metrics, ms": 200,
    "/metrics, series": 100_000,
    "explain, ms": 1,
    "explain of a host without a route of its own, ms": 1,
}
ASKED = 21


def start_ours_many(setup, count):
    """The same Gateway, and beside its route this many others."""
    others = [it for number in range(count) for it in route(setup, number)]
    return start_ours(setup, "ours+routes", others=others)


def host(number):
    return f"h{number}.example.com"


def route(setup, number):
    yield from service(f"back-{number}", setup.backend)
    rules = [
        {"matches": [{"path": {"value": path}}], "backendRefs": [{"name": f"back-{number}", "port": 80}]}
        for path in ("/", "/api")
    ]
    spec = {"parentRefs": [{"name": "compare"}], "hostnames": [host(number)], "rules": rules}
    yield resource("gateway.networking.k8s.io/v1", "HTTPRoute", f"route-{number}", spec=spec)


def measure(proxy, count):
    """The figures by name, in the order of the goals."""
    use(proxy, count)
    admin = http.client.HTTPConnection("127.0.0.1", proxy.admin, timeout=30)
    text, scrape = timed(admin, "/metrics")
    series = sum(1 for line in text.decode().splitlines() if line and not line.startswith("#"))
    middle = f"/api/v1/explain?host={host(count // 2)}&port={proxy.plain}&path=/api/items"
    _, explain = timed(admin, middle)
    _, other = timed(admin, f"/api/v1/explain?host=unknown.test&port={proxy.plain}&path=/api/items")
    return dict(zip(GOALS, (scrape, series, explain, other)))


def use(proxy, count):
    """Sends a request to each route."""
    client = http.client.HTTPConnection("127.0.0.1", proxy.plain, timeout=10)

    def ask(number):
        try:
            client.request("GET", "/1k", headers={"host": host(number)})
            answer = client.getresponse()
            answer.read()
        except OSError:
            # What is half said on a connection is said anew on another one.
            client.close()
            raise
        if answer.status != 200:
            raise ValueError(f"{host(number)}: {answer.status}")

    wait_until("the last route", lambda: ask(count - 1), proxy.all, seconds=120)
    for number in range(count):
        ask(number)


def timed(admin, path):
    """The answer, and the median of the times it took, in milliseconds."""
    times = []
    for _ in range(ASKED):
        began = time.perf_counter()
        admin.request("GET", path)
        answer = admin.getresponse()
        body = answer.read()
        times.append((time.perf_counter() - began) * 1e3)
        if answer.status != 200:
            raise Failure(f"{path}: {answer.status} {body[:200]}")
    return body, statistics.median(times)


def show(figures, count):
    """Prints each beside its goal; whether one is missed."""
    print(f"\nwith {count:,} routes in use")
    for name, goal in GOALS.items():
        verdict = "holds" if figures[name] <= goal else "IS MISSED"
        print(f"{name:50}{figures[name]:12,.2f}   the goal of {goal:,} {verdict}")
    return any(figures[name] > goal for name, goal in GOALS.items())
