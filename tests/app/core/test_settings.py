"""Settings come from GANVAS_ variables; a wrong one is named with what it held."""

from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.db import Database
from app.core.errors import SettingsInvalid
from app.core.queue import connect
from app.core.settings import SOCKET_PATH_BYTES, Settings, load_settings
from app.core.storage import Storage


def test_variables_are_read_and_empty_ones_count_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANVAS_PORT", "9001")
    monkeypatch.setenv("GANVAS_REDIS_URL", "")
    monkeypatch.setenv("GANVAS_MODEL_ALIASES", '{"gpt-image-1": "emoji"}')
    settings = load_settings()
    assert (settings.port, settings.redis_url, settings.model_aliases) == (9001, None, {"gpt-image-1": "emoji"})


@pytest.mark.parametrize(("name", "value"), [("GANVAS_PORT", "eighty"), ("GANVAS_LOG_LEVEL", "loud")])
def test_a_wrong_variable_is_named_with_what_it_held(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsInvalid, match=f"{name} is '{value}'"):
        load_settings()


def test_a_variable_that_is_not_json_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANVAS_MODEL_ALIASES", "{not json")
    with pytest.raises(SettingsInvalid, match="model_aliases"):
        load_settings()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("studio.example", False)],  # noqa: S104
)
def test_only_loopback_addresses_need_no_key(host: str, loopback: bool) -> None:
    assert Settings(host=host).is_loopback is loopback


def test_a_data_folder_with_signs_that_urls_use_is_itself_in_every_url(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "art #1? 100%")
    database = Database(settings.database)
    database.migrate()
    database.close()
    assert (settings.data / "ganvas.sqlite3").exists()
    connection = connect(settings.redis)
    assert connection.connection_pool.connection_kwargs["path"] == str(settings.redis_socket)
    connection.close()


@pytest.mark.parametrize(
    ("make", "variable"),
    [
        (lambda folder: connect("localhost:6379"), "GANVAS_REDIS_URL"),
        (lambda folder: Database("no url"), "GANVAS_DATABASE_URL"),
        (lambda folder: Storage(folder, "nowhere"), "GANVAS_STORAGE_URL"),
    ],
)
def test_what_is_no_url_is_refused_with_the_variable(
    tmp_path: Path, make: Callable[[Path], object], variable: str
) -> None:
    with pytest.raises(SettingsInvalid, match=variable):
        make(tmp_path)


def test_the_redis_socket_fits_the_kernel_also_in_a_deep_data_folder() -> None:
    shallow, deep = Settings(data=Path("/srv/a")), Settings(data=Path("/srv") / ("deep" * 40))
    assert shallow.redis_socket == Path("/srv/a/redis/redis.sock")
    assert len(bytes(deep.redis_socket)) < SOCKET_PATH_BYTES
    assert deep.redis_socket != Settings(data=Path("/srv") / ("deep" * 41)).redis_socket
