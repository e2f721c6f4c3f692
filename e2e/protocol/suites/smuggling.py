"""Requests that two servers read in two ways, sent to a recording origin over kept connections.

Each either is refused, and nothing of it reaches the origin, or is forwarded as exactly the requests
named here, in the one framing that is written anew. `dataplane/http/tests/it/h1/smuggling.rs` holds
the same for the parser alone; here the built gateway is in between.
"""

import contextlib
import re
import socket
import threading

from gateway import Outcome

HOST = "Host: gateway.test\r\n"
# What an attacker wants the origin to see as a request of its own.
HIDDEN = f"GET /hidden HTTP/1.1\r\n{HOST}\r\n"
SIZE = len(HIDDEN)
LENGTH = f"Content-Length: {SIZE}\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
CHUNK = f"{SIZE:x}\r\n{HIDDEN}\r\n0\r\n\r\n"
WEBSOCKET = ("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")


def head(line, fields=""):
    return f"{line} HTTP/1.1\r\n{HOST}{fields}\r\n"


REFUSED = [
    ("CL.TE", head("POST /x", f"Content-Length: {SIZE + 5}\r\n{CHUNKED}") + "0\r\n\r\n" + HIDDEN),
    ("TE.CL", head("POST /x", f"{CHUNKED}Content-Length: 4\r\n") + CHUNK),
    ("TE.TE", head("POST /x", f"{CHUNKED}Transfer-Encoding: x\r\n") + "0\r\n\r\n" + HIDDEN),
    ("0.CL by a folded line", head("GET /x", f"Content-Length:\r\n {SIZE}\r\n") + HIDDEN),
    ("0.CL by a space before the name", head("GET /x", f" {LENGTH}") + HIDDEN),
    ("a length with a sign", head("POST /x", f"Content-Length: +{SIZE}\r\n") + HIDDEN),
    ("two lengths", head("POST /x", f"{LENGTH}Content-Length: 0\r\n") + HIDDEN),
    ("a disguised expectation", head("GET /x", f"{LENGTH}Expect: y 100-continue\r\n") + HIDDEN),
    ("a folded expectation", head("POST /x", f"{LENGTH}Expect:\r\n 100-continue\r\n") + HIDDEN),
    ("a chunk line that ends in LF", head("POST /x", CHUNKED) + "2;\nxx\r\n0\r\n\r\n" + HIDDEN),
    ("a chunk line that ends in CR", head("POST /x", CHUNKED) + "2\rxx\r\n0\r\n\r\n" + HIDDEN),
    ("a chunk longer than its size", head("POST /x", CHUNKED) + "2\r\nxxyz0\r\n\r\n" + HIDDEN),
    ("chunks in HTTP/1.0", f"POST /x HTTP/1.0\r\n{HOST}{CHUNKED}Connection: keep-alive\r\n\r\n0\r\n\r\n{HIDDEN}"),
    ("a list of codings", head("POST /x", "Transfer-Encoding: chunked,\r\n") + "0\r\n\r\n" + HIDDEN),
    ("an empty coding", head("POST /x", "Transfer-Encoding:\r\nContent-Length: 3\r\n") + "abc" + HIDDEN),
    ("two hosts", head("GET /x", "Host: other.test\r\n")),
    ("userinfo in the target", head("GET http://a@gateway.test/x")),
    ("CONNECT", head("CONNECT gateway.test:80")),
    ("half a preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\n" + HIDDEN),
]
# What the origin must see: request lines, each with the size of its body.
FORWARDED = [
    ("TE.0", head("OPTIONS /x", CHUNKED) + CHUNK, [("OPTIONS /x", SIZE)]),
    ("CL.0", head("POST /x", LENGTH) + HIDDEN, [("POST /x", SIZE)]),
    ("a GET with a body", head("GET /x", LENGTH) + HIDDEN, [("GET /x", SIZE)]),
    ("a HEAD with a body", head("HEAD /x", LENGTH) + HIDDEN, [("HEAD /x", SIZE)]),
    ("a GET with an expectation", head("GET /x", f"{LENGTH}Expect: 100-continue\r\n") + HIDDEN, [("GET /x", SIZE)]),
    ("a length named by Connection", head("POST /x", f"{LENGTH}Connection: content-length\r\n") + HIDDEN,
     [("POST /x", SIZE)]),
    ("a coding named by Connection", head("POST /x", f"{CHUNKED}Connection: transfer-encoding\r\n") + CHUNK,
     [("POST /x", SIZE)]),
    ("Host named by Connection", head("GET /x", "Connection: host\r\n"), [("GET /x", 0)]),
    ("a quote within a chunk extension", head("POST /x", CHUNKED) + '2;a="\r\nxx\r\n0\r\n\r\n', [("POST /x", 2)]),
    ("framing in trailers", head("POST /x", f"{CHUNKED}TE: trailers\r\n") + "1\r\nx\r\n0\r\nContent-Length: 5\r\nHost: b\r\n\r\n",
     [("POST /x", 1)]),
    ("an upgrade to h2c", head("GET /x", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
     [("GET /x", 0)]),
    ("a request behind a refused upgrade", head("GET /x", WEBSOCKET) + HIDDEN, [("GET /x", 0), ("GET /hidden", 0)]),
    ("three at once", head("GET /1") + head("GET /2") + head("GET /3"), [("GET /1", 0), ("GET /2", 0), ("GET /3", 0)]),
]


def install(_tools):
    """Nothing."""


def run(_needs, gateway):
    """Every case twice, so that the second meets the origin connections the first has left."""
    origin, bad = Origin(gateway.http_port), []
    cases = [(name, sent, []) for name, sent in REFUSED] + FORWARDED
    for name, sent, expected in [*cases, *cases]:
        origin.seen.clear()
        answers, is_closed = _send(gateway.plain_port, sent, len(expected))
        seen = [(line, size) for line, size, _ in origin.seen]
        if seen != expected:
            bad.append(f"{name}: the origin saw {seen}, not {expected}")
        elif expected and answers != [200] * len(expected):
            bad.append(f"{name}: answered {answers}")
        elif not expected and not (len(answers) == 1 and 400 <= answers[0] < 600 and is_closed):
            bad.append(f"{name}: answered {answers}, closed: {is_closed}")
        bad += [f"{name}: {fault}" for _, _, faults in origin.seen for fault in faults]
    if origin.faults:
        bad += origin.faults
    return Outcome(not bad, f"{2 * len(cases) - len(bad)}/{2 * len(cases)}", bad)


def _send(port, text, wanted):
    """Statuses, and whether the gateway closed; ends when as many answers are here as are wanted."""
    data = b""
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(text.encode("latin1"))
        with contextlib.suppress(OSError):
            while True:
                # Once all are here, a short look for one too many.
                complete = wanted and data.count(b"HTTP/1.1 200") >= wanted
                connection.settimeout(0.1 if complete else 5)
                received = connection.recv(65536)
                if not received:
                    return _statuses(data), True
                data += received
    return _statuses(data), False


def _statuses(data):
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", data) if status != b"100"]


class Origin:
    """Reads strictly and writes down what came."""

    def __init__(self, port):
        self.seen, self.faults = [], []
        listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        stream = connection.makefile("rb")
        while line := stream.readline():
            request = re.fullmatch(rb"([A-Z]+ [^ ]+) HTTP/1\.1\r\n", line)
            if not request:
                self.faults.append(f"the origin cannot read {line!r}")
                return
            fields = []
            while (field := stream.readline()) not in (b"\r\n", b""):
                name, _, value = field.rstrip(b"\r\n").partition(b":")
                fields.append((name.lower(), value.strip()))
            size = self._body(stream, dict(fields))
            self.seen.append((request[1].decode(), size, list(_faults_of(fields))))
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
                               + (b"" if line.startswith(b"HEAD") else b"ok"))

    @staticmethod
    def _body(stream, fields):
        if fields.get(b"transfer-encoding") != b"chunked":
            return len(stream.read(int(fields.get(b"content-length", 0))))
        total = 0
        while size := int(stream.readline(), 16):
            total += len(stream.read(size))
            stream.readline()
        while stream.readline() not in (b"\r\n", b""):
            pass
        return total


def _faults_of(fields):
    names = [name for name, _ in fields]
    framing = [name for name in names if name in (b"content-length", b"transfer-encoding")]
    if names.count(b"host") != 1:
        yield "not exactly one Host"
    if len(framing) > 1:
        yield f"framed twice: {framing}"
    if b"http2-settings" in names or (b"upgrade", b"h2c") in fields:
        yield "an upgrade to HTTP/2 was forwarded"
