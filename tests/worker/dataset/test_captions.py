"""The five ways of writing captions down, and the ways of getting them wrong."""

import json

import pytest

from worker.dataset.captions import CAPTION_CHARACTERS, MAX_WARNINGS, Captions, TableUnreadable, clean, labels_by_folder


@pytest.fixture
def captions() -> Captions:
    return Captions(frozenset({"a.png", "b.png", "cats/c.png", "café.png"}))


def test_jsonl_gives_captions_and_labels(captions: Captions) -> None:
    captions.add_table(
        "metadata.jsonl",
        b'{"file_name": "a.png", "text": "an ape", "label": "animal"}\n\n{"file_name": "b.png", "label": 7}\n',
    )
    assert captions.captions == {"a.png": "an ape"}
    assert captions.labels == {"a.png": "animal", "b.png": "7"}
    assert captions.warnings == []


def test_csv_gives_captions_and_labels(captions: Captions) -> None:
    table = '\ufefffile_name,text,label\r\na.png,"one, two",x\r\ncats\\c.png,"a ""cat""",\r\n'
    captions.add_table("metadata.csv", table.encode())
    assert captions.captions == {"a.png": "one, two", "cats/c.png": 'a "cat"'}
    assert captions.labels == {"a.png": "x"}


def test_stylegans_json_gives_labels(captions: Captions) -> None:
    captions.add_table("dataset.json", json.dumps({"labels": [["a.png", 3], ["cats/c.png", 0]]}).encode())
    assert captions.labels == {"a.png": "3", "cats/c.png": "0"}
    captions.add_table("dataset.json", b'{"labels": null}')
    assert captions.warnings == []


def test_a_table_speaks_of_its_own_folder(captions: Captions) -> None:
    captions.add_table("cats/metadata.csv", b"file_name,text\nc.png,a cat\na.png,not here\n")
    assert captions.captions == {"cats/c.png": "a cat"}
    assert captions.warnings == ["cats/metadata.csv names 'a.png', which was not sent."]


def test_text_files_caption_the_pictures_of_their_name(captions: Captions) -> None:
    captions.add_text("a.txt", ["a.png"], "\ufeff  a  winding\nroad ".encode())
    assert captions.captions == {"a.png": "a winding road"}


def test_accents_match_however_they_are_written(captions: Captions) -> None:
    captions.add_table("metadata.csv", "file_name,text\ncafe\u0301.png,coffee\n".encode())
    assert captions.captions == {"café.png": "coffee"}


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["cats/1.png", "dogs/2.png"], {"cats/1.png": "cats", "dogs/2.png": "dogs"}),
        (["all/cats/1.png", "all/dogs/2.png"], {"all/cats/1.png": "cats", "all/dogs/2.png": "dogs"}),
        (["all/1.png", "all/2.png"], {}),
        (["1.png", "cats/2.png", "cats/deep/3.png"], {"cats/2.png": "cats", "cats/deep/3.png": "cats"}),
        (["1.png"], {}),
        ([], {}),
        (["../1.png", "cats/2.png"], {"cats/2.png": "cats"}),
    ],
)
def test_the_folders_that_tell_pictures_apart_are_labels(names: list[str], labels: dict[str, str]) -> None:
    assert labels_by_folder(names) == labels


def test_the_first_to_speak_wins_and_the_other_is_reported(captions: Captions) -> None:
    captions.add_table("metadata.csv", b"file_name,text\na.png,from the table\n")
    captions.add_text("a.txt", ["a.png"], b"from the text")
    assert captions.captions["a.png"] == "from the table"
    assert "kept the first" in captions.warnings[0]


def test_folders_give_way_to_a_tables_labels(captions: Captions) -> None:
    captions.add_table("metadata.csv", b"file_name,label\na.png,ape\n")
    captions.add_folders(["a.png", "cats/c.png"])
    assert captions.labels == {"a.png": "ape"}
    assert len(captions.warnings) == 1


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("metadata.csv", b"\xff\xfe\x00", "not UTF-8"),
        ("metadata.csv", b"name,caption\na.png,x\n", "lacks the column file_name"),
        ("metadata.csv", b"", "lacks the column file_name"),
        ("dataset.json", b"{", "not JSON"),
        ("dataset.json", b"[" * 100_000, "not JSON"),
        ("dataset.json", b'{"labels": [["a.png", [0, 1]]]}', "class number"),
        ("dataset.json", b'{"labels": 5}', "class number"),
        ("dataset.json", b'["a.png"]', "class number"),
    ],
)
def test_an_unreadable_table_says_why(captions: Captions, name: str, data: bytes, said: str) -> None:
    with pytest.raises(TableUnreadable, match=said):
        captions.add_table(name, data)


@pytest.mark.parametrize(
    "line",
    ["nonsense", "[1]", '{"text": "x"}', '{"file_name": 5}', '{"file_name": "a.png", "text": ["x"]}', "[" * 100_000],
)
def test_a_bad_line_costs_only_itself(captions: Captions, line: str) -> None:
    captions.add_table("metadata.jsonl", f'{line}\n{{"file_name": "b.png", "text": "bee"}}\n'.encode())
    assert captions.captions == {"b.png": "bee"}
    assert "line 1" in captions.warnings[0]


@pytest.mark.parametrize("bad", [b'b.png,"never closed', b"b.png," + b"x" * 200_000, b"b.png,nul\0\n"])
def test_a_csv_is_read_up_to_where_it_breaks(captions: Captions, bad: bytes) -> None:
    captions.add_table("metadata.csv", b"file_name,text\na.png,fine\n" + bad)
    assert captions.captions["a.png"] == "fine"


def test_columns_of_no_use_are_reported(captions: Captions) -> None:
    captions.add_table("metadata.csv", b"file_name,text,artist\na.png,x,me\n")
    assert captions.warnings == ["metadata.csv has columns we do not use: artist."]


def test_a_flood_of_remarks_is_cut_short(captions: Captions) -> None:
    rows = "".join(f"none{index}.png,x\n" for index in range(1_000))
    captions.add_table("metadata.csv", f"file_name,text\n{rows}".encode())
    assert len(captions.warnings) == MAX_WARNINGS + 1


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("  two\n\twords ", "two words"),
        ("half \ud800 pair", "half ? pair"),
        ("bell\a and\0nul", "bell and nul"),
        ("x" * 5_000, "x" * CAPTION_CHARACTERS),
        ("\u202e turned", "turned"),
    ],
)
def test_captions_are_cleaned(said: str, kept: str) -> None:
    assert clean(said, CAPTION_CHARACTERS) == kept
    assert kept.encode()
