#!/usr/bin/env python3
"""A plain HTTP/1.1 origin: answers every request with its method, target and body length.

Started by suites as a process of its own: `origin.py PORT`.
"""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """One connection; kept alive."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _answer(self):
        size = 0
        if "chunked" in self.headers.get("transfer-encoding", ""):
            while length := int(self.rfile.readline().split(b";")[0], 16):
                self.rfile.read(length + 2)
                size += length
            while self.rfile.readline() not in (b"\r\n", b""):
                pass
        else:
            size = int(self.headers.get("content-length", 0))
            self.rfile.read(size)
        body = f"{self.command} {self.path} {size}\n".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.send_header("content-type", "text/plain")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = _answer

    def log_message(self, *_):
        """Says nothing."""


class Origin(ThreadingHTTPServer):
    """Takes as many connections at once as a client of this folder opens."""

    # With the default of 5 the kernel answers a burst with SYN cookies, and some connections hang.
    request_queue_size = 1024


if __name__ == "__main__":
    server = Origin(("127.0.0.1", int(sys.argv[1])), Handler)
    server.daemon_threads = True
    server.serve_forever()
