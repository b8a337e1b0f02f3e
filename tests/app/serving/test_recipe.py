import json
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from pydantic import ValidationError

from app.core.errors import InvalidRequest
from app.serving.point import Cross, Point, Variation, prompt_seed
from app.serving.recipe import (
    MAX_PICTURES,
    MAX_RECIPE_BYTES,
    Mix,
    Recipe,
    cross_json,
    parse_cross,
    parse_layers,
    parse_size,
    parse_variations,
    seeds_for,
)

MakeRecipe = Callable[..., Recipe]
LAST_SEED = 2**32 - 1


def test_the_canonical_form_names_every_field_sorted_and_without_spaces(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(5, mix=Mix(seed=7, layers=(1, 2)), prompt="猫", prompt_mode="hashed")

    assert recipe.canonical_json() == (
        '{"checkpoint":"' + "a" * 64 + '","label":null,"mix":{"layers":[1,2],"seed":7},"model":"emoji",'
        '"noise_mode":"const","prompt":"\\u732b","prompt_mode":"hashed","seed":5,"size":[32,32],'
        '"truncation_cutoff":null,"truncation_psi":0.7,"version":1}'
    )
    assert recipe.hash() == sha256(recipe.canonical_json().encode()).hexdigest()


def test_what_it_is_painted_on_is_part_of_a_recipe_as_soon_as_it_is_known(make_recipe: MakeRecipe) -> None:
    unknown, known = make_recipe(5), make_recipe(5, device="cpu", dtype="bfloat16")

    assert '"device":"cpu","dtype":"bfloat16","label":null' in known.canonical_json()
    assert len({unknown.hash(), known.hash(), make_recipe(5, device="cpu", dtype="float32").hash()}) == 3
    assert known.url() == unknown.url()  # a URL is asked of whatever machine it names


def test_recipes_of_the_first_version_keep_their_hash_and_their_seed(make_recipe: MakeRecipe) -> None:
    plain = make_recipe(5)
    hashed = make_recipe(5, prompt="a red cat", prompt_mode="hashed", mix=Mix(seed=7, layers=(1, 2)))

    assert plain.hash() == "be399e854bd9d410d469f87f95f78b0807a27175a4cd6f7300024b527e74998d"
    assert hashed.hash() == "f0661b8ba753716ffd876f1a6d88d0c903640aae5cd7d72726ded51611cc3e9e"
    assert hashed.latent_seed == 4288049142


def test_a_recipe_written_in_another_way_has_the_same_hash(make_recipe: MakeRecipe) -> None:
    once = make_recipe(5, truncation_psi=1)
    shuffled = json.dumps(dict(reversed(json.loads(once.canonical_json()).items())), indent=4)

    assert Recipe.model_validate_json(shuffled).hash() == once.hash()
    assert make_recipe(truncation_psi=-0.0).hash() == make_recipe(truncation_psi=0.0).hash()


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 6},
        {"truncation_psi": 0.71},
        {"truncation_cutoff": 2},
        {"size": (32, 33)},
        {"model": "other"},
        {"mix": Mix(seed=5, layers=(0,))},
        {"prompt": "cat", "prompt_mode": "hashed"},
        {"prompt": "cat"},
        {"label": "cat"},
        {"checkpoint": "b" * 64},
    ],
)
def test_every_field_changes_the_hash(make_recipe: MakeRecipe, other: dict[str, object]) -> None:
    assert make_recipe(**{"seed": 5} | other).hash() != make_recipe(5).hash()


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": 2},
        {"seed": -1},
        {"seed": 2**32},
        {"truncation_psi": 2.1},
        {"truncation_psi": float("nan")},
        {"size": (0, 32)},
        {"size": (32, 4096)},
        {"checkpoint": "A" * 64},
        {"prompt": "cat", "prompt_mode": "drawn"},
        {"prompt": "cat", "prompt_mode": "hashed", "label": "animal"},
        {"colour": "red"},
        {"mix": {"seed": 1, "layers": []}},
        {"noise_mode": "loud"},
        {"model": ""},
        {"prompt_mode": "hashed"},
    ],
)
def test_what_is_no_recipe_is_refused(make_recipe: MakeRecipe, wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        make_recipe(**wrong)


def test_the_url_pins_the_checkpoint_and_says_all_that_was_asked(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(
        5,
        model="my cats/2",
        prompt="a cat & a hat = ?",
        prompt_mode="hashed",
        truncation_cutoff=3,
        mix=Mix(seed=9, layers=(0, 2)),
        noise_mode="none",
    )
    url = urlsplit(recipe.url("webp", 80))

    assert [unquote(part) for part in url.path.split("/")] == ["", "v1", "models", f"my cats/2@{'a' * 12}", "image"]
    assert {name: value for name, (value,) in parse_qs(url.query).items()} == {
        "seed": "5",
        "psi": "0.7",
        "cutoff": "3",
        "noise_mode": "none",
        "prompt": "a cat & a hat = ?",
        "mix_seed": "9",
        "mix_layers": "0,2",
        "size": "32x32",
        "format": "webp",
        "compression": "80",
    }


def test_a_plain_recipe_has_a_short_url(make_recipe: MakeRecipe) -> None:
    expected = f"/v1/models/emoji@{'a' * 12}/image?seed=5&psi=0.7&size=32x32&format=png"

    assert make_recipe(5).url() == expected


def test_the_parameters_line_is_a_prompt_and_then_keys_with_values(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(5, prompt="a cat,\nasleep", prompt_mode="hashed", truncation_psi=1.0, model='x: "y"')
    prompt, _, values = recipe.parameters_line().rpartition("\n")

    assert prompt == "a cat,\nasleep"
    assert values == (
        'Steps: 1, Sampler: GAN, Seed: 5, Size: 32x32, Model hash: aaaaaaaaaa, Model: "x: \\"y\\"", Truncation psi: 1'
    )
    assert "\n" not in make_recipe(5).parameters_line()
    assert make_recipe(5, label="big, cat").parameters_line().endswith(', Truncation psi: 0.7, Label: "big, cat"')


def test_a_label_is_in_the_url(make_recipe: MakeRecipe) -> None:
    query = parse_qs(urlsplit(make_recipe(5, prompt="red", label="big & cat").url()).query)

    assert (query["prompt"], query["label"]) == (["red"], ["big & cat"])


def test_the_same_prompt_gives_the_same_seed_for_ever() -> None:
    assert prompt_seed("a red cat") == int(sha256(b"a red cat").hexdigest()[:8], 16)
    assert prompt_seed("  A Red\n CAT ") == prompt_seed("a red cat")
    assert prompt_seed("a red cat") != prompt_seed("a red hat")


def test_a_hashed_prompt_moves_the_seed_and_wraps_round(make_recipe: MakeRecipe) -> None:
    with_prompt = make_recipe(LAST_SEED, prompt="a red cat", prompt_mode="hashed")

    assert make_recipe(5).latent_seed == 5
    assert with_prompt.latent_seed == prompt_seed("a red cat") - 1


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, ""),
        ({"prompt": "a red cat"}, "a red cat"),
        ({"label": "cat"}, "cat"),
        ({"prompt": "red", "label": "cat"}, "red cat"),
        ({"prompt": "a red cat", "prompt_mode": "hashed"}, ""),
    ],
)
def test_a_text_is_prompt_and_label_unless_the_prompt_is_hashed(
    make_recipe: MakeRecipe, fields: dict[str, str], text: str
) -> None:
    assert make_recipe(5, **fields).text == text


def test_a_prompt_that_is_drawn_leaves_the_seed_alone(make_recipe: MakeRecipe) -> None:
    assert make_recipe(5, prompt="a red cat", label="cat").latent_seed == 5


def test_item_i_has_seed_plus_i() -> None:
    assert seeds_for(5, None, 3) == [5, 6, 7]
    assert seeds_for(LAST_SEED, None, 2) == [LAST_SEED, 0]


def test_a_missing_seed_is_random_and_so_is_minus_one() -> None:
    chosen = [seeds_for(seed, None, 1)[0] for seed in (None, -1) for _ in range(20)]

    assert len(set(chosen)) > 30
    assert all(0 <= seed <= LAST_SEED for seed in chosen)


def test_listed_seeds_are_taken_as_listed() -> None:
    assert seeds_for(None, "0,1,4-6", 1) == [0, 1, 4, 5, 6]
    assert seeds_for(9, [3, 1], 2) == [3, 1]
    assert len(set(seeds_for(None, [-1, -1, -1], 3))) == 3


@pytest.mark.parametrize(
    ("seed", "seeds", "n", "param"),
    [
        (0, None, 0, "n"),
        (0, None, MAX_PICTURES + 1, "n"),
        (-2, None, 1, "seed"),
        (2**32, None, 1, "seed"),
        (None, "", 1, "seeds"),
        (None, "4-2", 1, "seeds"),
        (None, "0-99", 1, "seeds"),
        (None, [], 1, "seeds"),
        (None, [1, 2], 3, "n"),
        (None, [2**32], 1, "seeds"),
        (None, "cat", 1, "seeds"),
    ],
)
def test_impossible_seeds_are_refused_by_name(
    seed: int | None, seeds: str | list[int] | None, n: int, param: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        seeds_for(seed, seeds, n)

    assert refused.value.param == param


def test_a_size_is_the_models_own_unless_one_is_given() -> None:
    assert parse_size(None, (64, 64)) == parse_size("auto", (64, 64)) == (64, 64)
    assert parse_size("1024x512", (64, 64)) == (1024, 512)


@pytest.mark.parametrize("text", ["", "64", "64x", "x64", "0x64", "64x2049", "-1x64", "6４x64", "64X64", "1e3x64"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="WxH"):
        parse_size(text, (64, 64))


def test_layers_are_read_as_ranges() -> None:
    assert parse_layers("0,4-6") == (0, 4, 5, 6)
    with pytest.raises(InvalidRequest, match="list of layers"):
        parse_layers("all")


def test_steps_are_read_as_a_url_writes_them() -> None:
    steps = (Variation(seed=7, strength=1e-07), Variation(seed=LAST_SEED, strength=1.0))
    assert parse_variations("7:1e-07,4294967295:1.0") == steps
    for text in ("", "7", "7:", ":0.5", "7:0.5:1", "7:2", "7:nan", "-1:0.5", "7:0.5,", ",".join(["7:0.5"] * 17)):
        with pytest.raises(InvalidRequest) as refused:
            parse_variations(text)
        assert refused.value.param == "variations"


def test_a_crossing_is_read_as_a_url_writes_it() -> None:
    inner = Cross(first=Point(seed=1, prompt="a & b", prompt_mode="hashed"), second=Point(seed=2), amount=0.25)
    cross = Cross(
        first=Point(seed=3, cross=inner, variations=(Variation(seed=4, strength=0.5),)),
        second=Point(seed=5),
        amount=1.0,
        layers=(2, 3),
    )
    assert parse_cross(cross_json(cross)) == cross
    assert "null" not in cross_json(cross)
    for text in ("", "{}", "[", "[" * 5_000, '{"first":1}', cross_json(cross).replace('"amount":1.0', '"amount":1.5')):
        with pytest.raises(InvalidRequest) as refused:
            parse_cross(text)
        assert (refused.value.param, len(refused.value.message) < 300) == ("cross", True)


def test_a_recipe_is_no_longer_than_files_can_carry(make_recipe: MakeRecipe) -> None:
    def crossed(prompts: int) -> Cross:
        first = Point(seed=0, prompt="\u732b" * 2000, prompt_mode="hashed")
        second = Point(seed=0, cross=crossed(prompts - 1)) if prompts > 1 else first
        return Cross(first=first, second=second, amount=0.5)

    assert len(make_recipe(cross=crossed(4)).canonical_json()) < MAX_RECIPE_BYTES
    with pytest.raises(ValidationError, match="files carry at most 65,000"):
        make_recipe(cross=crossed(5))


def test_recipes_and_files_need_neither_torch_nor_a_web_framework() -> None:
    program = "import sys, app.serving.artwork, app.serving.encode; print({'torch', 'fastapi'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"
