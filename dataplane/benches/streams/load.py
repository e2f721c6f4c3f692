"""The load: bytes that arrive, connections that carry one byte, datagrams that come back.

Prints how many; `run` starts it as a process of its own, so that nothing of it counts.
"""

import selectors
import socket
import struct
import sys
import time

ROOM = bytearray(1 << 20)


def take_bytes(port, seconds):
    wait, count = selectors.DefaultSelector(), 0
    for _ in range(8):
        tcp = socket.create_connection(("127.0.0.1", port))
        tcp.sendall(b"S")
        tcp.setblocking(False)
        wait.register(tcp, selectors.EVENT_READ)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for key, _ in wait.select(1):
            try:
                count += key.fileobj.recv_into(ROOM)
            except BlockingIOError:
                pass
    return count


def connect(port, seconds):
    count, end = 0, time.monotonic() + seconds
    address = ("127.0.0.1", port)
    # A reset at the end leaves no port waiting.
    linger = struct.pack("ii", 1, 0)
    while time.monotonic() < end:
        several = []
        for _ in range(32):
            tcp = socket.socket()
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            tcp.connect(address)
            tcp.send(b"E")
            several.append(tcp)
        for tcp in several:
            count += len(tcp.recv(1))
            tcp.close()
    return count


def exchange(port, seconds, size, clients, window):
    wait, count, datagram = selectors.DefaultSelector(), 0, b"x" * size
    all_ = []
    for _ in range(clients):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.connect(("127.0.0.1", port))
        udp.setblocking(False)
        wait.register(udp, selectors.EVENT_READ)
        all_.append(udp)
    for udp in all_:
        for _ in range(window):
            udp.send(datagram)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ready = wait.select(0.2)
        if not ready:
            # Something was lost; begin anew.
            for udp in all_:
                udp.send(datagram)
        for key, _ in ready:
            udp = key.fileobj
            try:
                while True:
                    udp.recv_into(ROOM)
                    count += 1
                    udp.send(datagram)
            except BlockingIOError:
                pass
    return count


if __name__ == "__main__":
    what, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    if what == "bytes":
        print(take_bytes(port, seconds))
    elif what == "connects":
        print(connect(port, seconds))
    else:
        print(exchange(port, seconds, *map(int, sys.argv[4:])))
