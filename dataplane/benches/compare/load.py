"""The load: one cell of the table is one protocol and one body size, sent to one proxy.

HTTP/1.1 comes from wrk, HTTP/2 from h2load, both closed loops: as many requests are under way as
there are connections times streams, and each answer is followed by the next request at once.
"""

import http.client
import re
import ssl
import subprocess

from process import Failure

# One cipher for all: what the peers would agree on by themselves differs.
CIPHER = "TLS_AES_256_GCM_SHA384"  # wrk gets it from every peer without asking
SIZES = {"1k": 1024, "64k": 64 * 1024}
TITLES = {"h1": "HTTP/1.1", "tls": "HTTP/1.1 over TLS", "h2": "HTTP/2 over TLS"}
CELLS = [f"{protocol}-{size}" for protocol in TITLES for size in SIZES]


class Load:
    """How many requests are kept under way."""

    def __init__(self, connections, streams):
        self.connections, self.streams = connections, streams

    def command(self, cell, proxy, seconds):
        protocol, size = cell.split("-")
        if protocol == "h2":
            clients = max(1, self.connections // self.streams)
            url = f"https://localhost:{proxy.tls}/{size}"
            command = f"h2load -t1 -c{clients} -m{self.streams} -D{seconds * 1000:.0f}ms --warm-up-time=0"
            command += f" --tls13-ciphers={CIPHER}"
            return [*command.split(), f"--connect-to=127.0.0.1:{proxy.tls}", url]
        host, port = ("localhost", proxy.tls) if protocol == "tls" else ("127.0.0.1", proxy.plain)
        scheme = "https" if protocol == "tls" else "http"
        command = f"wrk -t1 -c{self.connections} -d{seconds:g}s {scheme}://{host}:{port}/{size}"
        return command.split()

    def count(self, cell, proxy, requests):
        """Sends so many requests, by h2load; returns the same as `run`."""
        protocol, size = cell.split("-")
        clients = self.connections if protocol == "h1" else max(1, self.connections // self.streams)
        streams = 1 if protocol == "h1" else self.streams
        command = f"h2load -t1 -n{requests} -c{clients} -m{streams} --tls13-ciphers={CIPHER}".split()
        if protocol == "h1":
            command += ["--h1", f"http://127.0.0.1:{proxy.plain}/{size}"]
        else:
            command += [f"--connect-to=127.0.0.1:{proxy.tls}", f"https://localhost:{proxy.tls}/{size}"]
        return self.done(cell, proxy, command, 300)

    def run(self, cell, proxy, seconds):
        """Sends requests for so long; returns how many were answered well and how many were not."""
        # The generators end by themselves; twice the time and some is for a machine under load.
        return self.done(cell, proxy, self.command(cell, proxy, seconds), 2 * seconds + 30)

    def done(self, cell, proxy, command, patience):
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=patience, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise Failure(f"{proxy.name} {cell}: {command[0]} did not end in time") from error
        parse = parse_h2load if command[0] == "h2load" else parse_wrk
        counts = parse(done.stdout)
        if counts is None:
            raise Failure(f"{proxy.name} {cell}: {command}:\n{done.stdout}{done.stderr}")
        return counts


def parse_wrk(text):
    total = re.search(r"(\d+) requests in", text)
    if not total:
        return None
    errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    bad = sum(map(int, errors.groups())) if errors else 0
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    refused = int(refused.group(1)) if refused else 0
    return int(total.group(1)) - refused, bad + refused


def parse_h2load(text):
    found = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    statuses = re.search(r"status codes: (\d+) 2xx", text)
    if not found or not statuses:
        return None
    # Errored ones are counted among the failed.
    succeeded, failed, _, _ = map(int, found.groups())
    good = min(succeeded, int(statuses.group(1)))
    return good, failed + succeeded - good


def fetch(proxy, protocol, size):
    """One request; raises an OSError or ValueError unless the whole body comes with a 200."""
    if protocol == "h2":
        return fetch_h2(proxy, size)
    if protocol == "tls":
        context = ssl._create_unverified_context()  # the certificate was made a moment ago
        connection = http.client.HTTPSConnection("localhost", proxy.tls, timeout=5, context=context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", proxy.plain, timeout=5)
    try:
        connection.request("GET", f"/{size}")
        response = connection.getresponse()
        body = response.read()
        cipher = connection.sock.cipher()[0] if protocol == "tls" else None
    except http.client.HTTPException as error:
        raise ValueError(repr(error)) from error
    finally:
        connection.close()
    if response.status != 200 or len(body) != SIZES[size]:
        raise ValueError(f"{protocol}-{size}: status {response.status}, {len(body)} bytes")
    return cipher


def fetch_h2(proxy, size):
    command = f"h2load -n1 --tls13-ciphers={CIPHER} --connect-to=127.0.0.1:{proxy.tls}".split()
    command.append(f"https://localhost:{proxy.tls}/{size}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
    data = re.search(r"\((\d+)\) data", done.stdout)
    is_h2 = "Application protocol: h2" in done.stdout
    cipher = re.search(r"Cipher: (\S+)", done.stdout)
    if parse_h2load(done.stdout) != (1, 0) or not is_h2 or int(data.group(1)) != SIZES[size]:
        raise ValueError(f"h2-{size}: {done.stdout}{done.stderr}")
    return cipher.group(1) if cipher else None
