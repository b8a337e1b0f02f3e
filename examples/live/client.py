"""Plays a Ganvas model live from Python: walks from seed to seed, shows frames a second, and may keep the frames.

    python examples/live/client.py emoji --seconds 10 --save frames

Needs the package `websockets` alone. GANVAS_KEY is the key of a studio that others can reach.
"""

import argparse
import asyncio
import json
import os
import time
from pathlib import Path
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect


async def walk(live: ClientConnection, args: argparse.Namespace) -> None:
    """Say, some hundred times a second, where between two seeds we are: the studio paints what is newest."""
    started = time.monotonic()
    await live.send(json.dumps({"size": args.size, "format": args.format, "truncation_psi": args.psi}))
    while (passed := time.monotonic() - started) < args.seconds:
        leg, amount = divmod(passed / args.leg, 1)
        first, second = ({"seed": args.seed + int(leg) + step, "truncation_psi": 1.0} for step in (0, 1))
        await live.send(json.dumps({"cross": {"first": first, "second": second, "amount": amount}}))
        await asyncio.sleep(0.01)


async def show(live: ClientConnection, args: argparse.Namespace) -> None:
    """Take frames, and tell every second how many came."""
    count, since, number = 0, time.monotonic(), 0
    async for frame in live:
        if isinstance(frame, str):
            print(json.loads(frame)["error"]["message"])
            continue
        count, number = count + 1, number + 1
        if args.save is not None:
            (args.save / f"{number:06d}.{args.format}").write_bytes(frame)
        if (passed := time.monotonic() - since) >= 1:
            print(f"{count / passed:.1f} frames a second, {len(frame):,} bytes each")
            count, since = 0, time.monotonic()


async def main() -> None:
    """Play until the time is over."""
    parser = argparse.ArgumentParser(description="Plays a Ganvas model live.")
    parser.add_argument("model", nargs="?", default="emoji")
    parser.add_argument("--studio", default="ws://127.0.0.1:8000")
    parser.add_argument("--performance", default="python", help="what others watch it as")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    parser.add_argument("--leg", type=float, default=2, help="seconds from one seed to the next")
    parser.add_argument("--psi", type=float, default=0.7)
    parser.add_argument("--size", default="auto")
    parser.add_argument("--format", choices=["webp", "jpeg", "png"], default="webp")
    parser.add_argument("--save", type=Path, help="folder for the frames")
    args = parser.parse_args()
    if args.save is not None:
        args.save.mkdir(parents=True, exist_ok=True)
    key = os.environ.get("GANVAS_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    url = f"{args.studio}/v1/models/{quote(args.model)}/live?performance={quote(args.performance)}"
    async with connect(url, additional_headers=headers, proxy=None, max_size=None) as live:
        showing = asyncio.create_task(show(live, args))
        await walk(live, args)
        await live.close()
        await showing


if __name__ == "__main__":
    asyncio.run(main())
