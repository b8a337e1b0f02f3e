"""The audit log says who did what, in the transaction that did it."""

import contextvars
from pathlib import Path

import pytest

from app.core import audit, callers
from app.core.callers import Caller
from app.core.db import Database


def test_a_note_names_its_caller_and_stays_only_with_what_it_is_about(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path}/a.sqlite3")
    db.migrate()

    def delete(caller: Caller, target: str) -> None:
        callers.enter(caller)
        with db.begin() as session:
            audit.note(session, "model.deleted", target)
            if target == "kept":
                raise RuntimeError

    contextvars.copy_context().run(delete, Caller(key_id="key_1", address="203.0.113.7"), "a" * 300)
    contextvars.copy_context().run(delete, callers.TERMINAL, "faces")
    with pytest.raises(RuntimeError):
        contextvars.copy_context().run(delete, callers.TERMINAL, "kept")
    with db.read() as session:
        noted = [(entry.actor, entry.address, entry.target) for entry in audit.latest(session, 10)]
        assert len(audit.latest(session, 1)) == 1
    assert noted == [("key_1", "203.0.113.7", "a" * 200), ("terminal", None, "faces")]
    assert callers.current() is callers.STUDIO
    db.close()
