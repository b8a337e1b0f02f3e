"""A key works until it is revoked, and only its fingerprint is kept."""

from pathlib import Path

import pytest

from app.core import keys
from app.core.db import Database
from app.core.errors import InvalidRequest, NotAuthenticated, NotFound


def test_a_key_works_until_it_is_revoked_and_is_not_kept(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path}/a.sqlite3")
    db.migrate()
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
    db.close()


def test_an_unknown_scope_is_refused_with_the_ones_there_are() -> None:
    with pytest.raises(InvalidRequest, match="generate, train, admin"):
        keys.check_scopes(["generate", "everything"])
