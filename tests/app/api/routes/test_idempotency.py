"""A request that is sent again under its key is answered as before, and makes nothing again."""

import base64
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from app.core import idempotency, keys
from app.core.records import ApiKey, Artwork, Dataset, IdempotentRequest, Job, utc_now
from app.core.settings import Settings

RENDERS = "/v1/renders"
IMAGES = "/v1/images/generations"
BATCH = {"kind": "batch", "model": "tiny", "seeds": [1], "format": "zip"}


def new_key() -> dict[str, str]:
    return {"idempotency-key": str(uuid.uuid4())}


def count(app: Any, record: Any) -> int:
    with app.db.read() as session:
        return int(session.query(record).count())


def row_of(app: Any, key: dict[str, str]) -> IdempotentRequest:
    with app.db.read() as session:
        row: IdempotentRequest = session.query(IdempotentRequest).filter_by(key=key["idempotency-key"]).one()
        return row


def same(first: httpx.Response, again: httpx.Response) -> None:
    """The same answer to the byte, and one that says that it is told again."""
    assert first.is_success, first.text
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    for name in ("content-type", "location", "x-ganvas-recipe", "x-ganvas-artwork"):
        assert again.headers.get(name) == first.headers.get(name)
    assert again.headers["x-request-id"] != first.headers["x-request-id"]


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_same_training_twice_is_one_job_and_one_answer(client: httpx.Client, app: Any, noise: str) -> None:
    key, body, before = new_key(), {"dataset": noise, "name": "once"}, count(app, Job)
    first = client.post("/v1/training/jobs", json=body, headers=key)
    again = client.post("/v1/training/jobs", json=body, headers=key)
    same(first, again)
    assert (first.status_code, first.headers["location"]) == (202, f"/v1/jobs/{first.json()['id']}")
    assert count(app, Job) == before + 1
    refused(client.post("/v1/training/jobs", json=body | {"seed": 2}, headers=key), 422, "idempotency_mismatch")
    refused(client.post(RENDERS, json=body, headers=key), 422, "idempotency_mismatch")
    assert count(app, Job) == before + 1


def test_without_a_key_nothing_is_remembered(client: httpx.Client, app: Any) -> None:
    before = count(app, IdempotentRequest)
    first, second = (client.post(RENDERS, json=BATCH).json()["id"] for _ in range(2))
    assert first != second
    assert count(app, IdempotentRequest) == before


def test_every_step_of_a_job_is_told_again(client: httpx.Client) -> None:
    made = new_key()
    job = client.post(RENDERS, json=BATCH, headers=made)
    same(job, client.post(RENDERS, json=BATCH, headers=made))
    for step, status in (("cancel", "canceled"), ("resume", "queued"), ("cancel", "canceled")):
        path, key = f"/v1/jobs/{job.json()['id']}/{step}", new_key()
        first = client.post(path, headers=key)
        assert first.json()["status"] == status
        same(first, client.post(path, headers=key))


def test_steps_of_a_model_are_told_again(client: httpx.Client, app: Any, vivid: str) -> None:
    app.publish("twin", seed=3)
    steps = (
        ("promote", {"checkpoint": vivid[:12]}),
        ("directions", {"method": "sefa", "count": 2}),
        ("blend", {"with": "vivid", "name": f"blend-{uuid.uuid4().hex[:6]}", "amounts": 0.5}),
    )
    for step, body in steps:
        key, before = new_key(), count(app, Job)
        first = client.post(f"/v1/models/vivid/{step}", json=body, headers=key)
        same(first, client.post(f"/v1/models/vivid/{step}", json=body, headers=key))
        assert count(app, Job) == before + (step != "promote")


def test_while_the_first_is_in_the_making_the_second_is_told_to_wait(client: httpx.Client, app: Any) -> None:
    key = new_key()
    first = client.post(RENDERS, json=BATCH, headers=key)
    change = {"status": None, "locked_until": time.time() + 60}  # as another replica leaves it while it is at it
    touch(app, key, change)
    waiting = client.post(RENDERS, json=BATCH, headers=key)
    refused(waiting, 409, "idempotency_in_flight")
    assert (waiting.headers["x-should-retry"], waiting.headers["retry-after"]) == ("true", "3")
    touch(app, key, {"locked_until": time.time() - 1})  # it was killed
    after = client.post(RENDERS, json=BATCH, headers=key)
    assert after.status_code == 202
    assert after.json()["id"] != first.json()["id"]
    same(after, client.post(RENDERS, json=BATCH, headers=key))


def touch(app: Any, key: dict[str, str], values: dict[str, Any]) -> None:
    with app.db.begin() as session:
        session.query(IdempotentRequest).filter_by(key=key["idempotency-key"]).update(values)


def test_twenty_at_once_make_one(app: Any) -> None:
    key, before = new_key(), count(app, Job)

    def ask(_number: int) -> httpx.Response:
        with app.client() as own:
            while (answer := own.post(RENDERS, json=BATCH, headers=key)).status_code == 409:
                assert answer.json()["error"]["code"] == "idempotency_in_flight"
                time.sleep(0.05)
            return answer

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(ask, range(20)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert count(app, Job) == before + 1


@pytest.mark.parametrize("n", [1, 40])
def test_a_random_picture_is_the_same_picture_again(client: httpx.Client, app: Any, n: int) -> None:
    key, body = new_key(), {"model": "tiny", "seed": -1, "n": n}
    first = client.post(IMAGES, json=body, headers=key)
    same(first, client.post(IMAGES, json=body, headers=key))
    large = len(first.content) > idempotency.BODY_IN_ROW_BYTES
    assert (row_of(app, key).body_sha256 is not None) == large == (n == 40)
    assert client.post(IMAGES, json=body, headers=new_key()).json()["data"] != first.json()["data"]
    refused(client.post(IMAGES, json=body, headers=key | {"accept": "image/png"}), 422, "idempotency_mismatch")


def test_a_random_picture_as_a_file_or_a_stream_is_the_same_again(client: httpx.Client) -> None:
    for body, accept in (({"seed": -1}, "image/png"), ({"seed": -1, "n": 3, "stream": True}, "*/*")):
        headers = new_key() | {"accept": accept}
        first = client.post(IMAGES, json={"model": "tiny", **body}, headers=headers)
        same(first, client.post(IMAGES, json={"model": "tiny", **body}, headers=headers))


def test_what_is_kept_is_kept_once(client: httpx.Client, app: Any) -> None:
    before, key = count(app, Artwork), new_key()
    body = {"model": "tiny", "seed": -1, "n": 40, "keep": True}
    first = client.post(IMAGES, json=body, headers=key)
    same(first, client.post(IMAGES, json=body, headers=key))
    assert count(app, Artwork) == before + 40
    recipe, again = {"recipe": first.json()["data"][0]["recipe"]}, new_key()
    artwork = client.post("/v1/artworks", json=recipe, headers=again)
    assert artwork.status_code == 201
    same(artwork, client.post("/v1/artworks", json=recipe, headers=again))
    assert count(app, Artwork) == before + 41


def test_a_form_with_another_boundary_is_the_same_form(client: httpx.Client, app: Any) -> None:
    made = client.post(IMAGES, json={"model": "tiny", "seed": 6}).json()["data"][0]
    file, key = base64.b64decode(made["b64_json"]), new_key()

    def vary(boundary: str, **fields: str) -> httpx.Response:
        headers = key | {"content-type": f"multipart/form-data; boundary={boundary}"}
        files = {"image": ("a.png", file, "image/png")}
        return client.post("/v1/images/variations", files=files, data={"n": "2", **fields}, headers=headers)

    same(vary("one"), vary("the-other"))
    refused(vary("one", strength="0.9"), 422, "idempotency_mismatch")


def test_an_upload_that_comes_again_is_one_dataset(client: httpx.Client, app: Any, make_archive: Any) -> None:
    key, before = new_key(), count(app, Dataset)

    def upload(name: str, *files: tuple[str, bytes]) -> httpx.Response:
        return client.post("/v1/datasets", data={"name": name}, files=[("files", file) for file in files], headers=key)

    archive = ("a.zip", make_archive(4))
    first = upload("twice", archive)
    assert first.status_code == 201
    same(first, upload("twice", archive))
    refused(upload("twice", ("a.zip", make_archive(5))), 422, "idempotency_mismatch")
    refused(upload("another", archive), 422, "idempotency_mismatch")
    assert count(app, Dataset) == before + 1
    key = new_key()
    loose = [("a.png", b"1"), ("b.png", b"2")]
    same(upload("loose", *loose), upload("loose", *loose))
    assert count(app, Dataset) == before + 2
    assert list((app.settings.data / "blobs" / "tmp").iterdir()) == []


def test_a_failure_is_not_kept_and_the_key_stays_free(client: httpx.Client, app: Any) -> None:
    key, name = new_key(), f"later-{uuid.uuid4().hex[:6]}"
    refused(client.post(RENDERS, json=BATCH | {"model": name}, headers=key), 404, "model_not_found")
    app.publish(name)
    assert client.post(RENDERS, json=BATCH | {"model": name}, headers=key).status_code == 202


def test_a_day_later_the_key_is_new(client: httpx.Client, app: Any) -> None:
    key = new_key()
    first = client.post(RENDERS, json=BATCH, headers=key)
    touch(app, key, {"created_at": utc_now() - timedelta(hours=23, minutes=59)})
    same(first, client.post(RENDERS, json=BATCH, headers=key))
    touch(app, key, {"created_at": utc_now() - timedelta(hours=24, minutes=1)})
    assert client.post(RENDERS, json=BATCH, headers=key).json()["id"] != first.json()["id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "käse".encode(), b"a\tb"])
def test_a_key_that_is_none_is_refused(client: httpx.Client, key: str | bytes) -> None:
    answer = client.post(RENDERS, json=BATCH, headers=[("idempotency-key", key)])
    refused(answer, 422, "idempotency_key_invalid")


@pytest.mark.parametrize("missing", [0, 1])
def test_who_leaves_does_not_keep_the_key(client: httpx.Client, app: Any, missing: int) -> None:
    mark, body = new_key(), b'{"model": "tiny", "n": 8, "seed": -1}'
    host = app.url.removeprefix("http://")
    head = f"POST {IMAGES} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\nContent-Type: application/json\r\n"
    head += f"Idempotency-Key: {mark['idempotency-key']}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(host.split(":")) as connection:
        connection.sendall(head.encode() + body[: len(body) - missing])
    deadline = time.monotonic() + idempotency.LOCK_SECONDS - 1  # or it would be free in any case
    headers = mark | {"content-type": "application/json"}
    while (answer := client.post(IMAGES, content=body, headers=headers)).status_code == 409:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert answer.status_code == 200


def test_the_limit_on_bodies_holds_with_a_key(client: httpx.Client) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(17):
            yield b" " * 65_536

    refused(client.post(IMAGES, content=pieces(), headers=new_key()), 413, "too_large")


def test_an_api_key_is_shown_once_also_to_who_asks_again(client: httpx.Client, app: Any) -> None:
    mark, before, body = new_key(), count(app, ApiKey), {"name": "sketch", "scopes": ["generate"]}
    first = client.post("/v1/keys", json=body, headers=mark)
    assert first.status_code == 201
    again = client.post("/v1/keys", json=body, headers=mark)
    refused(again, 409, "key_shown")
    assert first.json()["id"] in again.json()["detail"]
    assert (again.headers["idempotency-replayed"], again.headers["x-should-retry"]) == ("true", "false")
    assert count(app, ApiKey) == before + 1
    assert first.json()["key"].encode() not in (row_of(app, mark).body or b"")


def test_an_import_that_comes_again_is_one_model(client: httpx.Client, app: Any) -> None:
    file = client.get("/v1/models/tiny/download").content
    mark, name = new_key(), f"import-{uuid.uuid4().hex[:6]}"

    def send(weights: bytes) -> httpx.Response:
        return client.post("/v1/models", data={"name": name}, files={"file": ("a.safetensors", weights)}, headers=mark)

    first = send(file)
    same(first, send(file))
    refused(send(file + b" "), 422, "idempotency_mismatch")


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory, start_app: Any, publish_tiny: Any) -> Iterator[Any]:
    """An application that asks for keys."""
    folder = tmp_path_factory.mktemp("exposed")
    settings = Settings(data=folder, host="0.0.0.0", threads=1, default_model="tiny")  # noqa: S104 - so that it asks for keys
    with start_app(settings) as running:
        publish_tiny(running.db, running.storage)
        yield running


def caller(app: Any, **wish: Any) -> httpx.Client:
    with app.db.begin() as session:
        _, key = keys.create(session, "a", **wish)
    made: httpx.Client = app.client(authorization=f"Bearer {key}")
    return made


def test_the_same_key_of_two_callers_is_two_requests(exposed: Any) -> None:
    mark, ids = new_key(), []
    for _ in range(2):
        with caller(exposed, scopes=["admin"]) as own:
            first = own.post(RENDERS, json=BATCH, headers=mark)
            same(first, own.post(RENDERS, json=BATCH, headers=mark))
            ids.append(first.json()["id"])
    assert ids[0] != ids[1]


def test_who_found_a_key_in_a_page_cannot_fill_the_disk_with_answers(exposed: Any) -> None:
    mark, page = new_key(), "https://sketch.example"
    wish = {"scopes": ["generate"], "publishable": True, "model": "tiny", "origins": [page]}
    with caller(exposed, **wish) as own:
        first, second = (own.post(IMAGES, json={}, headers=mark | {"origin": page}) for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.content != second.content
    with exposed.db.read() as session:
        assert session.query(IdempotentRequest).filter_by(key=mark["idempotency-key"]).count() == 0


def test_where_there_is_little_room_pictures_are_drawn_and_their_answers_not_kept(
    tmp_path: Path, start_app: Any, publish_tiny: Any
) -> None:
    settings = Settings(data=tmp_path, threads=1, default_model="tiny", free_space_floor_mib=10**9)
    with start_app(settings) as running, running.client() as own:
        publish_tiny(running.db, running.storage)
        mark = new_key()
        first, second = (own.post(IMAGES, json={"seed": -1}, headers=mark) for _ in range(2))
        assert (first.status_code, second.status_code) == (200, 200)
        assert first.content != second.content
        assert count(running, IdempotentRequest) == 0


@contextmanager
def losing_answers(url: str, count: int) -> Iterator[str]:
    """A way to the application that lets every request through, and loses the answers to the first ones."""
    host, _, port = url.removeprefix("http://").partition(":")
    listener = socket.create_server(("127.0.0.1", 0))
    lost = iter(range(count))

    def serve() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=carry, args=(near, next(lost, None) is not None), daemon=True).start()

    def carry(near: socket.socket, lose: bool) -> None:
        with near, socket.create_connection((host, int(port))) as far:
            threading.Thread(target=pump, args=(near, far), daemon=True).start()
            if lose:
                far.recv(1)  # the answer is on its way
            else:
                pump(far, near)
            for end in (near, far):
                with suppress(OSError):  # it may be gone already
                    end.shutdown(socket.SHUT_RDWR)

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):  # either end may leave
            while data := source.recv(65_536):
                sink.sendall(data)

    with listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def test_an_answer_that_was_lost_on_its_way_is_given_again(client: httpx.Client, app: Any) -> None:
    key, before = new_key(), count(app, Job)
    with losing_answers(app.url, 1) as url, httpx.Client(base_url=url) as far:
        with pytest.raises(httpx.RemoteProtocolError):
            far.post(RENDERS, json=BATCH, headers=key)
        second = far.post(RENDERS, json=BATCH, headers=key)
    assert (second.status_code, second.headers["idempotency-replayed"]) == (202, "true")
    assert count(app, Job) == before + 1
    assert client.get(second.headers["location"]).json()["id"] == second.json()["id"]


def test_openais_client_does_not_train_twice_when_answers_are_lost(app: Any, noise: str) -> None:
    before, body = count(app, Job), {"dataset": noise, "name": f"openai-{uuid.uuid4().hex[:6]}"}
    with losing_answers(app.url, 2) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="any", timeout=15) as far:
        job: Any = far.post("/training/jobs", body=body, cast_to=object)
        picture = far.images.generate(model="tiny", prompt="", extra_body={"keep": True, "seed": -1})
    assert (job["status"], count(app, Job)) == ("queued", before + 1)
    assert picture.data is not None


def test_openais_client_keeps_one_artwork_when_an_answer_is_lost(app: Any) -> None:
    before = count(app, Artwork)
    with losing_answers(app.url, 1) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="any", timeout=15) as far:
        picture = far.images.generate(model="tiny", prompt="", extra_body={"keep": True, "seed": -1})
    assert picture.data is not None
    assert count(app, Artwork) == before + 1


def test_openais_first_tries_are_each_their_own_and_pictures_leave_no_trace(client: httpx.Client, app: Any) -> None:
    first_try, second_try = ({"x-stainless-retry-count": tried} for tried in ("0", "1"))
    first, second = (client.post(RENDERS, json=BATCH, headers=first_try) for _ in range(2))
    assert first.json()["id"] != second.json()["id"]
    same(second, client.post(RENDERS, json=BATCH, headers=second_try))
    before = count(app, IdempotentRequest)
    for headers in (first_try, second_try):
        assert client.post(IMAGES, json={"model": "tiny"}, headers=headers).status_code == 200
    assert count(app, IdempotentRequest) == before
