"""Where webhooks may go: to names and addresses of the public internet, and to hosts that the operator lists.

Server-side request forgery is what this is against: whoever may start a job must not be able to make the studio talk to
its own network. OWASP, Server-Side Request Forgery Prevention Cheat Sheet; IANA's special-purpose address registries.
"""

import asyncio
import contextlib
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

from app.core.errors import InvalidRequest

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

LONGEST_URL: Final = 2000
PORTS: Final = frozenset({80, 443, 8080, 8443})
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
# One pattern reads the whole URL, and what it read is what is connected to: two parsers may disagree. It has no place
# for a user, for white space, or for a host in anything but ASCII.
URL: Final = re.compile(
    r"(?P<scheme>https?)://(?:\[(?P<six>[0-9a-f:.]+)\]|(?P<name>[0-9a-z._-]+))(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>[/?][!-\"$-~]*)?(?:#[!-~]*)?",
    re.IGNORECASE | re.ASCII,
)
NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")  # a host whose last part is one is read as an address by C libraries
LABEL: Final = re.compile(r"[0-9a-z_]([0-9a-z_-]{0,61}[0-9a-z_])?")
LOCAL_NAMES: Final = ("localhost", "localdomain", "local", "internal", "intranet", "lan", "home.arpa")
SIXES: Final = ip_network("2000::/3")  # all that is global unicast
NAT64: Final = ip_network("64:ff9b::/96")  # RFC 6052: an IPv4 address in its last four bytes
# Special, and not said to be so by every version of `ipaddress` that we run under.
SPECIAL: Final = tuple(
    ip_network(block)
    for block in (
        "100.64.0.0/10",  # carriers' own; clouds keep metadata there
        "168.63.129.16/32",  # Azure's host, which looks public
        "192.0.0.0/24",  # protocols, and Oracle's metadata
        "192.88.99.0/24",  # 6to4 relays
        "2001::/23",  # Teredo and other tunnels
        "2002::/16",  # 6to4, which leads to an IPv4 address
        "3fff::/20",  # documentation
    )
)


class WebhookRefused(InvalidRequest):
    """A webhook would go where none may."""

    code = "webhook_refused"


@dataclass(frozen=True)
class Destination:
    """Where a URL leads, in the parts it is connected to by."""

    scheme: str
    host: str  # a name, or an address without brackets
    port: int
    target: str  # path and query
    listed: bool  # by the operator: neither port nor address is asked about

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def destination(url: str, listed: Collection[str]) -> Destination:
    """Where a URL leads, or WebhookRefused where its form alone says that it may not be used.

    listed: hosts that need not be public, as a URL writes them.
    """
    read = URL.fullmatch(url) if len(url) <= LONGEST_URL else None
    if read is None:
        raise _refused(
            f"it must be an http or https URL of at most {LONGEST_URL:,} ASCII characters, without a user or password"
        )
    scheme = read["scheme"].lower()
    host = (read["six"] or read["name"]).lower()
    port = int(read["port"]) if read["port"] else DEFAULT_PORTS[scheme]
    target = read["target"] or "/"
    is_listed = host in {name.lower().strip("[]") for name in listed}
    found = Destination(scheme, host, port, target if target[0] == "/" else f"/{target}", is_listed)
    if not found.listed:
        if port not in PORTS:
            raise _refused(f"its port is {port}, and may be {', '.join(map(str, sorted(PORTS)))}")
        _require_public_name(host, is_six=read["six"] is not None)
    return found


def require_public(found: Destination, addresses: Sequence[str]) -> None:
    """WebhookRefused unless all addresses that a destination's name has are public, or the operator lists it."""
    if not addresses:
        raise _refused(f"{found.host} has no address")
    if not found.listed and not all(is_public(address) for address in addresses):
        raise _refused(f"{found.host} has an address that is not public")


def is_public(address: str) -> bool:
    """Whether an address is one that anybody on the internet may reach, whatever it is wrapped in."""
    try:
        found: IPv4Address | IPv6Address = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return is_public(str(found.ipv4_mapped))
        if found in NAT64:
            return is_public(str(IPv4Address(found.packed[-4:])))
        if found not in SIXES:
            return False
    return found.is_global and not found.is_multicast and not any(found in block for block in SPECIAL)


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a name; none where it has none.

    In a thread of its own: a name server that keeps silent must hold up neither others nor the end of the process.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def tell(addresses: list[str]) -> None:
        if not answer.done():  # nobody waits any longer
            answer.set_result(addresses)

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError:
            found = []
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, addresses)

    threading.Thread(target=ask, name=f"resolve-{host}", daemon=True).start()
    return await answer


def _require_public_name(host: str, *, is_six: bool) -> None:
    labels = host.split(".")
    if is_six or NUMBER.fullmatch(labels[-1]):
        if not _is_address(host) or not is_public(host):
            raise _refused(f"{host} is no public address")
    elif not all(LABEL.fullmatch(label) for label in labels):
        raise _refused(f"{host[:100]} is no host name")
    elif len(labels) < 2 or any(f".{host}".endswith(f".{name}") for name in LOCAL_NAMES):
        raise _refused(f"{host} is no public name")


def _is_address(host: str) -> bool:
    """Whether a host is an address in its one plain form: 127.1 and 0x7f000001 are addresses too, to a C library."""
    with contextlib.suppress(AddressValueError):
        return str(IPv4Address(host)) == host
    with contextlib.suppress(AddressValueError):
        IPv6Address(host)
        return True
    return False


def _refused(why: str) -> WebhookRefused:
    message = f"This webhook is not told anything: {why}. GANVAS_WEBHOOK_HOSTS lists hosts that need not be public."
    return WebhookRefused(message, param="webhook")
