"""`ganvas osc`: plays a performance by OSC, the newest value of everything, for as long as there is a studio."""

import asyncio
import contextlib
import json
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NoReturn
from urllib.parse import quote, urlsplit

from pythonosc.osc_message import OscMessage, ParseError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from app.core.errors import InvalidRequest, NotAllowed, SettingsInvalid
from app.osc_mapping import Mapping, Where

SEND_SECONDS: Final = 1 / 120  # between two messages; what comes meanwhile is merged
RETRY_SECONDS: Final = 1.0  # until the next attempt to reach the studio
MAX_FRAME_BYTES: Final = 32 * 1024 * 1024
BUNDLE: Final = b"#bundle\0"
BUNDLE_HEAD_BYTES: Final = 16  # with its time, which is not waited for: a live performance shows what is newest
MAX_NESTING: Final = 8  # of bundles
REFUSED: Final = frozenset({4401, 4403})  # codes of closing: a second attempt changes nothing
UNANSWERED: Final = 64  # messages remembered until a frame or a refusal says what became of them

Values = dict[Where, Any]
RESET: Final = ("reset",)


@dataclass(frozen=True)
class Bridge:
    """From where to where."""

    mapping: Mapping
    listen: tuple[str, int]  # host and port, UDP
    studio: str  # its URL
    model: str
    performance: str
    key: str | None = None
    show_rate: bool = False


def messages(datagram: bytes, nesting: int = 0) -> Iterator[tuple[str, list[Any]]]:
    """Address and arguments of each OSC message in a datagram; what is no OSC is left out.

    Bundles are taken apart here: python-osc 1.10 never comes back from one whose element has a negative size.
    """
    if not datagram.startswith(BUNDLE):
        with contextlib.suppress(ParseError, ValueError, struct.error):
            message = OscMessage(datagram)
            if message.address.startswith("/"):
                yield message.address, list(message)
        return
    start = BUNDLE_HEAD_BYTES
    while nesting < MAX_NESTING and start + 4 <= len(datagram):
        size = int.from_bytes(datagram[start : start + 4])
        start += 4
        yield from messages(datagram[start : start + size], nesting + 1)
        start += size


class Player(asyncio.DatagramProtocol):
    """Hears OSC, and says to a studio what it means."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self._said: Values = {}  # all of it, for a studio that has to be told again
        self._news: Values = {}  # what it was not told yet
        self._sent: dict[int, Values] = {}  # what it did not answer yet, by id
        self._number = 0  # of the latest message
        self._stirred = asyncio.Event()
        self._told = ""  # the latest line
        self._heard = self._frames = 0  # since the rate was shown

    def datagram_received(self, data: bytes, _address: Any) -> None:
        """Merge what it means into what has not been sent."""
        for address, arguments in messages(data):
            self._heard += 1
            change = self.bridge.mapping.change(address, arguments)
            if change is None:
                continue
            field, value = change
            if field == RESET:
                self._said.clear()
                self._news.clear()
            else:
                self._said[field] = value
            self._news[field] = value
            self._stirred.set()

    async def play(self) -> NoReturn:
        """Stay connected for good. Raises NotAllowed where the studio will not have it, InvalidRequest for its URL."""
        headers = {} if self.bridge.key is None else {"Authorization": f"Bearer {self.bridge.key}"}
        url = live_url(self.bridge)
        while True:
            try:
                # No proxy, nor compression: it is another room's machine at most.
                async with connect(
                    url,
                    additional_headers=headers,
                    proxy=None,
                    compression=None,
                    max_size=MAX_FRAME_BYTES,
                    close_timeout=RETRY_SECONDS,
                ) as connection:
                    self._say(f"playing {url}")
                    await self._perform(connection)
            except InvalidStatus as error:
                if error.response.status_code in (401, 403):
                    text = f"{url} says {error.response.status_code}. Set GANVAS_KEY to a key with the scope generate."
                    raise NotAllowed(text) from error
                self._say(f"no studio: {error}")
            except InvalidURI as error:
                raise InvalidRequest(f"{url} is no address of a studio.", param="url") from error
            except ConnectionClosed as error:
                reason = "" if error.rcvd is None else error.rcvd.reason
                if error.rcvd is not None and error.rcvd.code in REFUSED:
                    raise NotAllowed(reason) from error
                self._say(f"the studio is gone: {reason or 'no reason given'}")
            except (OSError, InvalidHandshake, TimeoutError) as error:
                self._say(f"no studio: {error}")
            await asyncio.sleep(RETRY_SECONDS)

    async def _perform(self, connection: ClientConnection) -> None:
        """Until the connection ends: ConnectionClosed."""
        self._news = self._said | self._news
        self._sent.clear()
        self._stirred.set()
        sending = asyncio.create_task(self._send(connection))
        try:
            await self._receive(connection)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send(self, connection: ClientConnection) -> None:
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            news, self._news = self._news, {}
            if news:
                await self._tell(connection, news)
            await asyncio.sleep(SEND_SECONDS)

    async def _tell(self, connection: ClientConnection, values: Values) -> None:
        self._number += 1
        self._sent[self._number] = values
        if len(self._sent) > UNANSWERED:
            del self._sent[min(self._sent)]
        await connection.send(json.dumps(message_of(values) | {"id": self._number}))

    async def _receive(self, connection: ClientConnection) -> None:
        while True:
            answer = await connection.recv()
            if isinstance(answer, bytes):
                self._frames += 1
                continue
            told = json.loads(answer)
            if (error := told.get("error")) is None:
                self._sent = {number: values for number, values in self._sent.items() if number > told["id"]}
            else:
                self._say(f"refused: {error['message']}")
                await self._without(connection, self._sent.pop(told.get("id", 0), {}))

    async def _without(self, connection: ClientConnection, refused: Values) -> None:
        """Of a message that came to nothing, say each part by itself: one bad fader shall not still the others."""
        for field, value in refused.items():
            newest = self._said.get(field, value)
            if len(refused) > 1:
                await self._tell(connection, {field: newest})
            elif newest == value:
                self._said.pop(field, None)

    async def show_rate(self) -> NoReturn:
        """Print every second what came in and what came of it."""
        while True:
            await asyncio.sleep(1)
            sys.stderr.write(f"ganvas osc: {self._heard} messages in, {self._frames} frames\n")
            self._heard = self._frames = 0

    def _say(self, line: str) -> None:
        """To the terminal, once."""
        if line != self._told:
            self._told = line
            sys.stderr.write(f"ganvas osc: {line}\n")


def message_of(values: Values) -> dict[str, Any]:
    """Values by their fields, as a live message has them."""
    message: dict[str, Any] = {}
    for (outer, *inner), value in values.items():
        if inner:
            message.setdefault(outer, {})[inner[0]] = value
        else:
            message[outer] = value
    return message


def live_url(bridge: Bridge) -> str:
    """The websocket of a performance. Raises InvalidRequest for what is no URL of a studio."""
    parts = urlsplit(bridge.studio)
    if parts.scheme not in ("http", "https", "ws", "wss") or not parts.hostname:
        raise InvalidRequest(f"{bridge.studio!r} is no URL such as http://127.0.0.1:8000.", param="url")
    scheme = "wss" if parts.scheme in ("https", "wss") else "ws"
    path = f"{parts.path.rstrip('/')}/v1/models/{quote(bridge.model, safe='@')}/live"
    return f"{scheme}://{parts.netloc}{path}?performance={quote(bridge.performance, safe='')}"


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port of "127.0.0.1:9000", "[::1]:9000" or ":9000", which is every address of this machine."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65_535:
        raise InvalidRequest(f"{text!r} is no address such as 127.0.0.1:9000.", param="listen")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - as asked


async def run(bridge: Bridge) -> NoReturn:
    """Listen and play until cancelled. Raises SettingsInvalid where the port is taken, and as Player.play() does."""
    loop = asyncio.get_running_loop()
    player = Player(bridge)
    host, port = bridge.listen
    try:
        transport, _ = await loop.create_datagram_endpoint(lambda: player, local_addr=(host, port))
    except OSError as error:
        raise SettingsInvalid(f"UDP port {port} on {host} cannot be used: {error}.", param="listen") from error
    sys.stderr.write(f"ganvas osc: listening on {host}:{transport.get_extra_info('sockname')[1]}\n")
    rate = asyncio.create_task(player.show_rate()) if bridge.show_rate else None
    try:
        await player.play()
    finally:
        transport.close()
        if rate is not None:
            rate.cancel()
