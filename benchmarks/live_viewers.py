"""Viewers of a live performance, some of whom hardly read: python live_viewers.py URL COUNT SECONDS

SECONDS is how long each does nothing after every frame; its buffer holds a few frames, as on a thin line.
"""

import asyncio
import socket
import sys
from urllib.parse import urlsplit

from websockets.asyncio.client import connect

BUFFER_BYTES = 4096
OPEN_SECONDS = 60


async def view(url: str, pause: float) -> None:
    """Read a frame, then nothing for a while, for as long as there are frames."""
    address = urlsplit(url)
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    peer.connect((address.hostname, address.port))
    peer.setblocking(False)
    async with connect(url, sock=peer, proxy=None, compression=None, max_queue=1, open_timeout=OPEN_SECONDS) as viewer:
        while True:
            await viewer.recv()
            await asyncio.sleep(pause)


async def main() -> None:
    """All of them at once."""
    url, count, pause = sys.argv[1:]
    await asyncio.gather(*(view(url, float(pause)) for _ in range(int(count))))


if __name__ == "__main__":
    asyncio.run(main())
