"""A file is proved by rebuilding it, altered ones are told apart, and hostile ones cost little."""

import base64
import io
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from app.api.middleware import PROOF_MAX_BYTES
from app.core.settings import MIB, Settings
from app.serving.encode import Pixels, encode
from app.serving.recipe import Mix, Recipe

ROUTE = "/v1/recipes/verify"
SOON_SECONDS = 2.0


@pytest.fixture(scope="module", autouse=True)
def models(vivid: str, spoken: str) -> None:
    """`vivid`, and `spoken`, which knows texts."""


def verify(client: httpx.Client, file: bytes) -> httpx.Response:
    return client.post(ROUTE, files={"file": ("picture", file)})


def verified(client: httpx.Client, file: bytes) -> dict[str, Any]:
    answer = verify(client, file)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def drawn(client: httpx.Client, **body: Any) -> list[bytes]:
    answer = client.post("/v1/images/generations", json={"model": "vivid"} | body)
    assert answer.status_code == 200, answer.text
    return [base64.b64decode(picture["b64_json"]) for picture in answer.json()["data"]]


def made(client: httpx.Client, **body: Any) -> tuple[Recipe, Pixels]:
    """The recipe and the pixels of one picture."""
    answer = client.post("/v1/images/generations", json={"model": "vivid"} | body).json()["data"][0]
    with Image.open(io.BytesIO(base64.b64decode(answer["b64_json"]))) as image:
        return Recipe.model_validate(answer["recipe"]), np.array(image.convert("RGB"))


def png_saying(pixels: Pixels, text: str) -> bytes:
    info, file = PngImagePlugin.PngInfo(), io.BytesIO()
    info.add_text("ganvas", text)
    Image.fromarray(pixels).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


def two_hundred() -> list[dict[str, Any]]:
    """Requests of ten pictures each: every container, size, mix, prompt and quality."""
    containers = [
        {"output_format": "png"},
        {"output_format": "jpeg"},
        {"output_format": "jpeg", "output_compression": 60},
        {"output_format": "webp", "output_compression": 100},
        {"output_format": "webp", "output_compression": 35},
    ]
    kinds = [
        {"truncation_psi": 1.0, "size": "80x48", "mix": {"seed": 9, "layers": "1-2"}},
        {"prompt": "a blue cat", "truncation_psi": -0.5, "truncation_cutoff": 2},
        {"model": "spoken", "prompt": "red caf\u00e9", "label": "face"},
        {"model": "spoken", "size": "20x100", "prompt": "\u732b red", "mix": {"seed": 4, "layers": "0"}},
    ]
    return [
        {"seed": 100 * number, "n": 10, **container, **kind}
        for number, (container, kind) in enumerate((container, kind) for container in containers for kind in kinds)
    ]


def test_two_hundred_files_of_every_kind_are_identical(client: httpx.Client) -> None:
    files = [file for body in two_hundred() for file in drawn(client, **body)]
    assert len(set(files)) == 200
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda file: verified(client, file), files))
    assert [answer for answer in answers if answer.keys() != {"recipe", "identical"} or not answer["identical"]] == []
    assert len({Recipe.model_validate(answer["recipe"]) for answer in answers}) == 200


def test_a_png_with_the_recipe_of_another_seed_says_by_how_much_it_differs(client: httpx.Client) -> None:
    recipe, pixels = made(client, seed=5)
    _, others = made(client, seed=6)
    forged = encode(pixels, output_format="png", recipe=recipe.model_copy(update={"seed": 6}))
    answer = verified(client, forged)
    levels = np.abs(pixels.astype(int) - others)
    assert (answer["recipe"]["seed"], answer["identical"]) == (6, False)
    difference = answer["difference"]
    assert difference["pixels"] == np.count_nonzero(levels.any(axis=2))
    assert difference["share"] == pytest.approx(difference["pixels"] / 1024)
    assert (difference["max"], difference["mean"]) == (levels.max(), pytest.approx(levels.mean()))
    assert "one of the two was changed" in difference["reason"]
    assert "size" not in difference


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_a_touched_up_picture_is_not_identical(client: httpx.Client, output_format: Any) -> None:
    recipe, pixels = made(client, seed=7)
    pixels[8:12, 8:12] = 255 - pixels[8:12, 8:12]
    answer = verified(client, encode(pixels, output_format=output_format, recipe=recipe))
    assert answer["identical"] is False
    assert answer["difference"]["pixels"] >= 16
    if output_format == "png":
        assert answer["difference"]["pixels"] == 16


def test_a_resized_picture_is_told_by_its_size_and_not_painted(client: httpx.Client) -> None:
    recipe, pixels = made(client, seed=7)
    smaller = encode(pixels, output_format="png", recipe=recipe.model_copy(update={"size": (16, 16)}))
    text = smaller.replace(b'"size":[16,16]', b'"size":[32,32]')
    answer = verified(client, text)
    assert (answer["identical"], answer["difference"]["size"]) == (False, [16, 16])
    assert "16x16 pixels and its recipe says 32x32" in answer["difference"]["reason"]
    assert "pixels" not in answer["difference"]


def test_a_picture_that_declares_a_giant_is_not_unpacked(client: httpx.Client) -> None:
    (file,) = drawn(client, seed=7)
    started = time.perf_counter()
    answer = verified(client, file[:16] + b"\0\1\0\0\0\1\0\0" + file[24:])
    assert time.perf_counter() - started < SOON_SECONDS
    assert (answer["identical"], answer["difference"]["size"]) == (False, [65536, 65536])


def test_a_file_from_before_the_runtime_was_told_is_painted_with_this_machines(client: httpx.Client) -> None:
    recipe, pixels = made(client, seed=8)
    text = recipe.model_copy(update={"device": None, "dtype": None}).canonical_json()
    older = text.replace('"device":null,', "").replace('"dtype":null,', "")
    assert verified(client, png_saying(pixels, older))["identical"] is True
    pixels[0, 0] ^= 255
    answer = verified(client, png_saying(pixels, older))
    assert answer["difference"]["pixels"] == 1
    assert "does not say what it was painted on" in answer["difference"]["reason"]


def test_a_file_of_another_device_is_painted_here_and_says_so(client: httpx.Client) -> None:
    recipe, pixels = made(client, seed=8)
    pixels[0, 0] ^= 1
    elsewhere = recipe.model_copy(update={"device": "cuda", "dtype": "float16"})
    answer = verified(client, encode(pixels, output_format="png", recipe=elsewhere))
    assert (answer["difference"]["pixels"], answer["difference"]["max"]) == (1, 1)
    assert "painted on cuda in float16 and rebuilt on cpu" in answer["difference"]["reason"]
    assert answer["recipe"]["device"] == "cuda"


def test_a_file_is_rebuilt_in_the_dtype_it_was_painted_in(
    client: httpx.Client, start_app: Callable[[Settings], Any], publish_vivid: Callable[..., str], tmp_path: Path
) -> None:
    painted = []
    for dtype in ("float32", "bfloat16"):
        settings = Settings(data=tmp_path / dtype, threads=1, max_batch=2, dtype=dtype, import_samples=False)
        with start_app(settings) as running, running.client() as other:
            publish_vivid(running, "vivid")
            files = drawn(other, seed=3, n=8)
        answers = [verified(client, file) for file in files]
        assert {(answer["recipe"]["dtype"], answer["identical"]) for answer in answers} == {(dtype, True)}
        painted.append([Image.open(io.BytesIO(file)).tobytes() for file in files])
    assert painted[0] != painted[1]


def test_only_the_checkpoint_counts_whatever_its_model_is_called(client: httpx.Client) -> None:
    recipe, pixels = made(client, seed=9)
    renamed = recipe.model_copy(update={"model": "another name"})
    assert verified(client, encode(pixels, output_format="png", recipe=renamed))["identical"] is True


def test_weights_that_are_not_here_are_404_with_their_digits(client: httpx.Client, app: Any) -> None:
    recipe, pixels = made(client, seed=9)
    no_checkpoint = app.storage.put(b"any blob that is kept here")
    for sha256 in ("0123456789ab" + "c" * 52, no_checkpoint):
        answer = verify(
            client, encode(pixels, output_format="webp", recipe=recipe.model_copy(update={"checkpoint": sha256}))
        )
        assert refusal(answer) == (404, "checkpoint_not_found", "file")
        assert sha256[:12] in answer.json()["detail"]


@pytest.mark.parametrize(
    ("asked", "param"),
    [({"prompt": "a cat"}, "prompt"), ({"label": "cat"}, "prompt"), ({"mix": Mix(seed=1, layers=(9,))}, "mix")],
)
def test_what_the_model_cannot_draw_is_its_own_refusal(client: httpx.Client, asked: dict[str, Any], param: str) -> None:
    recipe, pixels = made(client, seed=9)
    answer = verify(client, encode(pixels, output_format="png", recipe=recipe.model_copy(update=asked)))
    assert refusal(answer) == (422, "invalid_request", param)


def test_a_file_without_a_recipe_is_told_so(client: httpx.Client) -> None:
    (minimal,) = drawn(client, seed=2, metadata="minimal")
    for file in (minimal, b"", b"GIF89a", b"{}", png_saying(np.zeros((8, 8, 3), np.uint8), "Steps: 20")):
        assert refusal(verify(client, file)) == (422, "recipe_missing", "file")


def hostile(recipe: Recipe, pixels: Pixels) -> Iterator[bytes]:
    """Files that hold something like a recipe, or a recipe in something like a file."""
    text = recipe.canonical_json()
    seed = f'"seed":{recipe.seed}'
    for value in ("NaN", "-1", "1e400", "9" * 30_000, '"x"', "[7]", "null", "[" * 30_000, '{"a":' * 5_000):
        yield png_saying(pixels, text.replace(seed, f'"seed":{value}'))
    for value in ("NaN", "Infinity", "-Infinity", "1e999"):
        yield png_saying(pixels, text.replace('"truncation_psi":0.7', f'"truncation_psi":{value}'))
    for size in ("[32]", "[32,32,32]", "[0,32]", "[2147483648,1]", "[NaN,1]", '"32x32"', "{}"):
        yield png_saying(pixels, text.replace('"size":[32,32]', f'"size":{size}'))
    yield png_saying(pixels, text.replace('"prompt":null', '"prompt":"\\ud800"'))
    yield png_saying(pixels, text.replace(recipe.checkpoint, "../" * 21 + "a"))
    yield png_saying(pixels, text[:-1] + ',"more":1}' + text)
    yield png_saying(pixels, '{"checkpoint":"' * 500_000)
    whole = png_saying(pixels, text)
    yield from (text.encode(), b"\x89PNG\r\n\x1a\n" + text.encode(), b"\xff\xd8\xff\xe0\0\xff" + text.encode())
    yield from (whole[: len(whole) - cut] for cut in (20, 200, 1500))
    yield text.encode() + b"RIFF" * 3_000_000
    yield b"RIFF\0\0\0\0WEBP" + text.encode() + bytes(12_000_000)
    yield b"\xff\xd8\xff\xe0\0\4ab" + b"\xff\xfe\0\2" * 3_000_000 + text.encode()
    yield whole[:33] + (b"\0\0\0\0tEXt" + zlib.crc32(b"tEXt").to_bytes(4)) * 1_000_000 + whole[33:]


def test_hostile_files_are_refused_soon(client: httpx.Client) -> None:
    for number, file in enumerate(hostile(*made(client, seed=11))):
        started = time.perf_counter()
        answer = verify(client, file)
        assert time.perf_counter() - started < SOON_SECONDS, number
        assert answer.status_code == 422, (number, answer.text)
        assert answer.json()["error"]["code"] in {"recipe_missing", "picture_invalid"}


def test_the_largest_picture_of_ours_is_taken(client: httpx.Client) -> None:
    recipe, _ = made(client, seed=1)
    noise = np.random.RandomState(0).randint(0, 256, (2048, 2048, 3), dtype=np.uint8)
    largest = encode(noise, output_format="png", recipe=recipe.model_copy(update={"size": (2048, 2048)}))
    assert verified(client, largest)["difference"]["share"] > 0.99


def test_a_body_that_never_ends_is_cut_off(client: httpx.Client) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        for _ in range(PROOF_MAX_BYTES // MIB + 1):
            yield bytes(MIB)

    answer = client.post(ROUTE, content=pieces(), headers={"content-type": "multipart/form-data; boundary=x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


def test_anything_but_one_file_is_refused_by_name(client: httpx.Client) -> None:
    (file,) = drawn(client, seed=1)
    assert refusal(client.post(ROUTE, files={"picture": file})) == (422, "unknown_field", "picture")
    assert refusal(client.post(ROUTE, files={"file": b""}, data={}))[0] == 422
    assert refusal(client.post(ROUTE, data={"file": "text"})) == (422, "invalid_request", "file")
    extra = client.post(ROUTE, files={"file": file}, data={"recipe": "{}"})
    assert refusal(extra) == (422, "unknown_field", "recipe")
    broken = client.post(ROUTE, content=b"--y", headers={"content-type": "multipart/form-data; boundary=x"})
    assert broken.status_code in {400, 422}
    for sent in ({"json": {"file": "a"}}, {"content": b""}, {"data": {}}):
        assert refusal(client.post(ROUTE, **sent)) == (422, "missing_field", "file")
    assert client.post(ROUTE, files=[("file", file), ("file", file)]).status_code == 400
