"""The page on webhooks: its receiver runs as it is printed, and what it says is so."""

import asyncio
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from app.core import jobs, webhooks
from app.core.db import Database
from app.webhooks import delivery
from app.webhooks.addresses import PORTS
from app.webhooks.sender import Sender

PAGE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()


def test_the_receiver_on_the_page_accepts_what_is_signed_and_says_what_came(tmp_path: Path) -> None:
    blocks: list[str] = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    (tmp_path / "receiver.py").write_text(blocks[0])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    secret, db = webhooks.new_secret(), Database(f"sqlite:///{tmp_path}/a.sqlite3")
    db.migrate()
    with db.begin() as session:
        job = jobs.submit(session, "train", {"name": "a"})
        webhooks.attach(session, job.id, f"http://localhost:{port}/hooks", secret)
    claim = jobs.claim(db, job.id, threading.Event())
    assert claim is not None
    claim.report("snapshot", {"kimg": 1.0})
    claim.finish("succeeded", message="Done.")
    claim.leave()
    environment = {**os.environ, "WEBHOOK_SECRET": secret, "PORT": str(port)}
    command = [sys.executable, str(tmp_path / "receiver.py")]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as receiver:
        try:
            _wait_for(port)
            asyncio.run(_send_three(db))
        finally:
            receiver.terminate()
        assert receiver.stdout is not None
        said = receiver.stdout.read().splitlines()
    db.close()
    assert said == [f"job.{type_} {job.id}" for type_ in ("started", "snapshot", "succeeded")]


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


async def _send_three(db: Database) -> None:
    outcomes: list[str] = []
    sender = asyncio.create_task(Sender(db, ["localhost"], outcomes.append).run())
    deadline = time.monotonic() + 20
    while outcomes.count("told") < 3:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    sender.cancel()
    await asyncio.gather(sender, return_exceptions=True)


def test_the_types_waits_ports_and_limits_are_those_of_the_code() -> None:
    assert set(re.findall(r"^\| `(job\.\w+)`", PAGE, re.M)) == set(webhooks.MESSAGES.values())
    assert "5 s, 30 s, 2 min, 10 min, 1 h, 5 h and 10 h" in PAGE
    assert webhooks.RETRY_SECONDS == (5, 30, 2 * 60, 10 * 60, 3600, 5 * 3600, 10 * 3600)
    assert "80, 443, 8080 and 8443" in PAGE
    assert {80, 443, 8080, 8443} == PORTS
    assert "within 10 seconds" in PAGE
    assert "within 5 seconds" in PAGE
    assert (delivery.ANSWER_SECONDS, delivery.CONNECT_SECONDS) == (10, 5)
    assert "64 KiB" in PAGE
    assert delivery.LARGEST_ANSWER_BYTES == 64 * 1024
    assert f"{int(webhooks.PROGRESS_GAP_SECONDS * 1000)} ms" in PAGE
    assert f"{webhooks.SHORTEST_SECRET_BYTES} to {webhooks.LONGEST_SECRET_BYTES} random bytes" in PAGE
