"""Sends one request after the other at even intervals over a few connections in turn, and prints how long each took.

    pace.py URL BODY_FILE RATE SECONDS [NAME:VALUE ...]

h2load's `--rps` sends the requests of all its connections in one moment, so that most of what it sees is
the queue of its own making. What is late counts from the moment it was due.
Prints a JSON object: microseconds of the answers with 200, sorted, and how many had another status.
"""

import ctypes
import json
import pathlib
import socket
import sys
import time
import urllib.parse

CONNECTIONS = 8
PR_SET_TIMERSLACK = 29


def connected(url):
    connection = socket.create_connection((url.hostname, url.port), 20)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def answer(connection):
    """Status of the answer, which is read to its end, and whether the connection goes on."""
    seen = b""
    while b"\r\n\r\n" not in seen:
        piece = connection.recv(65536)
        if not piece:
            raise SystemExit(f"{connection.getpeername()} closed instead of an answer, after {seen!r}")
        seen += piece
    head, _, body = seen.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
    if b"content-length" in fields:
        left = int(fields[b"content-length"]) - len(body)
        while left > 0:
            left -= len(connection.recv(65536))
    else:
        while not body.endswith(b"0\r\n\r\n"):
            body += connection.recv(65536)
    return head[9:12], fields.get(b"connection", b"").strip() != b"close"


def main():
    url, path, rate, seconds = sys.argv[1:5]
    parts = urllib.parse.urlsplit(url)
    body = pathlib.Path(path).read_bytes()
    fields = "".join(f"{field}\r\n" for field in sys.argv[5:])
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{fields}Content-Length: {len(body)}\r\n\r\n"
    message = head.encode() + body
    # Sleeps end when they should, and not 50 microseconds later.
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    connections = [connected(parts) for _ in range(CONNECTIONS)]
    for connection in connections:
        connection.sendall(message)
        answer(connection)
    interval = 1e9 / int(rate)
    times, failed = [], 0
    began = time.perf_counter_ns()
    for number in range(int(rate) * int(seconds)):
        due = began + int(number * interval)
        now = time.perf_counter_ns()
        if now < due:
            time.sleep((due - now) / 1e9)
            due = time.perf_counter_ns()
        connection = connections[number % CONNECTIONS]
        connection.sendall(message)
        status, goes_on = answer(connection)
        if status == b"200":
            times.append((time.perf_counter_ns() - due) // 1000)
        else:
            failed += 1
        if not goes_on:
            connections[number % CONNECTIONS] = connected(parts)
    print(json.dumps({"micros": sorted(times), "failed": failed}))


main()
