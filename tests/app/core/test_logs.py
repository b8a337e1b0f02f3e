"""Logs are lines of JSON where nobody watches, and have no secret in them, whoever wrote it and wherever it stood."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.core.logs import without_secrets

KEY = "gnv_4fGh7Jk9Lm2Np5Qr8St1Vw3Xy6Za0Bc"
PUBLIC = "gnv_pub_9sDf2Gh5Jk8Lz1Xc4Vb7Nm0QwErTyU"
WEBHOOK = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def logged(program: str) -> list[dict[str, object]]:
    """The lines of a program that logs, whose logs nobody watches."""
    code = f"import logging, structlog\nfrom app.core.logs import configure_logs\nconfigure_logs('info')\n{program}"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == ""
    return [json.loads(line) for line in ran.stderr.splitlines()]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"refused {KEY}.", "refused gnv_[hidden]."),
        (f"a page's {PUBLIC}", "a page's gnv_pub_[hidden]"),
        (f'{{"secret": "{WEBHOOK}"}}', '{"secret": "whsec_[hidden]"}'),
        (f"Authorization: Bearer {KEY}", "Authorization: Bearer [hidden]"),
        ("{'authorization': 'Bearer sk-live-0123456789'}", "{'authorization': 'Bearer [hidden]'}"),
        ("[(b'authorization', b'Basic dXNlcjpwYXNzd29yZA==')]", "[(b'authorization', b'Basic [hidden]')]"),
        ('"authorization": "0123456789abcdef"', '"authorization": "[hidden]"'),
        ("redis://:swordfish@cache:6379/0 is away", "redis://[hidden]@cache:6379/0 is away"),
        ("postgresql+psycopg://me:sw0rd@db/ganvas", "postgresql+psycopg://[hidden]@db/ganvas"),
        ("http://127.0.0.1:8000/docs of me@example.com", "http://127.0.0.1:8000/docs of me@example.com"),
        ("GANVAS_HOST is not gnv_ but gonv_", "GANVAS_HOST is not gnv_ but gonv_"),
    ],
)
def test_a_text_loses_its_secrets_and_nothing_else(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_an_event_a_traceback_and_what_a_library_says_are_lines_without_the_key() -> None:
    lines = logged(
        f"log = structlog.get_logger()\n"
        f"log.info('refused', headers={{'authorization': 'Bearer {KEY}'}}, sent=[b'{WEBHOOK}'])\n"
        f"try: raise ValueError('no such key: {KEY}')\n"
        f"except ValueError: log.exception('failed')\n"
        f"logging.getLogger('uvicorn.error').warning('%s came', '{KEY}')\n"
        f"logging.getLogger('uvicorn.error').info('nobody asked')\n"
    )
    assert [line["event"] for line in lines] == ["refused", "failed", "gnv_[hidden] came"]
    assert "ValueError" in str(lines[1]["exception"])
    assert lines[2]["logger"] == "uvicorn.error"
    whole = json.dumps(lines)
    assert KEY not in whole
    assert WEBHOOK not in whole


def test_the_level_holds() -> None:
    assert [
        line["level"] for line in logged("structlog.get_logger().info('a'); structlog.get_logger().debug('b')")
    ] == ["info"]


def test_a_line_that_a_full_disk_does_not_take_harms_nothing_else() -> None:
    program = "structlog.get_logger().info('lost'); print('alive')"
    before = "import structlog; from app.core.logs import configure_logs; configure_logs('info'); "
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [sys.executable, "-c", before + program], stdout=subprocess.PIPE, stderr=full, text=True, check=False
        )
    assert ran.stdout == "alive\n"


def test_what_a_stranger_has_had_logged_is_read_through_in_no_time() -> None:
    """A receiver of webhooks may answer with any bytes, and they end in a line."""
    began = time.monotonic()
    for text in ("a." * 50_000, "a-b+" * 25_000, "authorization=" * 7_000, "a://" * 25_000, "bearer " * 14_000):
        without_secrets(text)
    assert time.monotonic() - began < 5
