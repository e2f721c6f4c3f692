"""Requests at a steady rate until SIGTERM, then one line of JSON: what was sent and what failed.

Half of the requests keep their connection for as long as the gateway does, half make a new one each.
Nothing is repeated: a refused connection, a reset, a cut or late answer and a status other than 200
are failures. A kept connection that the gateway closed between two requests is none.
"""

import asyncio
import json
import signal
import sys
import time

LIMIT = 10.0
KEPT = 16


class Closes(asyncio.StreamReaderProtocol):
    """Closes a connection as soon as the gateway does.

    Were it closed later, the pod may be gone: then the node remembers for 30 s that the port belongs
    to a connection to that pod, and a new connection from the same port is sent there.
    """

    def eof_received(self):
        super().eof_received()
        return False


async def connect(address, port):
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    transport, protocol = await loop.create_connection(lambda: Closes(reader, loop=loop), address, port)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


class Load:
    def __init__(self, address, port, rate):
        self.address, self.port, self.rate = address, port, rate
        self.sent = 0
        self.failures = {}
        self.failed = 0
        self.longest = 0.0
        self.over = asyncio.Event()
        self.pool = []
        self.tasks = set()

    def fail(self, error):
        self.failed += 1
        said = f"{type(error).__name__}: {error}"[:120]
        self.failures[said] = self.failures.get(said, 0) + 1

    async def ask(self, kept):
        reader = writer = None
        began = time.monotonic()
        try:
            async with asyncio.timeout(LIMIT):
                while kept and self.pool:
                    reader, writer = self.pool.pop()
                    if not (reader.at_eof() or writer.is_closing()):
                        break
                    writer.close()
                    reader = None
                if reader is None:
                    reader, writer = await connect(self.address, self.port)
                close = "" if kept else "Connection: close\r\n"
                writer.write(f"GET / HTTP/1.1\r\nHost: samples.test\r\n{close}\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
                status, *fields = head.decode("latin-1").split("\r\n")
                fields = {name.lower(): value.strip() for name, _, value in (f.partition(":") for f in fields)}
                if "content-length" in fields:
                    await reader.readexactly(int(fields["content-length"]))
                elif fields.get("transfer-encoding") == "chunked":
                    while (size := int(await reader.readline(), 16)) > 0:
                        await reader.readexactly(size + 2)
                    await reader.readline()
                if " 200 " not in status:
                    raise RuntimeError(status)
                if kept and fields.get("connection", "").lower() != "close" and len(self.pool) < KEPT:
                    self.pool.append((reader, writer))
                    writer = None
        except Exception as error:  # whatever it is, the request was lost
            self.fail(error)
        finally:
            self.longest = max(self.longest, time.monotonic() - began)
            if writer is not None:
                writer.close()

    async def run(self):
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.over.set)
        due = time.monotonic()
        while not self.over.is_set():
            task = asyncio.create_task(self.ask(self.sent % 2 == 0))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            self.sent += 1
            due += 1 / self.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        if self.tasks:
            await asyncio.wait(self.tasks)
        print(json.dumps({"sent": self.sent, "failed": self.failed, "failures": self.failures, "longest": self.longest}))


asyncio.run(Load(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])).run())
