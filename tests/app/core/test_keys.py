"""A key works until it is revoked, and only its fingerprint is kept."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from app.core import keys
from app.core.db import Database
from app.core.errors import InvalidRequest, NotAuthenticated, NotFound
from app.core.records import ApiKey, utc_now


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/a.sqlite3")
    made.migrate()
    yield made
    made.close()


def test_a_key_works_until_it_is_revoked_and_is_not_kept(db: Database, tmp_path: Path) -> None:
    with db.begin() as session:
        row, key = keys.create(session, "sketch", ["generate"])
    with db.read() as session:
        assert keys.check(session, key).id == row.id
        assert keys.count(session) == 1
        with pytest.raises(NotAuthenticated):
            keys.check(session, key + "0")
    assert key.encode() not in (tmp_path / "a.sqlite3").read_bytes() + (tmp_path / "a.sqlite3-wal").read_bytes()
    with db.begin() as session:
        keys.revoke(session, row.id)
        with pytest.raises(NotFound):
            keys.revoke(session, "key_0")
    with db.read() as session:
        assert keys.count(session) == 0
        with pytest.raises(NotAuthenticated, match="revoked"):
            keys.check(session, key)


def test_a_key_tells_by_itself_whether_it_was_copied_whole(db: Database) -> None:
    with db.begin() as session:
        _, key = keys.create(session, "sketch", ["generate"])
    assert len(key) == len("gnv_") + 40 + 8
    assert keys.well_formed(key)
    changed = key[:10] + ("0" if key[10] != "0" else "1") + key[11:]
    for garbled in (changed, key[:-1], f"{key} ", key.upper(), key.removeprefix("gnv_"), "gnv_", "gnv_pub_", ""):
        assert not keys.well_formed(garbled)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("https://Sketch.Example", "https://sketch.example"),
        ("https://sketch.example/", "https://sketch.example"),
        ("https://sketch.example:443", "https://sketch.example"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
    ],
)
def test_an_origin_is_kept_as_browsers_send_it(sent: str, kept: str) -> None:
    assert keys.check_origin(sent) == kept


@pytest.mark.parametrize(
    "sent", ["", "null", "*", "sketch.example", "ftp://a.example", "https://", "https://a b", "https://a.example/x"]
)
def test_what_is_no_origin_is_refused(sent: str) -> None:
    with pytest.raises(InvalidRequest, match="no origin"):
        keys.check_origin(sent)


def test_keys_that_are_over_count_no_more_and_name_no_pages(db: Database) -> None:
    with db.begin() as session:
        row, key = keys.create(session, "sketch", ["generate"], origins=["https://a.example"])
        keys.create(session, "other", ["generate"], origins=["https://b.example"])
    with db.begin() as session:
        assert (keys.count(session), len(keys.origins(session))) == (2, 2)
        session.get_one(ApiKey, row.id).expires_at = utc_now() - timedelta(seconds=1)
    with db.read() as session:
        assert (keys.count(session), keys.origins(session)) == (1, {"https://b.example"})
        with pytest.raises(NotAuthenticated, match="expired"):
            keys.check(session, key)


def test_a_use_is_noted_once_a_minute(db: Database) -> None:
    with db.begin() as session:
        row, _ = keys.create(session, "sketch", ["generate"])
        session.flush()
        keys.note_use(session, row.id)
        session.refresh(row)
        first = row.last_used_at
        assert first is not None
        keys.note_use(session, row.id)
        session.refresh(row)
        assert row.last_used_at == first
        row.last_used_at = first - timedelta(minutes=2)
        session.flush()
        keys.note_use(session, row.id)
        session.refresh(row)
        assert row.last_used_at >= first


def test_an_unknown_scope_is_refused_with_the_ones_there_are() -> None:
    with pytest.raises(InvalidRequest, match="generate, train, admin"):
        keys.check_scopes(["generate", "everything"])
