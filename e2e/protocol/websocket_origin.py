#!/usr/bin/env python3
"""A WebSocket echo origin for where Autobahn's own cannot run: `websocket_origin.py PORT`."""

import asyncio
import logging
import sys

from websockets.asyncio.server import serve


async def echo(connection):
    """Sends back every message as it came."""
    async for message in connection:
        await connection.send(message)


async def main():
    """Serves until ended."""
    logging.disable()
    async with serve(echo, "127.0.0.1", int(sys.argv[1]), max_size=1 << 25, compression=None, ping_interval=None):
        await asyncio.get_running_loop().create_future()


asyncio.run(main())
