"""Whoever may start a job cannot make the studio talk to its own machine or network: a canary listens, and no packet
leaves."""

import asyncio
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import httpcore
import pytest
from sqlalchemy import select

from app.core import jobs, webhooks
from app.core.db import Database
from app.core.records import WebhookMessage
from app.webhooks.addresses import PORTS, WebhookRefused, destination
from app.webhooks.sender import Sender

HOSTS = (  # that are this machine or its network, or may be
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "0x7f000001",
    "0x7f.0.0.1",
    "0X7F.1",
    "2130706433",
    "017700000001",
    "0177.0.0.1",
    "127.000.000.001",
    "0",
    "0.0.0.0",  # noqa: S104
    "127.0.0.1.",
    "127.0.0.2",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "hooks.localhost",
    "localhost.localdomain",
    "metadata",
    "metadata.google.internal",
    "studio.local",
    "169.254.169.254",
    "100.100.100.200",
    "100.64.0.1",
    "168.63.129.16",
    "192.0.0.192",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[fe80::1]",
    "[fe80::1%25lo]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    "[2001:db8::1]",
    "１２７.0.0.1",
    "①②⑦.①",
    "ⓛocalhost",
    "127。0。0。1",
    "%31%32%37.0.0.1",
    "-example.com",
    "example..com",
    "a" * 3000 + ".com",
    "example.com@127.0.0.1",
    "user:password@example.com",
    "example.com\\@127.0.0.1",
    "127.0.0.1#.example.com",
    "exam\tple.com",
    "127.0.0.1\n.example.com",
    "exa mple.com",
    "example.com\r\nHost: localhost\r\n",
)
URLS = (
    "http://example.com:6379/",
    "http://example.com:22/",
    "http://example.com:0/",
    "http://example.com:99999/",
    "http:///127.0.0.1/",
    "http:127.0.0.1/",
    "//127.0.0.1/",
    " http://127.0.0.1/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "ftp://127.0.0.1/",
    "unix:///var/run/redis.sock",
    "data:text/plain,hello",
    "http://",
    "",
)
ADDRESSES = (  # that a name may have
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",  # noqa: S104
    "10.1.2.3",
    "169.254.169.254",
    "100.64.0.1",
    "168.63.129.16",
    "::1",
    "::",
    "::ffff:127.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "fe80::1%lo",
    "fd00::1",
)
PUBLIC = "93.184.216.34"

Start = Callable[[str], Any]
_packets: list[tuple[str, Any]] | None = None  # what this thread would have sent; null: nobody looks


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    mine = threading.current_thread() is threading.main_thread()
    if _packets is not None and mine and event in {"socket.connect", "socket.sendto", "socket.getaddrinfo"}:
        _packets.append((event, arguments[1] if event == "socket.connect" else arguments))


sys.addaudithook(_note)  # for good; it does nothing unless a test looks


@pytest.fixture
def packets() -> Iterator[list[tuple[str, Any]]]:
    """Every connection and every look-up that the interpreter begins meanwhile."""
    global _packets  # noqa: PLW0603 - an audit hook cannot be taken away again
    _packets = []
    yield _packets
    _packets = None


class Canary:
    """Listens on every address of this machine, on a port that webhooks may go to."""

    def __init__(self) -> None:
        self.heard = 0
        self._listening, self.port = _listen()
        threading.Thread(target=self._hear, daemon=True).start()

    def _hear(self) -> None:
        with suppress(OSError):
            while True:
                self._listening.accept()[0].close()
                self.heard += 1

    def close(self) -> None:
        """Stop listening."""
        self._listening.shutdown(socket.SHUT_RDWR)  # or the port stays taken for as long as the thread accepts
        self._listening.close()


def _listen() -> tuple[socket.socket, int]:
    for port in sorted(PORTS, reverse=True):
        with suppress(OSError):
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True), port
    pytest.fail(f"none of the ports {sorted(PORTS)} is free for the canary")


@pytest.fixture
def canary() -> Iterator[Canary]:
    """A canary, which sings when it is spoken to."""
    bird = Canary()
    socket.create_connection(("127.0.0.1", bird.port)).close()
    socket.create_connection(("::1", bird.port)).close()
    deadline = time.monotonic() + 5
    while bird.heard < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    bird.heard = 0
    yield bird
    bird.close()


def send_all(db: Database, **arguments: Any) -> list[WebhookMessage]:
    """Let a sender have its way until nothing is owed any longer; what became of the messages."""

    async def run() -> list[WebhookMessage]:
        sender = asyncio.create_task(Sender(db, arguments.pop("listed", ()), lambda _: None, **arguments).run())
        deadline = time.monotonic() + 30
        while True:
            with db.read() as session:
                messages = list(session.scalars(select(WebhookMessage)))
            if all(message.next_at is None for message in messages):
                break
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)
        return messages

    return asyncio.run(run())


def owe(db: Database, where: Sequence[str]) -> None:
    """A message to each of these URLs."""
    with db.begin() as session:
        for url in where:
            job = jobs.submit(session, "train", {"name": "a"})
            webhooks.attach(session, job.id, url, webhooks.new_secret())
            webhooks.note(session, job.id, "status", {"status": "running"})


def urls(port: int | None = None) -> list[str]:
    """All forms, on a port where they may have one."""
    return [f"http://{host}/" if port is None else f"http://{host}:{port}/hooks" for host in HOSTS] + list(URLS)


def test_there_are_well_over_forty_forms() -> None:
    assert len(set(HOSTS) | set(URLS)) >= 80


@pytest.mark.parametrize("url", urls() + urls(8080))
def test_a_form_that_leads_inside_is_refused_when_it_is_asked_for(url: str) -> None:
    with pytest.raises(WebhookRefused) as caught:
        destination(url, ())
    assert (caught.value.error_code, caught.value.param) == ("webhook_refused", "webhook")


def test_no_packet_leaves_for_a_form_that_leads_inside(
    db: Database, canary: Canary, packets: list[tuple[str, Any]]
) -> None:
    owe(db, urls(canary.port))  # as if they had been let in
    messages = send_all(db, waits=())
    assert len(messages) == len(HOSTS) + len(URLS)
    assert {message.delivered_at for message in messages} == {None}
    assert all("This webhook is not told anything" in (message.error or "") for message in messages)
    assert packets == []
    assert canary.heard == 0


def test_no_packet_leaves_for_a_name_that_has_a_private_address(
    db: Database, canary: Canary, packets: list[tuple[str, Any]]
) -> None:
    answers = [[address] for address in ADDRESSES] + [[PUBLIC, address] for address in ADDRESSES]
    names = {f"n{index}.studio.example": answer for index, answer in enumerate(answers)}
    owe(db, [f"http://{name}:{canary.port}/" for name in names])

    async def resolve(host: str, _port: int) -> Sequence[str]:
        return names[host]

    messages = send_all(db, waits=(), resolve=resolve)
    assert all("not public" in (message.error or "") for message in messages)
    assert packets == []
    assert canary.heard == 0


def test_the_canary_hears_and_the_packets_are_seen_where_the_operator_lists_the_host(
    db: Database, started: Start, canary: Canary, packets: list[tuple[str, Any]]
) -> None:
    started(f"http://127.0.0.1:{canary.port}/")
    send_all(db, waits=(), listed=("127.0.0.1",))
    assert ("socket.connect", ("127.0.0.1", canary.port)) in packets
    assert canary.heard == 1


def test_a_name_that_changes_from_public_to_private_is_looked_up_once_an_attempt_and_then_refused(
    db: Database, started: Start, receiver: Any, canary: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.statuses = [500]
    started(f"http://studio.example:{canary.port}/")
    lookups: list[str] = []
    connected: list[str] = []

    async def resolve(host: str, _port: int) -> Sequence[str]:
        lookups.append(host)
        return [PUBLIC] if len(lookups) == 1 else ["127.0.0.1"]

    network = httpcore.AnyIOBackend.connect_tcp

    async def internet(self: Any, host: str, port: int, *arguments: Any) -> httpcore.AsyncNetworkStream:
        connected.append(host)  # the one thing a laptop has not got: a public address that answers
        assert host == PUBLIC
        return await network(self, "127.0.0.1", int(receiver.url.split(":")[2].split("/")[0]), *arguments)

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", internet)
    (message,) = send_all(db, waits=(0,), resolve=resolve)
    assert lookups == ["studio.example"] * 2
    assert connected == [PUBLIC]
    assert len(receiver.heard) == 1
    assert receiver.heard[0][0]["host"].partition(":")[0] == "studio.example"
    assert "not public" in (message.error or "")
    assert canary.heard == 0


def test_a_redirect_inside_is_not_followed(db: Database, started: Start, receiver: Any, canary: Canary) -> None:
    receiver.statuses, receiver.headers = [302, 307], {"location": f"http://127.0.0.1:{canary.port}/"}
    started(receiver.url)
    send_all(db, waits=(0,), listed=("127.0.0.1",))
    assert len(receiver.heard) == 2
    assert canary.heard == 0
