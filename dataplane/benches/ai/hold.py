"""Begins many streams behind a proxy, prints how many, and holds them until its input ends.

    hold.py PORT STREAMS PROMPT_BYTES
"""

import asyncio
import json
import sys

# In turns, because a backend has a limit of connections that are not up yet.
TURN = 50


async def begin(port, body):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /held/v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%s" % (len(body), body)
    )
    seen = b""
    while b"first" not in seen:
        piece = await asyncio.wait_for(reader.read(4096), 30)
        if not piece or (len(seen) > 12 and not seen.startswith(b"HTTP/1.1 200")):
            raise SystemExit(f"no stream: {seen[:300]!r}")
        seen += piece
    return writer


async def main():
    port, wanted, size = map(int, sys.argv[1:])
    text = ("a question " * (size // 11 + 1))[:size]
    chat = {"model": "m", "stream": True, "messages": [{"role": "user", "content": text}]}
    body = json.dumps(chat).encode()
    held = []
    while len(held) < wanted:
        turn = min(TURN, wanted - len(held))
        held += await asyncio.gather(*(begin(port, body) for _ in range(turn)))
    print(len(held), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for writer in held:
        writer.close()


asyncio.run(main())
