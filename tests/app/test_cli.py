"""The command line: quick help, keys, and one clear line with exit status 1 for what cannot work."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest


def ganvas(*arguments: str, data: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GANVAS_")}
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        env=clean | {"GANVAS_DATA": str(data)} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def assert_one_clear_line(done: subprocess.CompletedProcess[str], part: str) -> None:
    assert done.returncode == 1
    assert part in done.stderr
    assert done.stderr.startswith("ganvas: ")
    assert done.stderr.count("\n") == 1


def test_help_needs_none_of_the_large_libraries(tmp_path: Path) -> None:
    large = "{'torch', 'fastapi', 'sqlalchemy', 'numpy', 'pydantic', 'structlog'}"
    script = f"import app.cli, sys; print(sorted({large} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert "train" in ganvas("--help", data=tmp_path).stdout


def test_a_key_is_shown_once_listed_without_itself_and_revoked(tmp_path: Path) -> None:
    key = ganvas("keys", "create", "--name", "sketch", data=tmp_path).stdout.strip()
    assert key.startswith("gnv_")
    listed = ganvas("keys", "list", data=tmp_path).stdout
    assert "sketch" in listed
    assert "in force" in listed
    assert key not in listed
    assert ganvas("keys", "revoke", listed.split()[0], data=tmp_path).returncode == 0
    assert "revoked" in ganvas("keys", "list", data=tmp_path).stdout


def test_a_key_is_listed_with_what_it_may_do_and_noted_in_the_audit_log(tmp_path: Path) -> None:
    wish = ["--rate", "5/minute", "--origin", "https://a.example", "--days", "7", "--scope", "train"]
    assert ganvas("keys", "create", "--name", "sketch", *wish, data=tmp_path).returncode == 0
    listed = ganvas("keys", "list", data=tmp_path).stdout
    assert all(part in listed for part in ("gnv_", "train", "rate 5/minute", "for https://a.example", "expires 20"))
    noted = ganvas("audit", data=tmp_path).stdout
    assert "terminal  -  key.created  " + listed.split()[0] in noted


def test_a_publishable_key_without_a_model_is_one_clear_line(tmp_path: Path) -> None:
    done = ganvas("keys", "create", "--publishable", data=tmp_path)
    assert_one_clear_line(done, "Name the model")


def test_a_socket_that_others_can_reach_is_not_served_without_keys(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:  # noqa: S104
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", "api", "--fd", str(listener.fileno())],
            env=os.environ | {"GANVAS_DATA": str(tmp_path), "GANVAS_IMPORT_SAMPLES": "0"},
            pass_fds=[listener.fileno()],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert_one_clear_line(done, "Set GANVAS_HOST to 0.0.0.0")


def test_a_studio_is_backed_up_restored_and_examined(tmp_path: Path) -> None:
    data, folder, again = tmp_path / "data", tmp_path / "backup", tmp_path / "again"
    assert ganvas("keys", "create", data=data).returncode == 0  # any command makes the database
    assert "0 blobs of 0 bytes" in ganvas("backup", str(folder), data=data).stdout
    assert ganvas("restore", str(folder), data=again).returncode == 0
    told = ganvas("doctor", data=again, GANVAS_FREE_SPACE_FLOOR_MIB=str(1 << 40))
    assert (told.returncode, told.stdout.count("wrong  ")) == (1, 1), told.stdout
    assert "wrong     space: The data folder has" in told.stdout


def test_other_addresses_than_loopback_are_refused_without_a_key(tmp_path: Path) -> None:
    done = ganvas("up", data=tmp_path, GANVAS_HOST="0.0.0.0", GANVAS_PORT="0", GANVAS_IMPORT_SAMPLES="0")  # noqa: S104
    assert_one_clear_line(done, "ganvas keys create")


@pytest.mark.parametrize("command", ["up", "api"])
def test_a_data_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path, command: str) -> None:
    (tmp_path / "file").write_text("in the way")
    assert_one_clear_line(ganvas(command, data=tmp_path / "file" / "data", GANVAS_PORT="0"), "GANVAS_DATA")


def test_a_setting_that_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    assert_one_clear_line(ganvas("up", data=tmp_path, GANVAS_PORT="eighty"), "GANVAS_PORT is 'eighty'")


def test_a_redis_that_does_not_answer_is_one_clear_line(tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/nobody.sock"
    done = ganvas("up", data=tmp_path, GANVAS_REDIS_URL=url, GANVAS_PORT="0", GANVAS_IMPORT_SAMPLES="0")
    assert_one_clear_line(done, "Redis does not answer")


def test_a_gpu_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    assert_one_clear_line(ganvas("up", data=tmp_path, GANVAS_DEVICE="cuda", GANVAS_PORT="0"), "GANVAS_DEVICE")


def test_an_unknown_preset_is_refused_before_the_artwork_is_prepared(tmp_path: Path) -> None:
    (tmp_path / "art").mkdir()
    done = ganvas("train", str(tmp_path / "art"), "--preset", "huge", data=tmp_path / "data")
    assert_one_clear_line(done, "classic, few-shot, fine-tune, quality, tiny")


def test_training_on_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_one_clear_line(ganvas("train", str(tmp_path / "empty"), data=tmp_path / "data"), "holds no pictures")
