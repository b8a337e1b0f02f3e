"""The supervisor starts children, restarts what dies, drains them, and says in one line why it cannot start."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from app import embedded_redis, supervisor
from app.core.errors import SettingsInvalid
from app.core.queue import QUEUES, connect
from app.core.settings import Settings

CHILDREN = 1 + len(QUEUES)  # Redis, and a worker a queue; here without the API


def wait_until(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def command(script: str) -> list[str]:
    return [sys.executable, "-c", script]


def test_a_child_that_dies_is_started_again_later_and_later() -> None:
    child = supervisor.Child("short", command("raise SystemExit(3)"))
    starts: list[float] = []

    def tend() -> bool:
        child.tend()
        if child.process is not None and child.started not in starts:
            starts.append(child.started)
        return len(starts) == 3

    assert wait_until(tend)
    child.stop(time.monotonic() + 5)
    assert starts[2] - starts[1] > starts[1] - starts[0] >= supervisor.FIRST_BACKOFF_SECONDS


def test_a_child_that_ignores_sigterm_is_killed_at_the_deadline(tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    child = supervisor.Child("deaf", command(f"{deaf}; open({str(tmp_path / 'deaf')!r}, 'w').close(); time.sleep(600)"))
    child.start()
    assert child.process is not None
    assert wait_until((tmp_path / "deaf").exists)
    child.signal(signal.SIGTERM)
    child.stop(time.monotonic() + 0.5)
    assert child.process.returncode == -signal.SIGKILL


def test_redis_and_workers_run_while_the_studio_is_open_and_are_gone_after(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = Settings(data=tmp_path)
    monkeypatch.setenv("GANVAS_DATA", str(tmp_path))
    with supervisor.running(settings) as studio:
        connection = connect(settings.redis)
        assert connection.ping()
        assert connection.config_get("appendonly") == {"appendonly": "yes"}
        assert connection.config_get("port") == {"port": "0"}
        connection.close()
        assert settings.redis_socket.stat().st_mode & 0o077 == 0
        assert studio.redis is not None
        processes = [child.process for child in (studio.redis, *studio.children)]
        assert len(processes) == CHILDREN
        assert all(process is not None and process.poll() is None for process in processes)
        with pytest.raises(SettingsInvalid, match="already runs"), supervisor.only_one(settings):
            pass
    assert all(process is not None and process.poll() is not None for process in processes)


def test_a_redis_that_cannot_read_what_it_kept_starts_empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    monkeypatch.setattr(supervisor, "QUEUES", ())
    embedded_redis.command(settings)
    (tmp_path / "redis" / "appendonly.aof").write_bytes(b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\nnonsense\r\n" * 20)
    with supervisor.running(settings), connect(settings.redis) as connection:
        assert connection.dbsize() == 0
        assert connection.set("new", 1)
    assert (tmp_path / "redis-damaged" / "appendonly.aof").read_bytes().count(b"nonsense") == 20


def test_a_redis_killed_in_mid_sentence_starts_with_what_was_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = Settings(data=tmp_path)
    monkeypatch.setattr(supervisor, "QUEUES", ())
    with supervisor.running(settings), connect(settings.redis) as connection:
        connection.set("whole", 1)
        connection.set("torn", "x" * 100)
    log = tmp_path / "redis" / "appendonly.aof"
    log.write_bytes(log.read_bytes()[:-50])
    with supervisor.running(settings), connect(settings.redis) as connection:
        assert connection.keys() == [b"whole"]


def test_children_die_with_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    script = (
        "import time; from pathlib import Path; from app import supervisor; from app.core.settings import Settings\n"
        f"with supervisor.running(Settings(data=Path({str(tmp_path)!r}))): print('up', flush=True); time.sleep(600)"
    )
    environment = os.environ | {"GANVAS_DATA": str(tmp_path)}
    with subprocess.Popen(command(script), stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    gone, alive = psutil.wait_procs(children, timeout=15)
    assert (len(gone), alive) == (CHILDREN, [])


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with supervisor.listen(Settings(data=tmp_path, port=0)) as listener:
        taken = listener.getsockname()[1]
        with pytest.raises(SettingsInvalid, match=f"Port {taken} .* GANVAS_PORT"):
            supervisor.listen(Settings(data=tmp_path, port=taken))


def test_a_data_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    settings = Settings(data=tmp_path / "file" / "data")
    with pytest.raises(SettingsInvalid, match="GANVAS_DATA"), supervisor.only_one(settings):
        pass


def test_without_any_redis_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(embedded_redis.importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsInvalid, match="GANVAS_REDIS_URL"):
        embedded_redis.find_server()


def test_a_redis_server_on_the_path_is_used_where_the_wheel_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "valkey-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(embedded_redis.importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert embedded_redis.find_server() == program
