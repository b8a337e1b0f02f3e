"""The openai package, unmodified, with its base_url pointed at us."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from PIL import Image

# OpenAI has retired the call; its clients still send it.
RETIRED = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def openai_client(app: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{app.url}/v1", api_key="any", max_retries=0) as client:
        yield client


def test_images_generate_gives_the_picture_of_a_seed(openai_client: openai.OpenAI, app: Any) -> None:
    answer = openai_client.images.generate(model="tiny", prompt="a cat", extra_body={"seed": 5})
    assert answer.data is not None
    (picture,) = answer.data
    assert picture.url is None
    file = base64.b64decode(picture.b64_json or "")
    assert Image.open(io.BytesIO(file)).size == (32, 32)
    assert (answer.model_extra or {})["prompt_mode"] == "hashed"
    assert (picture.model_extra or {})["seed"] == 5
    again = openai_client.images.generate(model="tiny", prompt="a cat", extra_body={"seed": 5})
    assert again.data is not None
    assert base64.b64decode(again.data[0].b64_json or "") == file


def test_every_parameter_openai_knows_is_taken(openai_client: openai.OpenAI) -> None:
    answer = openai_client.images.generate(
        model="gpt-image-1",
        prompt="a cat",
        n=2,
        size="64x48",  # type: ignore[arg-type] - the SDK lists OpenAI's own
        quality="high",
        style="vivid",
        background="auto",
        moderation="low",
        output_format="webp",
        output_compression=80,
        user="me",
    )
    assert answer.data is not None
    assert len(answer.data) == 2
    assert answer.output_format == "webp"
    for picture in answer.data:
        image = Image.open(io.BytesIO(base64.b64decode(picture.b64_json or "")))
        assert (image.format, image.size) == ("WEBP", (64, 48))


def test_a_url_answer_gives_the_same_picture(openai_client: openai.OpenAI, client: Any) -> None:
    answer = openai_client.images.generate(model="dall-e-2", prompt="x", response_format="url", extra_body={"seed": 9})
    inline = openai_client.images.generate(model="dall-e-2", prompt="x", extra_body={"seed": 9})
    assert answer.data is not None
    assert inline.data is not None
    assert answer.data[0].b64_json is None
    fetched = client.get(answer.data[0].url)
    assert fetched.content == base64.b64decode(inline.data[0].b64_json or "")


def test_a_stream_completes_each_picture(openai_client: openai.OpenAI) -> None:
    stream = openai_client.images.generate(
        model="tiny", prompt="", n=3, stream=True, partial_images=2, extra_body={"seed": 40}
    )
    events = [event for event in stream if event.type == "image_generation.completed"]
    assert [(event.model_extra or {})["seed"] for event in events] == [40, 41, 42]
    assert all(base64.b64decode(event.b64_json).startswith(b"\x89PNG") for event in events)


@RETIRED
def test_a_variation_of_a_picture_is_made_of_its_file(openai_client: openai.OpenAI, client: Any) -> None:
    made = openai_client.images.generate(model="tiny", prompt="", extra_body={"seed": 6})
    assert made.data is not None
    file = base64.b64decode(made.data[0].b64_json or "")
    extra = {"seed": 8, "strength": 0.4}
    answer = openai_client.images.create_variation(
        image=("seed 6.png", file), model="dall-e-2", n=2, response_format="b64_json", user="me", extra_body=extra
    )
    assert answer.data is not None
    pictures = [base64.b64decode(picture.b64_json or "") for picture in answer.data]
    assert [(picture.model_extra or {})["seed"] for picture in answer.data] == [8, 9]
    assert len({file, *pictures}) == 3
    linked = openai_client.images.create_variation(
        image=io.BytesIO(file), size="256x256", response_format="url", extra_body=extra
    )
    assert linked.data is not None
    fetched = Image.open(io.BytesIO(client.get(linked.data[0].url).content))
    small = Image.open(io.BytesIO(pictures[0]))
    assert fetched.tobytes() == small.resize((256, 256), Image.Resampling.NEAREST).tobytes()


@RETIRED
def test_a_picture_of_another_program_is_refused_with_what_to_do(openai_client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        openai_client.images.create_variation(image=b"any other file", n=1, size="1024x1024")
    assert refused.value.code == "picture_expected"


def test_models_are_listed_and_retrieved(openai_client: openai.OpenAI, app: Any) -> None:
    sha256 = app.publish("second", seed=2)
    listed = {model.id: model for model in openai_client.models.list()}
    assert {"tiny", "second"} <= set(listed)
    assert listed["second"].object == "model"
    one = openai_client.models.retrieve("second")
    assert (one.id, (one.model_extra or {})["checkpoint"]) == ("second", sha256)
    pinned = openai_client.models.retrieve(f"second@{sha256[:12]}")
    assert pinned.id == f"second@{sha256[:12]}"


def test_a_model_is_deleted(openai_client: openai.OpenAI, app: Any) -> None:
    app.publish("short-lived", seed=3)
    assert openai_client.models.delete("short-lived").deleted
    with pytest.raises(openai.NotFoundError):
        openai_client.models.retrieve("short-lived")


def test_errors_carry_their_code_and_request_id(openai_client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        openai_client.images.generate(model="nobody/nothing", prompt="x")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    assert missing.value.request_id
    with pytest.raises(openai.NotFoundError) as slashed:
        openai_client.models.retrieve("nobody/nothing")
    assert slashed.value.code == "model_not_found"
    with pytest.raises(openai.UnprocessableEntityError) as too_many:
        openai_client.images.generate(model="tiny", prompt="x", n=100)
    assert (too_many.value.param, too_many.value.type) == ("n", "invalid_request_error")
    assert "100" in too_many.value.message
