from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.config import TrainConfig
from models.text import HashedEncoder, feature_weights
from worker.training.ranks import Ranks
from worker.training.texts import ENCODED_AT_ONCE, NOTHING, Texts

CPU = torch.device("cpu")
ENCODER = HashedEncoder(256)


class DenseEncoder:
    """Three numbers a text, and a count of how often it was asked."""

    id = "sentence:three"
    size = 3

    def __init__(self) -> None:
        self.asked = 0

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += len(texts)
        return np.array([[len(text), 1, 0] for text in texts], dtype=np.float32).reshape(-1, 3)


def said_of(texts: Texts, numbers: NDArray[np.int64]) -> list[str]:
    return ["" if number == NOTHING else texts.said[number] for number in numbers]


def test_every_picture_keeps_its_own_caption_and_label() -> None:
    captions = ["red cat", None, "red cat", "", "щенок"]
    labels = ["cat", "cat", None, None, "dog"]
    texts = Texts.of(captions, labels, ENCODER)
    assert said_of(texts, texts.captions) == ["red cat", "", "red cat", "", "щенок"]
    assert said_of(texts, texts.labels) == ["cat", "cat", "", "", "dog"]
    assert texts.of_pictures == ["red cat", "cat", "red cat", "", "щенок"]
    expected = feature_weights(ENCODER, ["red cat", "red cat", "щенок", "cat", "cat", "dog"])
    np.testing.assert_array_equal(texts.weights, expected)


def test_a_caption_without_a_word_is_none_and_leaves_the_label() -> None:
    texts = Texts.of(["❤️ !!", "…", "heart"], ["heart", None, None], ENCODER)
    assert said_of(texts, texts.captions) == ["", "", "heart"]
    assert texts.of_pictures == ["heart", "", "heart"]


def test_pictures_are_shown_with_the_features_of_the_text_that_was_chosen(
    tiny_config: Callable[..., TrainConfig],
) -> None:
    captions = ["red cat", None, "a blue dog", None]
    labels = ["cat", "tree", None, None]
    texts = Texts.of(captions, labels, ENCODER)
    rows = np.array([2, 0, 1, 3, 0])
    shown = texts.show(rows, tiny_config(caption_dropout=0.0, label_share=0.0), CPU)
    expected = ENCODER.encode(["a blue dog", "red cat", "tree", "", "red cat"])
    np.testing.assert_array_equal(shown.features.numpy(), expected)
    labelled = texts.show(rows, tiny_config(caption_dropout=0.0, label_share=1.0), CPU)
    expected = ENCODER.encode(["a blue dog", "cat", "tree", "", "cat"])
    np.testing.assert_array_equal(labelled.features.numpy(), expected)


def test_the_shares_shown_by_label_and_without_are_those_asked_for(tiny_config: Callable[..., TrainConfig]) -> None:
    texts = Texts.of(["red"], ["cat"], ENCODER)
    red, cat = (torch.from_numpy(ENCODER.encode([text])[0]) for text in ("red", "cat"))
    torch.manual_seed(0)
    count = 4_000
    features = texts.show(np.zeros(count, np.int64), tiny_config(caption_dropout=0.1, label_share=0.3), CPU).features[
        :, :128
    ]
    shares = [float((features == text[:128]).all(dim=1).float().mean()) for text in (torch.zeros(256), cat, red)]
    for found, expected in zip(shares, (0.1, 0.9 * 0.3, 0.9 * 0.7), strict=True):
        assert abs(found - expected) < 5 * (expected * (1 - expected) / count) ** 0.5


def test_texts_true_of_a_picture_are_told_from_those_that_are_not_as_a_loop_tells_them(
    tiny_config: Callable[..., TrainConfig],
) -> None:
    random = np.random.default_rng(0)
    captions = [random.choice(["red cat", "blue cat", "dog", None]) for _ in range(30)]
    labels = [random.choice(["cat", "dog", None]) for _ in range(30)]
    texts = Texts.of(captions, labels, ENCODER)
    by_features = {ENCODER.encode([text])[0].tobytes(): text for text in ("red cat", "blue cat", "dog", "cat", "")}
    rows = random.integers(0, 30, 64)
    torch.manual_seed(0)
    shown = texts.show(rows, tiny_config(caption_dropout=0.2, label_share=0.5), CPU)
    chosen = [by_features[features.tobytes()] for features in shown.features.numpy()]
    assert {"", "cat", "dog", "red cat", "blue cat"} == set(chosen)
    for i, row in enumerate(rows):
        for j, text in enumerate(chosen):
            silent = chosen[i] == "" or text == ""
            assert bool(shown.same[i, j]) == (silent or text in (captions[row], labels[row]) or i == j), (i, j)


def test_a_text_of_many_pictures_counts_for_each_as_one_among_them(tiny_config: Callable[..., TrainConfig]) -> None:
    texts = Texts.of(["red cat", "red cat", "dog", None], ["cat", "cat", "cat", "tree"], ENCODER)
    rows = np.arange(4)
    by_caption = texts.show(rows, tiny_config(caption_dropout=0.0, label_share=0.0), CPU)
    assert by_caption.alone.tolist() == [0.5, 0.5, 1.0, 1.0]
    by_label = texts.show(rows, tiny_config(caption_dropout=0.0, label_share=1.0), CPU)
    assert by_label.alone.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1.0])
    torch.manual_seed(0)
    mostly_silent = texts.show(np.zeros(50, np.int64), tiny_config(caption_dropout=0.9), CPU)
    assert torch.equal(mostly_silent.alone > 0, mostly_silent.features.abs().sum(dim=1) > 0)


def test_the_same_chance_shows_the_same_whatever_number_of_processes(tiny_config: Callable[..., TrainConfig]) -> None:
    texts = Texts.of(["red cat", "dog"], ["cat", None], ENCODER)
    config, rows = tiny_config(caption_dropout=0.3, label_share=0.5), np.array([0, 1, 0, 0, 1, 0, 0, 1])
    torch.manual_seed(3)
    whole = texts.show(rows, config, CPU)
    for rank in range(2):
        torch.manual_seed(3)
        part = texts.show(rows[rank::2], config, CPU, Ranks(rank, 2))
        assert torch.equal(part.features, whole.features[rank::2])


def test_a_dataset_of_which_nothing_is_said_is_shown_in_silence(tiny_config: Callable[..., TrainConfig]) -> None:
    for encoder in (ENCODER, DenseEncoder()):
        texts = Texts.of([None] * 4, [None, "", None, "!"], encoder)
        shown = texts.show(np.array([0, 3, 1]), tiny_config(), CPU)
        assert torch.equal(shown.features, torch.zeros(3, encoder.size))
        assert shown.same.all()
        assert texts.of_pictures == [""] * 4


def test_a_hundred_thousand_captions_take_no_memory_of_a_hundred_thousand_rows() -> None:
    captions = [f"picture number {number} of a series" for number in range(2_000)]
    texts = Texts.of(captions, [None] * len(captions), HashedEncoder(8192))
    held = sum(array.nbytes for array in vars(texts.features).values() if isinstance(array, np.ndarray))
    assert held < len(captions) * 8192 * 4 / 20
    numbers = texts.captions[[7, 1999, 0]]
    expected = HashedEncoder(8192).encode([captions[row] for row in (7, 1999, 0)])
    np.testing.assert_array_equal(texts.features[numbers], expected)


def test_the_work_of_a_slow_encoder_is_kept_beside_the_dataset_and_done_once(
    tmp_path: Path, tiny_config: Callable[..., TrainConfig]
) -> None:
    captions = [f"w{number}" for number in range(ENCODED_AT_ONCE + 5)]
    shown = []
    for asked in (len(captions), 0):
        encoder = DenseEncoder()
        texts = Texts.of(captions, [None] * len(captions), encoder, tmp_path / "cache")
        assert encoder.asked == asked
        config = tiny_config(caption_dropout=0.0)
        shown.append(texts.show(np.array([0, len(captions) - 1]), config, CPU).features)
    assert torch.equal(shown[0], torch.tensor([[2.0, 1, 0], [4, 1, 0]]))
    assert torch.equal(shown[0], shown[1])
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


@pytest.mark.parametrize("encoder", [ENCODER, DenseEncoder()])
def test_every_batch_of_texts_that_is_read_is_a_sign_of_life(encoder: HashedEncoder | DenseEncoder) -> None:
    captions, signs = [f"w{number}" for number in range(2 * ENCODED_AT_ONCE)], list[None]()
    Texts.of(captions, [None] * len(captions), encoder, sign=lambda: signs.append(None))
    assert len(signs) >= 2


def test_a_cache_of_other_texts_is_not_believed(tmp_path: Path) -> None:
    Texts.of(["a", "b"], [None, None], DenseEncoder(), tmp_path / "cache")
    encoder = DenseEncoder()
    texts = Texts.of(["a", "b", "long"], [None, None, None], encoder, tmp_path / "cache")
    assert encoder.asked == 3
    np.testing.assert_array_equal(texts.features[texts.captions], [[1, 1, 0], [1, 1, 0], [4, 1, 0]])


@pytest.mark.parametrize("encoder", [ENCODER, DenseEncoder()])
def test_pictures_are_told_apart_by_texts_in_any_script(
    encoder: HashedEncoder | DenseEncoder, tiny_config: Callable[..., TrainConfig]
) -> None:
    captions = ["красный", "日本語の絵を描く", "हिन्दी"]
    texts = Texts.of(captions, [None] * 3, encoder)
    features = texts.show(np.arange(3), tiny_config(caption_dropout=0.0), CPU).features
    assert len(torch.unique(features, dim=0)) == 3
