"""The container files name only what exists, publish only what must be, and run without root."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.cli import cli
from app.core.queue import QUEUES
from app.core.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def dockerfile() -> str:
    return (ROOT / "docker" / "Dockerfile").read_text()


@pytest.fixture
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "docker-compose.yml").read_text())
    return loaded


def is_ours(service: dict[str, Any]) -> bool:
    return str(service["image"]) == "ganvas"


def test_every_path_the_build_copies_exists_and_is_in_its_context(dockerfile: str) -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    sources = [name for line in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.M) for name in line.split()]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source in allowed


def test_the_image_runs_as_an_ordinary_user_and_checks_its_health(dockerfile: str) -> None:
    final = dockerfile.rpartition("\nFROM ")[2]
    assert re.search(r"^USER ganvas$", final, re.M)
    assert "HEALTHCHECK" in final
    assert "/livez" in final


def test_every_setting_in_the_container_files_is_one(dockerfile: str, compose: dict[str, Any]) -> None:
    named = set(re.findall(r"GANVAS_(\w+)=", dockerfile))
    for service in compose["services"].values():
        if is_ours(service):
            named |= {name.removeprefix("GANVAS_") for name in service.get("environment", {})}
    assert named
    assert {name.lower() for name in named} <= set(Settings.model_fields)


def test_redis_keeps_an_append_only_file_and_has_no_published_port(compose: dict[str, Any]) -> None:
    redis = compose["services"]["redis"]
    assert redis["command"][1:3] == ["--appendonly", "yes"]
    assert "ports" not in redis


def test_what_is_published_is_published_to_this_machine_only(compose: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:8000:8000"], "grafana": ["127.0.0.1:3000:3000"]}


def test_every_queue_has_its_worker_and_every_command_exists(compose: dict[str, Any]) -> None:
    commands = [service["command"] for service in compose["services"].values() if is_ours(service)]
    known = {command.callback.__name__ for command in cli.registered_commands if command.callback}
    assert {command[0] for command in commands} <= known
    assert {command[1] for command in commands if command[0] == "worker"} == set(QUEUES)


def test_workers_yield_the_processor_to_the_api(compose: dict[str, Any]) -> None:
    ours = {name: service for name, service in compose["services"].items() if is_ours(service)}
    shares = {name: service.get("cpu_shares", 1024) for name, service in ours.items()}
    workers = {name for name, service in ours.items() if service["command"][0] == "worker"}
    assert {"trainer", "preparer", "renderer", "projector"} <= workers
    assert len({shares[name] for name in workers}) == 1
    assert shares["trainer"] < shares["api"] / 4


def test_the_root_file_system_is_read_only_with_a_place_for_temporary_files(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert service["read_only"] is True
    assert compose["services"]["trainer"]["tmpfs"] == ["/tmp"]  # noqa: S108
