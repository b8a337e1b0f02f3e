"""One delivery goes to the address that was looked at, and TLS asks for the name."""

import asyncio
import contextlib
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpcore
import pytest

from app.core.webhooks import Delivery, new_secret
from app.webhooks.addresses import destination
from app.webhooks.delivery import post, sign

LISTED = ("studio.example", "other.example")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for studio.example, and its key in the same file."""
    openssl = shutil.which("openssl")
    assert openssl, "openssl makes the certificate of this test"
    place = tmp_path / "studio.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=studio.example", "-addext", "subjectAltName=DNS:studio.example"]
    subprocess.run([*command, "-keyout", place, "-out", tmp_path / "c.pem"], check=True, capture_output=True)
    place.write_text(place.read_text() + (tmp_path / "c.pem").read_text())
    return place


@pytest.fixture
def https(certificate: Path) -> Iterator[tuple[int, list[str]]]:
    """A receiver over TLS: its port, and the Host of each request it gets."""
    hosts: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hosts.append(self.headers["host"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

        def handle(self) -> None:
            with contextlib.suppress(ssl.SSLError):
                super().handle()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_port, hosts
        server.shutdown()


def deliver(url: str, certificate: Path) -> int:
    context = ssl.create_default_context(cafile=certificate)
    return asyncio.run(post(destination(url, LISTED), ["127.0.0.1"], {}, b"{}", context))


def test_a_pinned_delivery_asks_for_the_name_and_believes_only_its_certificate(
    https: tuple[int, list[str]], certificate: Path
) -> None:
    port, hosts = https
    assert deliver(f"https://studio.example:{port}/hooks", certificate) == 204
    with pytest.raises(httpcore.ConnectError, match="certificate"):
        deliver(f"https://other.example:{port}/hooks", certificate)
    assert hosts == [f"studio.example:{port}"]


def test_the_next_address_is_tried_where_one_takes_no_connection(receiver: Any) -> None:
    where = destination(receiver.url, ("127.0.0.1",))
    context = ssl.create_default_context()
    assert asyncio.run(post(where, ["127.0.0.2", "127.0.0.1"], {}, b"{}", context)) == 204
    with pytest.raises(httpcore.ConnectError):
        asyncio.run(post(where, ["127.0.0.2"], {}, b"{}", context))


def test_a_number_that_is_none_is_sent_as_null() -> None:
    _, body = sign(
        Delivery("msg_1", "job_1", "job.progress", 1, "https://a.example", new_secret(), {"a": float("nan")})
    )
    assert body == b'{"a":null}'
