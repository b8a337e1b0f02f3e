"""Live over real websockets: messages in, frames out, and what becomes of those who misbehave."""

import contextlib
import io
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from app.api.routes import live
from app.api.sockets import MAX_MESSAGE_BYTES
from app.core.settings import Settings
from app.serving.encode import read_recipe
from worker import tasks

Connect = Callable[..., Any]
SECONDS = 30


@pytest.fixture
def stage(app: Any) -> Connect:
    """Connects to the live route of a model."""

    @contextlib.contextmanager
    def connected(query: str = "", model: str = "tiny", **options: Any) -> Iterator[ClientConnection]:
        url = f"{app.url.replace('http', 'ws', 1)}/v1/models/{model}/live{query}"
        with connect(url, proxy=None, compression=None, **options) as connection:
            yield connection

    return connected


def say(connection: ClientConnection, **message: Any) -> None:
    connection.send(json.dumps(message))


def told(connection: ClientConnection) -> dict[str, Any]:
    text = connection.recv(SECONDS)
    assert isinstance(text, str), "a frame, where a text was expected"
    answer: dict[str, Any] = json.loads(text)
    return answer


def frame(connection: ClientConnection) -> bytes:
    file = connection.recv(SECONDS)
    assert isinstance(file, bytes), file
    return file


def answered(connection: ClientConnection, **message: Any) -> dict[str, Any]:
    """The recipe that a message leads to; the frame behind it is read too."""
    say(connection, id="?", metadata="full", **message)
    text = told(connection)
    assert text.get("id") == "?", text
    assert "error" not in text, text
    recipe = read_recipe(frame(connection))
    assert recipe is not None
    assert recipe.model_dump(mode="json") == text["recipe"]
    answer: dict[str, Any] = text["recipe"]
    return answer


def closed(connection: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as end:
        while True:
            connection.recv(SECONDS)
    assert end.value.rcvd is not None
    return end.value.rcvd.code, end.value.rcvd.reason


def test_a_frame_is_the_picture_that_the_same_recipe_has_as_a_url(stage: Connect, client: httpx.Client) -> None:
    with stage() as connection:
        say(connection, seed=42, psi=0.5, size="48x40", format="png", metadata="full")
        file = frame(connection)
    same = client.get("/v1/models/tiny/image?seed=42&psi=0.5&size=48x40&format=png")
    assert file == same.content


def test_a_frame_is_a_webp_of_the_models_size_that_holds_the_mark_alone(stage: Connect) -> None:
    with stage() as connection:
        say(connection)
        file = frame(connection)
        say(connection, format="jpeg", compression=30, size="64x64")
        jpeg = frame(connection)
    picture = Image.open(io.BytesIO(file))
    assert (picture.format, picture.size) == ("WEBP", (32, 32))
    assert b"trainedAlgorithmicMedia" in file
    assert read_recipe(file) is None
    assert (Image.open(io.BytesIO(jpeg)).format, Image.open(io.BytesIO(jpeg)).size) == ("JPEG", (64, 64))


def test_a_message_changes_what_it_names_and_keeps_the_rest(stage: Connect) -> None:
    first = {"seed": 1, "prompt": "cat"}
    second = {"seed": 2}
    with stage() as connection:
        assert answered(connection)["seed"] == 0
        assert answered(connection, seed=7, psi=0.4)["truncation_psi"] == 0.4
        recipe = answered(connection, cutoff=0)
        assert (recipe["seed"], recipe["truncation_psi"], recipe["truncation_cutoff"]) == (7, 0.4, 0)
        assert answered(connection, cutoff=None, truncation_psi=0.9)["truncation_cutoff"] is None
        answered(connection, mix={"seed": 3, "layers": "0"})
        assert answered(connection, mix={"seed": 4})["mix"] == {"seed": 4, "layers": [0]}
        recipe = answered(connection, mix=None, variations=[{"seed": 5, "strength": 0.5}])
        assert (recipe["mix"], recipe["variations"]) == (None, [{"seed": 5, "strength": 0.5}])
        recipe = answered(connection, reset=True, prompt="a cat")
        assert (recipe["seed"], recipe["prompt_mode"], recipe["variations"]) == (0, "hashed", [])
        answered(connection, reset=True, cross={"first": {"seed": 1}, "second": second, "amount": 0.25})
        crossed = answered(connection, cross={"amount": 0.75})["cross"]
        assert (crossed["amount"], crossed["first"]["seed"], crossed["second"]["seed"]) == (0.75, 1, 2)
        assert answered(connection, cross={"first": first | {"prompt_mode": "hashed"}})["cross"]["amount"] == 0.75
        chosen = answered(connection, reset=True, seed=-1)["seed"]
        assert answered(connection, psi=0.1)["seed"] == chosen


def test_sliders_move_by_name_each_for_itself_and_mean_what_they_mean_in_urls(
    stage: Connect, client: httpx.Client, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANVAS_DATA", str(app.settings.data))
    app.publish("tuned")
    tasks.render(client.post("/v1/models/tuned/directions", json={"count": 2}).json()["id"])
    with stage(model="tuned") as connection:
        answered(connection, sliders={"sefa-0": 1.5})
        both = answered(connection, sliders={"sefa-1": -2})
        assert {slider["name"]: slider["amount"] for slider in both["sliders"]} == {"sefa-0": 1.5, "sefa-1": -2.0}
        say(connection, format="png", metadata="full")
        file = frame(connection)
        assert [slider["name"] for slider in answered(connection, sliders={"sefa-1": None})["sliders"]] == ["sefa-0"]
    assert file == client.get("/v1/models/tuned/image?seed=0&sliders=sefa-0:1.5,sefa-1:-2").content


def test_ids_come_before_their_frames_and_say_how_many_passes_it_took(stage: Connect) -> None:
    with stage() as connection:
        for number in range(200):
            say(connection, seed=number, id=number)
        newest, passes = -1, []
        while newest != 199:
            text = told(connection)
            assert text["id"] > newest
            newest = text["id"]
            passes.append(text["passes"])
            frame(connection)
        assert max(passes) <= 2
        say(connection, id="same")
        assert told(connection) == {"id": "same", "passes": 0}
        frame(connection)


@pytest.mark.parametrize(
    ("text", "code", "param"),
    [
        ("{", "json_invalid", None),
        ("[" * 60_000, "json_invalid", None),
        ('{"psi": NaN}', "json_invalid", None),
        ("[1]", "json_expected", None),
        (b"{}", "json_expected", None),
        ('{"psi": 3}', "invalid_request", "truncation_psi"),
        ('{"sede": 3}', "unknown_field", "sede"),
        ('{"mix": {"seed": 1, "layers": "0", "kept": "for good"}}', "unknown_field", "mix.kept"),
        ('{"id": 1.5}', "invalid_request", "id"),
        ('{"reset": 1}', "invalid_request", "reset"),
        ('{"size": "9999x1"}', "invalid_request", "size"),
        ('{"label": "cat"}', "label_not_found", "label"),
        ('{"sliders": {"rust": 1}}', "direction_not_found", "sliders"),
        ('{"mix": {"seed": 1, "layers": "40"}}', "invalid_request", "mix"),
        ('{"latent": "' + "a" * 64 + '"}', "latent_not_found", "recipe"),
        ('{"cross": {"first": {"seed": 1}, "second": {"seed": 2}, "amount": 2}}', "invalid_request", "cross.amount"),
    ],
)
def test_a_bad_message_is_answered_with_its_error_and_changes_nothing(
    stage: Connect, text: str, code: str, param: str | None
) -> None:
    with stage() as connection:
        before = answered(connection, seed=8)
        connection.send(text)
        error = told(connection)["error"]
        assert (error["code"], error["param"]) == (code, param)
        assert set(error) == {"message", "type", "param", "code"}
        assert answered(connection) == before


def test_an_error_carries_the_id_of_its_message(stage: Connect) -> None:
    with stage() as connection:
        say(connection, psi=9, id="bad")
        assert told(connection)["id"] == "bad"


def test_who_sends_one_bad_message_after_the_other_is_shown_the_door(stage: Connect) -> None:
    with stage() as connection:
        for _ in range(live.MAX_BAD_MESSAGES - 1):
            say(connection, psi=9)
        say(connection, id="good")
        while "error" in (text := told(connection)):
            pass
        assert text["id"] == "good"
        for _ in range(live.MAX_BAD_MESSAGES):
            say(connection, psi=9)
        code, reason = closed(connection)
    assert code == 4422
    assert "20 messages" in reason


def test_too_large_a_message_closes_the_connection(stage: Connect) -> None:
    with stage() as connection:
        connection.send(json.dumps({"prompt": "x" * MAX_MESSAGE_BYTES}))
        assert closed(connection)[0] == 1009


@pytest.mark.parametrize(
    ("model", "query", "code", "words"),
    [
        ("nobody", "", 4404, "nobody"),
        ("tiny", "?performance=a&watch=a", 4422, "not both"),
        ("tiny", "?performance=a%20b", 4422, "performance"),
        ("tiny", "?fps=3", 4422, "fps"),
    ],
)
def test_who_cannot_be_served_is_told_why(stage: Connect, model: str, query: str, code: int, words: str) -> None:
    with stage(query, model) as connection:
        assert words in told(connection)["error"]["message"]
        end, reason = closed(connection)
    assert end == code
    assert words in reason


def test_many_watch_one_performance_by_the_same_passes(stage: Connect, client: httpx.Client) -> None:
    def painted() -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("ganvas_pictures_painted_total{"))

    with contextlib.ExitStack() as open_:
        watching = [open_.enter_context(stage("?watch=show")) for _ in range(5)]
        performer = open_.enter_context(stage("?performance=show"))
        before = painted()
        say(performer, seed=5)
        files = {frame(connection) for connection in [performer, *watching]}
        assert len(files) == 1
        assert painted() - before == 1

        say(watching[0], seed=6, id=3)
        error = told(watching[0])
        assert (error["id"], error["error"]["code"], error["error"]["param"]) == (3, "live_watching", "seed")
        say(watching[0], size="16x16", format="png")
        assert Image.open(io.BytesIO(frame(watching[0]))).size == (16, 16)
        assert painted() - before == 1


def test_several_play_one_performance_and_who_comes_back_finds_it_as_it_was(stage: Connect) -> None:
    with stage("?performance=duet") as one, stage("?watch=duet"):
        answered(one, seed=5)
        with stage("?performance=duet") as two:
            frame(two)  # what is on screen
            recipe = answered(two, psi=0.2)
            assert (recipe["seed"], recipe["truncation_psi"]) == (5, 0.2)
        with stage("?performance=duet") as back:
            frame(back)
            assert answered(back, cutoff=0)["truncation_psi"] == 0.2


def test_performances_of_one_name_and_two_models_are_two(stage: Connect, app: Any) -> None:
    app.publish("other", seed=3)
    with stage("?performance=same") as tiny, stage("?performance=same", "other") as other:
        answered(tiny, seed=9)
        assert answered(other)["seed"] == 0


def test_a_viewer_that_reads_nothing_is_dropped_and_keeps_nobody_waiting(
    stage: Connect, app: Any, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def viewers() -> float:
        (line,) = (line for line in client.get("/metrics").text.splitlines() if line.startswith("ganvas_live_viewers "))
        return float(line.split()[1])

    monkeypatch.setattr(live, "STALLED_SECONDS", 0.5)
    with stage("?performance=busy") as performer, socket.socket() as deaf:
        answered(performer, size="1024x1024", format="png")
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, port = app.url.removeprefix("http://").split(":")
        deaf.connect((host, int(port)))
        deaf.sendall(
            f"GET /v1/models/tiny/live?watch=busy HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            "\r\n".encode()
        )
        deaf.recv(200)
        say(performer, metadata="minimal")
        frame(performer)
        deadline = time.monotonic() + SECONDS
        while viewers() == 1:
            assert time.monotonic() < deadline
        seed = 0
        while viewers() == 2:  # it fills up, and then is given up
            assert time.monotonic() < deadline
            seed += 1
            say(performer, seed=seed)
            frame(performer)
        peer = deaf.getsockname()
        while any(one.raddr == peer for one in psutil.Process().net_connections()):  # cut off, and not waited for
            assert time.monotonic() < deadline


def test_the_limit_of_viewers_is_told_before_the_door_closes(
    start_app: Callable[[Settings], Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data, ending = tmp_path_factory.mktemp("small"), contextlib.ExitStack()
    with start_app(Settings(data=data, threads=1, max_batch=1, max_live_viewers=1)) as small:
        small.publish("tiny")
        url = f"{small.url.replace('http', 'ws', 1)}/v1/models/tiny/live"
        first = ending.enter_context(connect(url, proxy=None))
        answered(first)
        with connect(url, proxy=None) as second:
            assert told(second)["error"]["code"] == "live_full"
            assert closed(second)[0] == 4429
        answered(first)
    assert closed(first)[0] == 1012  # the service restarts
    ending.close()
