"""What a text means is what the networks make of it by themselves, worked out once."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from app.core.errors import Conflict
from app.serving import texts
from app.serving.inference import prepare
from app.serving.recipe import Recipe
from app.serving.texts import Meanings, meanings
from models.config import TextConfig, TrainConfig
from models.latents.truncation import update_w_avg
from models.networks.generator import Generator
from models.registry import build_generator
from models.text import HashedEncoder, feature_weights

CAPTIONS = ["red cat", "blue cat"]


@pytest.fixture
def generator(prompted_config: TrainConfig) -> Generator:
    torch.manual_seed(0)
    made = build_generator(prompted_config.network).requires_grad_(False).eval()
    assert made.text is not None
    made.text.weight.copy_(torch.from_numpy(feature_weights(HashedEncoder(256), CAPTIONS)))
    update_w_avg(made)
    return made


@pytest.fixture
def captioned(generator: Generator) -> Generator:
    """It was trained with some captions, and is ready to paint."""
    colours, things = ("red", "blue", "green", "grey", "pale"), ("cat", "owl", "fox", "cow")
    generator.captions = tuple(f"{colour} {thing}" for colour in colours for thing in things)
    assert generator.text is not None
    generator.text.weight.copy_(torch.from_numpy(feature_weights(HashedEncoder(256), generator.captions)))
    prepare(generator)
    return generator


def ask(generator: Generator) -> Meanings:
    meaning = meanings(generator)
    assert meaning is not None
    return meaning


def test_a_text_means_what_the_networks_make_of_it(generator: Generator) -> None:
    assert generator.text is not None
    c = generator.text(torch.from_numpy(HashedEncoder(256).encode(["red cat"])))
    z = torch.from_numpy(np.random.RandomState(0).randn(1000, generator.z_dim).astype(np.float32))
    w = sum(generator.mapping(row[None], c)[0, 0].double() for row in z) / len(z)
    meaning = ask(generator)("red cat")

    assert torch.allclose(meaning.c, c, atol=1e-5)
    assert torch.allclose(meaning.center.double(), w, atol=1e-5)
    assert not torch.allclose(meaning.center, generator.w_avg, atol=1e-2)


def test_nothing_and_words_it_never_saw_pull_to_the_center_of_no_text(generator: Generator) -> None:
    meaning = ask(generator)

    for text in ("", "  ", "?!", "owl"):
        assert torch.equal(meaning(text).center, generator.w_avg)
        assert torch.equal(meaning(text).c, meaning("").c)


def test_a_text_costs_once(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Counted(HashedEncoder):
        def encode(self, said: Sequence[str]) -> NDArray[np.float32]:
            asked.extend(said)
            return super().encode(said)

    monkeypatch.setattr(texts, "build_encoder", lambda _: Counted(256))
    meaning = ask(generator)
    for _ in range(3):
        meaning("red cat")
        meaning("blue cat")

    assert asked == ["red cat", "blue cat"]


def test_captions_learnt_together_mean_the_same_bits_as_each_asked_alone(
    captioned: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "LEARNING_PAUSE", 0)
    learnt, asked = ask(captioned), ask(captioned)
    learnt.learn(lambda: True)

    assert len({learnt(caption).center.numpy().tobytes() for caption in captioned.captions}) == 20
    for caption in captioned.captions:
        assert torch.equal(learnt(caption).c, asked(caption).c)
        assert torch.equal(learnt(caption).center, asked(caption).center)


def test_a_text_has_the_same_bits_in_every_place_of_a_block(captioned: Generator) -> None:
    alone = ask(captioned)("red cow")
    for place in range(8):
        others = list(captioned.captions[-7:])
        others.insert(place, "red cow")
        among = ask(captioned)._of_texts(others)[place]
        assert torch.equal(among.c, alone.c)
        assert torch.equal(among.center, alone.center)


def test_a_dense_layer_of_thousands_of_features_gives_a_row_the_same_bits_in_every_place() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Linear(8192, 128, bias=False))
    prepare(layer)
    rows = torch.randn(8, 8192)

    with torch.inference_mode():
        expected = layer(rows)
        for turn in range(1, 8):
            assert torch.equal(layer(rows.roll(turn, 0)).roll(-turn, 0), expected)


def test_learning_ends_when_nobody_wants_it_any_more(captioned: Generator) -> None:
    meaning = ask(captioned)
    start = meaning.bytes
    meaning.learn(lambda: meaning.bytes == start)

    assert meaning.bytes == start + 8 * (16 + captioned.w_dim) * 4  # a block of captions: c and center of each


def test_prompts_of_others_drive_no_caption_out_of_memory(
    captioned: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "REMEMBERED_PROMPTS", 3)
    meaning = ask(captioned)
    caption, prompt = meaning("red cat"), meaning("cat cat")
    for number in range(3):
        meaning(f"cat {number}")

    assert meaning("red cat") is caption
    assert meaning("cat cat") is not prompt


def test_a_recipe_without_words_of_its_own_means_the_caption_its_seed_picks(
    captioned: Generator, make_recipe: Callable[..., Recipe]
) -> None:
    meaning = ask(captioned)
    silent, unknown, told = meaning.of([make_recipe(21), make_recipe(22, prompt="?!"), make_recipe(23, prompt="red")])

    assert silent is meaning("red owl")
    assert unknown is meaning("red fox")
    assert told is meaning("red")


@pytest.mark.parametrize("threads", [1, 2])
def test_a_text_means_the_same_bits_whatever_the_threads(generator: Generator, threads: int) -> None:
    prepare(generator)
    alone = ask(generator)("red cat")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        again = ask(generator)("red cat")
    finally:
        torch.set_num_threads(before)

    assert torch.equal(again.c, alone.c)
    assert torch.equal(again.center, alone.center)


def test_a_generator_without_texts_has_no_meanings(prompted_config: TrainConfig) -> None:
    silent = prompted_config.network.model_copy(update={"text": None})

    assert meanings(build_generator(silent)) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TextConfig(encoder="of-another-studio", features=256, dim=8), "of-another-studio"),
        (TextConfig(encoder="hashed-128", features=256, dim=8), "gives 128 numbers here"),
    ],
)
def test_an_encoder_that_is_not_the_one_of_the_training_is_refused(
    prompted_config: TrainConfig, text: TextConfig, says: str
) -> None:
    generator = build_generator(prompted_config.network.model_copy(update={"text": text}))

    with pytest.raises(Conflict, match=says) as refused:
        meanings(generator)
    assert refused.value.error_code == "encoder_unavailable"
