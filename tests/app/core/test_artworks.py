"""Artworks are kept with their files, found by what is said of them, and forgotten without harm to others."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.dialects import postgresql

from app.core import artworks, jobs
from app.core.artworks import Wanted
from app.core.db import Database
from app.core.errors import NotFound, Unavailable
from app.core.records import Artwork, ArtworkParent, ArtworkTag, new_id
from app.core.storage import Storage

START = datetime(2026, 1, 31, tzinfo=UTC)
Keep = Callable[..., str]


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/ganvas.sqlite3")
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "blobs")


@pytest.fixture
def keep(db: Database, storage: Storage) -> Keep:
    """Keep an artwork, an hour after the last one; returns its id."""
    hours = iter(range(1000))

    def made(
        *, tags: tuple[str, ...] = (), made_of: tuple[str, ...] = (), file: bytes = b"a picture", **columns: Any
    ) -> str:
        about = {
            "id": new_id("art"),
            "kind": "picture",
            "model": "emoji",
            "checkpoint": "a" * 64,
            "recipe": {"seed": 1},
            "recipe_hash": "b" * 64,
            "point_hash": "c" * 64,
            "file_sha256": storage.put(file),
            "media_type": "image/png",
            "width": 32,
            "height": 32,
            "bytes": len(file),
            "created_at": START + timedelta(hours=next(hours)),
        }
        with db.begin() as session:
            return artworks.keep(session, storage, Artwork(**about | columns), made_of, tags).id

    return made


def found(db: Database, **wanted: Any) -> list[str]:
    with db.read() as session:
        return artworks.ids_of(session, Wanted(**wanted))


def delete(db: Database, artwork: str) -> list[str]:
    with db.begin() as session:
        return artworks.delete(session, artwork)


def test_an_artwork_whose_file_is_gone_is_not_kept(db: Database, storage: Storage, keep: Keep) -> None:
    with pytest.raises(Unavailable, match="deleted in the meantime"):
        keep(file_sha256="d" * 64)
    assert found(db) == []


def test_they_are_found_by_each_and_by_all_that_is_said_of_them(db: Database, keep: Keep) -> None:
    one = keep(title="First", tags=("Moss", "night"), starred=True)
    two = keep(title="Second", tags=("moss",), checkpoint="e" * 64)
    three = keep(title="Third", model="fern")

    assert found(db) == [three, two, one]
    assert found(db, model="emoji") == [two, one]
    assert found(db, model="emoji@" + "e" * 12) == [two]
    assert found(db, model="emoji@%") == []
    assert found(db, tags=("moss",)) == [two, one]
    assert found(db, tags=("MOSS", "Night")) == [one]
    assert found(db, tags=("moss", "day")) == []
    assert (found(db, starred=True), found(db, starred=False)) == ([one], [three, two])
    assert found(db, since=START + timedelta(hours=1)) == [three, two]
    assert found(db, since=START + timedelta(hours=1), until=START + timedelta(hours=2)) == [two]
    assert found(db, ids=(three, one)) == [three, one]
    assert found(db, ids=(three, one), tags=("night",), starred=True, text="first") == [one]


def test_words_are_found_in_title_tags_prompts_and_labels_in_upper_or_lower_case(db: Database, keep: Keep) -> None:
    film = {"keyframes": [{"prompt": "a RED cat", "seed": 1}, {"label": "Fjord", "model": "oak"}]}
    one = keep(title="Größe des Waldes", tags=("évening",), recipe=film)

    for text in ("grÖßE", "red fjord", "CAT waldes", "ÉVENING", "e\u0301vening", "  des "):
        assert found(db, text=text) == [one], text
    for text in ("oak", "red dog", "catfjord", "keyframes"):
        assert found(db, text=text) == [], text


def test_wildcards_are_letters_like_any_other(db: Database, keep: Keep) -> None:
    one = keep(title="100% moss_green /x\\")
    keep(title="1000 mossy greens")

    for text in ("100%", "moss_green", "/x\\", "%", "_"):
        assert found(db, text=text) == [one], text


def test_the_search_is_the_same_in_postgresql() -> None:
    wanted = Wanted(model="emoji", tags=("a",), starred=True, since=START, until=START, text="100% _a")
    written = artworks.matching(wanted).compile(dialect=postgresql.dialect())
    assert str(written).count("LIKE '%%' || ") == 2
    assert str(written).count("ESCAPE '/'") == 3
    assert {"100/%", "/_a"} <= set(written.params.values())


def test_a_change_leaves_what_it_does_not_name(db: Database, keep: Keep) -> None:
    one = keep(title="First", tags=("moss",), recipe={"prompt": "a cat"})
    with db.begin() as session:
        artworks.change(session, one, starred=True)
    with db.begin() as session:
        artworks.change(session, one, title="Second")
    with db.read() as session:
        row = artworks.find(session, one)
        assert (row.title, row.starred, artworks.tags_of(session, [one])) == ("Second", True, {one: ["moss"]})
    assert found(db, text="second moss cat") == [one]
    assert found(db, text="first") == []
    with db.begin() as session:
        artworks.change(session, one, tags=("night", " Night", "a  b"))
    with db.read() as session:
        assert artworks.tags_of(session, [one])[one] == ["a b", "night"]
    assert found(db, text="second night cat") == [one]
    assert found(db, text="moss") == found(db, tags=("moss",)) == []


def test_what_is_not_there_is_not_found(db: Database, keep: Keep) -> None:
    with db.begin() as session:
        for act in (artworks.find, artworks.change, artworks.delete):
            with pytest.raises(NotFound) as caught:
                act(session, "art_nobody")
            assert caught.value.error_code == "artwork_not_found"


def test_a_file_is_given_up_with_the_last_artwork_that_names_it(db: Database, storage: Storage, keep: Keep) -> None:
    one, two, other = keep(tags=("moss",), made_of=("f" * 64,)), keep(), keep(file=b"another")
    blob = storage.put(b"a picture")

    assert delete(db, one) == []
    assert delete(db, two) == [blob]
    assert found(db) == [other]
    with db.read() as session:
        assert session.scalars(select(ArtworkTag)).all() == session.scalars(select(ArtworkParent)).all() == []
        assert artworks.is_kept(session, storage.put(b"another"))
        assert not artworks.is_kept(session, blob)


@pytest.mark.parametrize("place", ["result", "preview_sha256"])
def test_the_file_of_a_render_stays_with_its_job(db: Database, storage: Storage, keep: Keep, place: str) -> None:
    one, blob = keep(), storage.put(b"a picture")
    with db.begin() as session:
        jobs.submit(session, "render", {"kind": "loop"})
        job = jobs.submit(session, "render", {"kind": "loop"})
        setattr(job, place, {"file": blob} if place == "result" else blob)
    assert delete(db, one) == []


def test_descendants_are_found_however_far_they_are(db: Database, keep: Keep) -> None:
    points = [digit * 64 for digit in "123"]
    root = keep(point_hash=points[0])
    child = keep(point_hash=points[1], made_of=(points[0],))
    film = keep(point_hash=None, made_of=(points[1], points[0]))
    keep(point_hash=points[0])
    with db.read() as session:
        assert [row.id for row in artworks.descending(session, points[0], 10)] == [child, film]
        assert [row.id for row in artworks.descending(session, points[0], 1)] == [child]
        assert [row.id for row in artworks.descending(session, points[1], 10)] == [film]
        assert artworks.descending(session, points[2], 10) == []
        shown = artworks.showing(session, points)
    assert {point: row.id for point, row in shown.items()} == {points[0]: root, points[1]: child}


def test_a_selection_is_measured_and_read_in_its_order(db: Database, keep: Keep) -> None:
    one, two = keep(file=b"12345"), keep(file=b"123", tags=("moss",))
    with db.read() as session:
        assert artworks.measure(session, Wanted()) == (2, 8)
        assert artworks.measure(session, Wanted(tags=("moss",))) == (1, 3)
        assert artworks.measure(session, Wanted(tags=("fern",))) == (0, 0)
        assert [row.id for row in artworks.several(session, [two, "art_gone", one])] == [two, one]


def test_no_text_holds_what_postgresql_refuses(db: Database, keep: Keep) -> None:
    one = keep(title="a", recipe={"prompt": "c\0d"})
    with db.read() as session:
        assert artworks.find(session, one).text == "a\nc d"
    assert found(db, text="c\0d") == [one]
