"""Requests that nobody means well: ids that are paths, JSON that is none, forms and HTTP that break off."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

IDS = (
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "%252e%252e%252fetc%252fpasswd",
    "..%5c..%5cwindows",
    "%2fetc%2fpasswd",
    "C:%5cx",
    "a%00b",
    "x" * 5_000,
    "CON",
    "%e2%80%aegnp",
    "%ff%fe",
    "'%20OR%201=1--",
    "$%7bjndi:ldap:%2f%2f127.0.0.1%2fa%7d",
    "%0d%0aset-cookie:%20a=b",
    "-1",
)
PLACES = (
    "/v1/models/{}",
    "/v1/models/{}/image?seed=1",
    "/v1/models/{}/download",
    "/v1/models/tiny@{}",
    "/v1/datasets/{}",
    "/v1/datasets/{}/items",
    "/v1/jobs/{}",
    "/v1/jobs/{}/samples/1.0.png",
    "/v1/jobs/{}/events",
    "/v1/artworks/{}/file",
    "/v1/renders/{}/file",
)
BODIES = {
    "nothing": b"",
    "half an object": b'{"seed":',
    "NaN": b'{"seed": NaN}',
    "Infinity": b'{"truncation_psi": -Infinity}',
    "1e400": b'{"truncation_psi": 1e400}',
    "-2": b'{"seed": -2}',
    "2^63": b'{"seed": 9223372036854775808}',
    "10,000 digits": b'{"seed": ' + b"9" * 10_000 + b"}",
    "true for a number": b'{"n": true}',
    "a list": b"[]",
    "a text": b'"seed"',
    "null": b"null",
    "a depth of 10,000": b'{"prompt":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "objects in objects": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    "a lone surrogate": b'{"model": "\\ud800"}',
    "a mark of order": b"\xef\xbb\xbf[]",
    "UTF-16": '{"seed": 1.5}'.encode("utf-16"),
    "bytes that are no text": b'{"model": "\xff\xfe"}',
    "a NUL": b'{"model": "a\\u0000b"}',
    "a path for a model": b'{"model": "../../etc/passwd"}',
    "a size of millions": b'{"size": "1000000x1000000"}',
    "65 pictures": b'{"n": 65}',
    "a million seeds": b'{"seeds": "0-1000000"}',
    "a template": b'{"model": "{{7*7}}"}',
}
MAKING = ("/v1/images/generations", "/v1/training/jobs", "/v1/renders", "/v1/artworks", "/v1/models/tiny/directions")


class Asked(NamedTuple):
    """One request, as an HTTP client sends it."""

    name: str
    method: str
    path: str
    options: dict[str, Any]


def ids() -> Iterator[Asked]:
    """Names that lead elsewhere, wherever something is named."""
    for place in PLACES:
        for name in IDS:
            yield Asked(f"{place} of {name[:30]}", "GET", place.format(name), {})
    for name in IDS:
        yield Asked(f"a deletion of {name[:30]}", "DELETE", f"/v1/models/{name}", {})


def bodies() -> Iterator[Asked]:
    """JSON that is none, or holds what it may not."""
    for path in MAKING:
        for name, body in BODIES.items():
            yield Asked(f"{name} to {path}", "POST", path, {"content": body, "headers": JSON})
        yield Asked(f"10 MiB to {path}", "POST", path, {"content": b'"' + b"x" * 10 * 2**20 + b'"', "headers": JSON})
    wrong = {"content-type": "application/x-www-form-urlencoded"}
    yield Asked("a form for JSON", "POST", "/v1/training/jobs", {"content": b"dataset=a", "headers": wrong})
    twice = b'{"dataset": "a", "dataset": "b", "name": "x", "preset": "tiny"}'
    yield Asked("a field twice", "POST", "/v1/training/jobs", {"content": twice, "headers": JSON})


JSON = {"content-type": "application/json"}


def forms() -> Iterator[Asked]:
    """Multipart bodies that are damaged or flood."""
    begun = b'--b\r\ncontent-disposition: form-data; name="%s"%s\r\n\r\n'
    kind = {"content-type": "multipart/form-data; boundary=b"}
    bodies = {
        "no boundary": (b"", {"content-type": "multipart/form-data"}),
        "a boundary of 5,000 characters": (b"", {"content-type": f"multipart/form-data; boundary={'b' * 5_000}"}),
        "a boundary that never comes": (b"x" * 1000, kind),
        "a part without an end": (begun % (b"name", b"") + b"x", kind),
        "a part without a name": (b"--b\r\n\r\nx\r\n--b--\r\n", kind),
        "10,000 parts": (begun % (b"name", b"") + (b"\r\n" + begun % (b"name", b"")) * 10_000, kind),
        "a field of 1 MB": (begun % (b"name", b"") + b"x" * 10**6 + b"\r\n--b--\r\n", kind),
        "a head of 1 MB": (b"--b\r\n" + b"x: " + b"y" * 10**6 + b"\r\n\r\nx\r\n--b--\r\n", kind),
        "a field nobody knows": (begun % (b"files", b'; filename="a.png"') + b"x\r\n" + begun % (b"run", b"")
                                 + b"id\r\n--b--\r\n", kind),
    }  # fmt: skip
    for path in ("/v1/datasets", "/v1/models", "/v1/recipes/verify"):
        for name, (body, headers) in bodies.items():
            yield Asked(f"{name} to {path}", "POST", path, {"content": body, "headers": headers})


def raw(host: str) -> Iterator[tuple[str, bytes]]:
    """What no client of HTTP sends."""
    get, post = b"GET /v1/models HTTP/1.1\r\n", b"POST /v1/datasets HTTP/1.1\r\n"
    named = b"Host: " + host.encode() + b"\r\n"
    body = json.dumps({"seed": 1}).encode()
    yield "noise", bytes(range(256)) * 4
    yield "a TLS handshake", bytes.fromhex("160301020001000001fc0303") + bytes(500)
    yield "no host", get + b"\r\n"
    yield "two hosts", get + named + b"Host: evil.example\r\n\r\n"
    yield "another host", get + b"Host: evil.example\r\n\r\n"
    yield "a host that is a path", get + b"Host: a/?x=\r\n\r\n"
    yield "another origin", get + named + b"Origin: https://evil.example\r\n\r\n"
    yield "two keys", get + named + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n"
    yield "60,000 headers", get + named + b"".join(b"x%d: y\r\n" % number for number in range(60_000)) + b"\r\n"
    yield "a header of 1 MB", get + named + b"x: " + b"y" * 10**6 + b"\r\n\r\n"
    yield "a path of 1 MB", b"GET /" + b"x" * 10**6 + b" HTTP/1.1\r\n" + named + b"\r\n"
    yield "an unknown method", b"BREW /v1/models HTTP/1.1\r\n" + named + b"\r\n"
    yield "an unknown version", b"GET /v1/models HTTP/9.9\r\n" + named + b"\r\n"
    yield "a length that is a word", post + named + b"Content-Length: ten\r\n\r\n" + body
    yield "a negative length", post + named + b"Content-Length: -1\r\n\r\n" + body
    yield "two lengths", post + named + b"Content-Length: 5\r\nContent-Length: 50\r\n\r\n" + body
    yield "a length of 10 GiB", post + named + b"Content-Length: 10737418240\r\n\r\n" + body
    yield "a chunk that is no number", post + named + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + body
    yield "a length and chunks", post + named + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET"
    yield "an unknown encoding", post + named + b"Transfer-Encoding: rot13\r\n\r\n" + body
