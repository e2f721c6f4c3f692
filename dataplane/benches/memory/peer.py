"""What stands around the gateway while its memory is measured, as processes of their own.

`idle` and `streams` are clients: they print `holding` and keep what they hold until their standard
input ends. `answer` and `silent` are backends.
"""

import re
import resource
import socket
import ssl
import struct
import sys
import threading

PIECE = bytes(64 * 1024)


def main():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kind, *rest = sys.argv[1:]
    held = {"idle": idle, "streams": streams, "answer": answer, "silent": silent}[kind](*rest)
    print("holding", flush=True)
    sys.stdin.read()
    del held


def idle(kind, port, count):
    """Connections that had one request each."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    held = []
    for _ in range(int(count)):
        tcp = socket.create_connection(("127.0.0.1", int(port)), 30)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if kind == "tls":
            tcp = context.wrap_socket(tcp, server_hostname="localhost")
        tcp.sendall(b"GET /1024 HTTP/1.1\r\nhost: localhost\r\n\r\n")
        seen = b""
        while not seen.endswith(b"\0" * 1024):
            part = tcp.recv(65536)
            if not part:
                raise OSError("the connection ended")
            seen += part
        held.append(tcp)
    return held


def streams(port, count):
    """HTTP/2 streams with 24 KB of header fields each, a hundred on a connection, whose answers
    have no window to be sent in."""
    held = []
    fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/1024")]
    fields += [(b":authority", b"localhost")]
    fields += [(b"x-large-%02d" % at, b"v" * 1000) for at in range(24)]
    block = b"".join(b"\0" + text(name) + text(value) for name, value in fields)
    for number in range(int(count)):
        stream = 2 * (number % 100) + 1
        if stream == 1:
            tcp = socket.create_connection(("127.0.0.1", int(port)), 30)
            tcp.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            tcp.sendall(frame(4, 0, 0, struct.pack(">HI", 4, 0)) + frame(4, 1, 0, b""))
            held.append(tcp)
        parts = [block[at : at + 16_384] for at in range(0, len(block), 16_384)]
        for at, part in enumerate(parts):
            flags = (4 if at + 1 == len(parts) else 0) | (1 if at == 0 else 0)
            tcp.sendall(frame(1 if at == 0 else 9, flags, stream, part))
    return held


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def text(value):
    """A literal of HPACK, not compressed."""
    if len(value) < 127:
        return bytes([len(value)]) + value
    rest, length = len(value) - 127, b"\x7f"
    while rest >= 128:
        length += bytes([rest % 128 + 128])
        rest //= 128
    return length + bytes([rest]) + value


def answer(port):
    """Answers `/N` with N zero bytes, behind whatever body there is; for ever."""
    listener = socket.create_server(("127.0.0.1", int(port)), backlog=4096)
    while True:
        tcp, _ = listener.accept()
        threading.Thread(target=serve, args=(tcp,), daemon=True).start()


def serve(tcp):
    # Head and body are two writes; without this the body waits for the head's acknowledgement.
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    seen = b""
    while True:
        while b"\r\n\r\n" not in seen:
            part = tcp.recv(65536)
            if not part:
                return
            seen += part
        head, seen = seen.split(b"\r\n\r\n", 1)
        count = int(re.search(rb"/(\d+)", head)[1])
        if b"?up" in head:
            # Chunked, and nothing but zero bytes in it.
            last = seen
            while not last.endswith(b"0\r\n\r\n"):
                part = tcp.recv(1024 * 1024)
                if not part:
                    return
                last = (last + part)[-16:]
            seen, count = b"", 0
        tcp.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % count)
        while count:
            count -= tcp.send(PIECE[:count])


def silent(port):
    """Takes connections and nothing else."""
    listener = socket.create_server(("127.0.0.1", int(port)), backlog=4096)
    held = []
    while True:
        held.append(listener.accept())


if __name__ == "__main__":
    main()
