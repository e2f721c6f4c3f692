"""What stands behind the proxies: TCP that echoes or pours, and UDP that echoes.

A TCP connection that begins with `S` gets bytes as fast as it takes them; any other one is an echo.
"""

import selectors
import socket
import sys

POURED = b"s" * (256 * 1024)


def main():
    tcp_port, udp_port = map(int, sys.argv[1:])
    wait = selectors.DefaultSelector()
    listener = socket.create_server(("127.0.0.1", tcp_port), backlog=4096, reuse_port=True)
    listener.setblocking(False)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    udp.bind(("127.0.0.1", udp_port))
    udp.setblocking(False)
    wait.register(listener, selectors.EVENT_READ, accept)
    wait.register(udp, selectors.EVENT_READ, echo_datagrams)
    while True:
        for key, events in wait.select():
            key.data(wait, key.fileobj, events)


def accept(wait, listener, _):
    for _ in range(64):
        try:
            tcp, _ = listener.accept()
        except BlockingIOError:
            return
        tcp.setblocking(False)
        wait.register(tcp, selectors.EVENT_READ, serve)


def serve(wait, tcp, events):
    try:
        if events & selectors.EVENT_READ:
            got = tcp.recv(65536)
            if not got:
                return close(wait, tcp)
            if got[:1] == b"S":
                return wait.modify(tcp, selectors.EVENT_WRITE, pour)
            tcp.send(got)
    except BlockingIOError:
        pass
    except OSError:
        close(wait, tcp)


def pour(wait, tcp, _):
    try:
        tcp.send(POURED)
    except BlockingIOError:
        pass
    except OSError:
        close(wait, tcp)


def close(wait, tcp):
    wait.unregister(tcp)
    tcp.close()


def echo_datagrams(_wait, udp, _):
    try:
        for _ in range(256):
            udp.sendto(*udp.recvfrom(65536))
    except BlockingIOError:
        pass


if __name__ == "__main__":
    main()
