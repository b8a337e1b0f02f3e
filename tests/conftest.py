"""Shared by all: a real Redis, the application over real HTTP, and a tiny published model."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import structlog
import torch
import uvicorn
from redis.exceptions import RedisError

from app import embedded_redis
from app.core import catalogue
from app.core.db import Database
from app.core.queue import connect
from app.core.settings import Settings
from app.core.storage import Storage
from app.studio import server_config
from models.checkpoint import CheckpointMeta, save_checkpoint
from models.config import NetworkConfig
from models.presets import preset
from models.registry import build_generator

START_SECONDS = 30


def pytest_configure() -> None:
    """Tracebacks without local variables, which take a server many seconds to show."""
    shown = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure([structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, shown])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes run the tests, one of them runs all that share the one application, in their order; the
    others go file by file."""
    for item in items:
        shared = "app" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("app" if shared else item.nodeid.partition("::")[0]))


@dataclass(frozen=True)
class RunningApp:
    """An application that answers on `url`, and what it stands on."""

    url: str
    settings: Settings
    db: Database
    storage: Storage

    def client(self, **headers: str) -> httpx.Client:
        """A client for it; close it."""
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)

    def publish(
        self,
        name: str,
        *,
        seed: int = 0,
        kimg: float = 1.0,
        width: int = 8,
        job_id: str | None = None,
        sheet: bytes | None = None,
    ) -> str:
        """Publish an untrained generator under this name, and return its sha256."""
        return publish_tiny(self.db, self.storage, name, seed=seed, kimg=kimg, width=width, job_id=job_id, sheet=sheet)


def publish_tiny(
    db: Database,
    storage: Storage,
    name: str = "tiny",
    *,
    seed: int = 0,
    kimg: float = 1.0,
    width: int = 8,
    job_id: str | None = None,
    sheet: bytes | None = None,
    contrast: float = 1.0,
) -> str:
    """Publish an untrained generator of 32 px, and return its sha256. contrast: first weights paint all but grey."""
    network, data = tiny_checkpoint(seed, kimg, width, contrast)
    sha256 = storage.put(data)
    model = {
        "name": name,
        "architecture": network.architecture,
        "resolution": network.resolution,
        "z_dim": network.z_dim,
        "w_dim": network.w_dim,
        "num_ws": network.num_ws,
        "job_id": job_id,
    }
    sheet_sha256 = None if sheet is None else storage.put(sheet)
    with db.begin() as session:
        catalogue.publish(
            session, model, sha256=sha256, kimg=kimg, bytes_=len(data), metrics={"swd": 12.5}, sheet_sha256=sheet_sha256
        )
    return sha256


def tiny_checkpoint(seed: int, kimg: float, width: int, contrast: float = 1.0) -> tuple[NetworkConfig, bytes]:
    """An untrained generator of 32 px."""
    network = NetworkConfig(
        resolution=32,
        z_dim=16,
        w_dim=16,
        mapping_layers=1,
        generator_widths=(16, width, 8, 4),
        discriminator_widths=(16, 8, 8),
        generator_norm="none",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator = build_generator(network)
    with torch.no_grad():
        for weight in generator.synthesis.parameters():
            weight.mul_(contrast)
    config = preset("tiny", 32).model_copy(update={"network": network})
    return network, save_checkpoint(None, generator, CheckpointMeta(config=config, kimg=kimg, minutes=0.1))


@contextmanager
def running_app(settings: Settings) -> Iterator[RunningApp]:
    """The application under uvicorn in a thread, on a free port of loopback, whatever the settings' host says."""
    config = server_config(settings)
    config.host, config.port, config.lifespan = "127.0.0.1", 0, "on"
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + START_SECONDS
    while not server.started:
        assert thread.is_alive(), "the application did not start"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    db = Database(settings.database)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield RunningApp(f"http://127.0.0.1:{port}", settings, db, Storage(settings.data / "blobs"))
    finally:
        db.close()
        server.should_exit = True
        thread.join()


@contextmanager
def running_redis(settings: Settings) -> Iterator[None]:
    """The embedded Redis of these settings."""
    with subprocess.Popen(embedded_redis.command(settings)) as process, connect(settings.redis) as connection:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                connection.ping()
                break
            except RedisError:
                assert time.monotonic() < deadline
            time.sleep(0.02)
        yield
        process.terminate()


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """One application for all tests, with one model, `tiny`."""
    data: Path = tmp_path_factory.mktemp("studio")
    settings = Settings(
        data=data,
        threads=1,
        max_batch=8,
        max_upload_mib=4,
        default_model="tiny",
        picture_cache_mib=0,
        webhook_hosts=["localhost"],
    )
    with running_redis(settings), running_app(settings) as running:
        running.publish("tiny")
        yield running


@pytest.fixture(scope="session")
def client(app: RunningApp) -> Iterator[httpx.Client]:
    """A client of the one application."""
    with app.client() as made:
        yield made


@pytest.fixture(scope="session")
def start_app() -> Callable[[Settings], AbstractContextManager[RunningApp]]:
    """For tests that need an application with settings of their own."""
    return running_app


@pytest.fixture(scope="session", name="publish_tiny")
def publish_tiny_fixture() -> Callable[..., str]:
    """For tests that need a model without an application."""
    return publish_tiny
