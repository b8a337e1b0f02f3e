import re
import sys
from collections.abc import Callable
from hashlib import blake2b
from math import log
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from models.errors import EncoderUnavailable
from models.text import (
    MAX_LETTERS,
    MAX_WORDS,
    VOCABULARY_WORDS,
    SentenceEncoder,
    build_encoder,
    feature_weights,
    terms,
    vocabulary,
    words,
)

# Buckets of 8192 as BLAKE2b gives them: the word in the first half; "<ca", "cat", "at>", "<cat", "cat>" and "<cat>" in
# the second. Checkpoints of prompted models depend on them for ever.
CAT = (2095, [7482, 6191, 4490, 7981, 7784, 7829])
APPLES = (352, [4200, 5454, 4432, 5955, 5227, 7721, 5854, 8091, 7665, 7523, 4448, 6095])  # äpfel


@pytest.mark.parametrize(("text", "places"), [("cat", CAT), ("Äpfel", APPLES)])
def test_the_buckets_of_a_word_are_what_they_have_always_been(text: str, places: tuple[int, list[int]]) -> None:
    (features,) = build_encoder("hashed-8192").encode([text])
    word, groups = places
    expected = np.zeros(8192, dtype=np.float32)
    expected[word] = 1
    expected[groups] = len(groups) ** -0.5
    np.testing.assert_allclose(features, expected, rtol=1e-6)


def hashed_by_hand(text: str, size: int) -> np.ndarray:
    """Words in one half, their groups of 3 to 5 characters in the other, which together count as much as the word."""

    def bucket(part: str) -> int:
        return int.from_bytes(blake2b(part.encode("utf-8"), digest_size=8).digest(), "big") % (size // 2)

    features = np.zeros(size)
    for word in text.split():
        features[bucket(word)] += 1
        marked = "<" + word + ">"
        groups = [marked[i : i + n] for n in (3, 4, 5) for i in range(len(marked)) if i + n <= len(marked)]
        for group in groups:
            features[size // 2 + bucket(group)] += 1 / np.sqrt(len(groups))
    return features


@pytest.mark.parametrize("size", [64, 65, 8192])
def test_a_text_is_the_sum_of_its_words_however_often_they_come(size: int) -> None:
    texts = ["a red red apple", "", "щенок a", "ab"]
    found = build_encoder(f"hashed-{size}").encode(texts)
    assert (found.shape, found.dtype) == ((4, size), np.float32)
    for features, text in zip(found, texts, strict=True):
        np.testing.assert_allclose(features, hashed_by_hand(text, size), atol=1e-5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A Red, red APPLE!", ["a", "red", "red", "apple"]),
        ("red_apple-01.png", ["red", "apple", "01", "png"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("ﬁne Ｃａｔ", ["fine", "cat"]),
        ("café cafe\u0301", ["café", "café"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),  # vowel signs are no letters, but parts of words
        ("日本語", ["日本語"]),
        ("❤️ 😀 !?", []),
        ("", []),
    ],
)
def test_words_are_told_apart_in_any_script_and_spelt_one_way(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_endless_texts_and_endless_words_are_cut() -> None:
    assert len(words("cat " * 1_000)) == MAX_WORDS
    assert words("x" * 150) == ["x" * MAX_LETTERS, "x" * MAX_LETTERS, "x" * (150 - 2 * MAX_LETTERS)]


def test_a_vocabulary_lists_the_words_of_most_texts_first() -> None:
    assert vocabulary(["red red red cat", "cat, blue", "cat red"]) == ("cat", "red", "blue")
    many = vocabulary([f"common w{number}" for number in range(VOCABULARY_WORDS + 10)])
    assert (many[0], len(many)) == ("common", VOCABULARY_WORDS)


def test_terms_are_known_or_not_each_once_and_in_the_order_said() -> None:
    assert terms("Zebra, red CAT red zebra", ["cat", "red"]) == (["red", "cat"], ["zebra"])


def test_a_spelling_nearby_is_nearer_than_a_stranger() -> None:
    encoder = build_encoder("hashed-8192")

    def likeness(one: str, other: str) -> float:
        a, b = encoder.encode([one, other])
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    assert likeness("smiling", "smilling") > likeness("smiling", "laughing") + 0.2
    assert likeness("apple", "apples") > likeness("apple", "pear") + 0.2
    assert likeness("red apple", "apple, red") == pytest.approx(1)


def test_features_weigh_by_how_few_texts_have_them_and_those_of_none_nothing() -> None:
    texts = ["red cat", "red dog", "red", "red cat cat"]
    encoder = build_encoder("hashed-8192")
    weights = feature_weights(encoder, texts)
    found = {word: float(weights[int(np.argmax(encoder.encode([word])[0]))]) for word in ("red", "cat", "dog", "emu")}
    expected = {"red": 1 + log(5 / 5), "cat": 1 + log(5 / 3), "dog": 1 + log(5 / 2), "emu": 0.0}
    assert found == pytest.approx(expected, rel=1e-6)
    assert (weights > 0).sum() == (encoder.encode(["red cat dog"])[0] > 0).sum()


@pytest.mark.parametrize(
    "encoder_id",
    ["", "hashed", "hashed-", "hashed-63", "hashed-65537", "hashed--64", "hashed-٦٤٠", "clip", "Hashed-64"],
)
def test_an_encoder_that_does_not_exist_is_refused_with_those_that_do(encoder_id: str) -> None:
    with pytest.raises(EncoderUnavailable, match=re.escape(f"no text encoder {encoder_id!r}; there are hashed-N")):
        build_encoder(encoder_id)


def test_the_id_of_an_encoder_is_what_it_is_built_from() -> None:
    encoder = build_encoder("hashed-640")
    assert (encoder.id, encoder.size) == ("hashed-640", 640)


def test_without_the_extra_a_sentence_model_is_refused_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(EncoderUnavailable, match=r"pip install 'ganvas\[text\]'"):
        SentenceEncoder("all-MiniLM-L6-v2")


class StandIn:
    """What of sentence_transformers.SentenceTransformer is used, as its documentation has it."""

    def __init__(self, model_name_or_path: str, *, device: str) -> None:
        if model_name_or_path == "missing":
            raise OSError("missing is not a local folder and is not a model identifier")
        assert device == "cpu"

    def get_embedding_dimension(self) -> int:
        return 3

    def encode(self, inputs: list[str], *, normalize_embeddings: bool) -> np.ndarray:
        assert normalize_embeddings
        if not inputs:
            return np.empty((0,))
        raw = np.array([[len(text), 1, 0] for text in inputs], dtype=np.float64)
        return raw / np.linalg.norm(raw, axis=1, keepdims=True)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("sentence_transformers")
    module.SentenceTransformer = StandIn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)


@pytest.mark.usefixtures("stand_in")
def test_a_sentence_model_gives_rows_of_length_one_and_zeros_for_no_words() -> None:
    encoder = SentenceEncoder("m")
    assert (encoder.id, encoder.size) == ("sentence:m", 3)
    features = encoder.encode(["cat", "", "!!!"])
    assert features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), [1, 0, 0], rtol=1e-6)
    assert encoder.encode([]).shape == (0, 3)
    np.testing.assert_array_equal(feature_weights(encoder, ["cat"]), [1, 1, 1])


@pytest.mark.usefixtures("stand_in")
def test_a_sentence_model_that_is_not_there_is_one_clear_error() -> None:
    with pytest.raises(EncoderUnavailable, match=r"'missing' could not be loaded .*name a model that is downloaded"):
        build_encoder("sentence:missing")


@pytest.fixture
def tiny_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """The folder of a transformer with first weights; only where the extra is installed."""
    pytest.importorskip("sentence_transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def make() -> str:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
        from transformers import BertConfig, BertModel, BertTokenizerFast

        known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "apple", "cat"]
        (tmp_path / "vocab.txt").write_text("\n".join(known))
        BertTokenizerFast(vocab_file=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
        shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        BertModel(BertConfig(vocab_size=len(known), **shape)).save_pretrained(tmp_path)
        folder = tmp_path / "sentences"
        SentenceTransformer(modules=[Transformer(str(tmp_path)), Pooling(16)]).save(str(folder))
        return str(folder)

    return make


def test_a_real_sentence_model_is_read_from_its_folder(tiny_model: Callable[[], str]) -> None:
    folder = tiny_model()
    encoder = build_encoder(f"sentence:{folder}")
    assert (encoder.id, encoder.size) == (f"sentence:{folder}", 16)
    features = encoder.encode(["red apple", "cat", ""])
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), [1, 1, 0], rtol=1e-5)
    np.testing.assert_allclose(encoder.encode(["cat"]), features[1:2], atol=1e-5)
