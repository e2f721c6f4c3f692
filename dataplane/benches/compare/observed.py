"""What an operator has beside a gateway: a scraper that asks for metrics, a collector that takes traces.

Used by `run --observability`. Both are threads of the script, so their CPU time is nobody's that is
measured; what the data plane does for them is its own.
"""

import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Far more often than scrapers are set to, so that each sample holds some.
SCRAPE_SECONDS = 2


class Collector(BaseHTTPRequestHandler):
    """Takes whatever comes, as an OTLP collector that has no use for it."""

    protocol_version = "HTTP/1.1"
    taken = 0

    def do_POST(self):
        Collector.taken += len(self.rfile.read(int(self.headers.get("content-length", 0))))
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def collector():
    """Starts one and returns its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def scraped(proxies):
    """Scrapes those that want it until the event that is returned is set."""
    over = threading.Event()
    wanted = [it.admin for it in proxies if it.is_scraped]

    def scrape():
        while not over.wait(SCRAPE_SECONDS):
            for admin in wanted:
                with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=5) as answer:
                    answer.read()

    if wanted:
        threading.Thread(target=scrape, daemon=True).start()
    return over
