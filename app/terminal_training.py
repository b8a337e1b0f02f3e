"""`ganvas train FOLDER`: the same jobs as over HTTP, followed from the terminal with a progress bar."""

import threading
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from app import supervisor
from app.core import datasets, jobs, names
from app.core.db import Database
from app.core.errors import InvalidRequest, NotFound, SettingsInvalid
from app.core.queue import Dispatcher
from app.core.records import Job, JobEvent
from app.core.settings import Settings
from app.core.storage import Storage
from models.config import TextConfig, TrainConfig
from models.errors import ConfigInvalid
from models.presets import preset

TOLD = ("swd", "swd_floor", "coverage")  # of what a snapshot measures
POLL_SECONDS = 0.3
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif"})
SIDECARS = frozenset({".txt", ".csv", ".json", ".jsonl"})


@dataclass(frozen=True)
class Wish:
    """What the command line asked for."""

    folder: Path
    name: str
    preset: str
    minutes: float | None
    kimg: float | None
    resolution: int | None
    seed: int


def train_folder(settings: Settings, wish: Wish) -> int:
    """Prepare the folder, train on it, and show both; the exit status: 0 when the training succeeded."""
    console = Console(stderr=True)
    with ExitStack() as stack:
        if settings.redis_url is None:
            stack.enter_context(_workers(settings, console))
        db = Database(settings.database)
        stack.callback(db.close)
        db.migrate()
        storage = Storage(settings.data / "blobs", settings.storage_url)
        dispatcher = Dispatcher(db, settings.redis)
        stack.callback(dispatcher.close)
        return _train(db, storage, dispatcher, wish, console)


def _train(db: Database, storage: Storage, dispatcher: Dispatcher, wish: Wish, console: Console) -> int:
    name = names.check_name(wish.name)
    _configure(wish, wish.resolution or 64)  # refuses what cannot be before the artwork is prepared
    with db.read() as session:
        names.require_free(session, name)
    source = _store_source(storage, wish.folder)
    with db.begin() as session:
        dataset, preparing = datasets.create(
            session, name=name, source_sha256=source, request={"resolution": wish.resolution}
        )
    if _follow(db, dispatcher, preparing, console).status != "succeeded":
        return 1
    with db.read() as session:
        dataset = datasets.require_ready(datasets.find(session, dataset.id))
    console.print(f"{dataset.readiness} Dataset {dataset.id}.")
    knows_texts = bool(dataset.captions or dataset.labels)
    config = _configure(wish, dataset.resolution or 0, text=TextConfig() if knows_texts else None)
    with db.begin() as session:
        request = {"dataset": dataset.id, "name": name, "config": config.model_dump(mode="json")}
        training = jobs.submit(session, "train", request)
    return 0 if _follow(db, dispatcher, training, console).status == "succeeded" else 1


def _configure(wish: Wish, resolution: int, text: TextConfig | None = None) -> TrainConfig:
    """The preset with the wished budget, or InvalidRequest saying what fits."""
    try:
        return preset(
            wish.preset,
            resolution,
            text=text,
            seed=wish.seed,
            max_minutes=wish.minutes,
            total_kimg=wish.kimg,
        )
    except ConfigInvalid as error:
        raise InvalidRequest(str(error), code="config_invalid", param="preset") from error


def _follow(db: Database, dispatcher: Dispatcher, job: Job, console: Console) -> Job:
    """Show a job until it ends; Ctrl-C cancels it and waits for the end."""
    dispatcher.dispatch(job)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[message]}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(job.kind, total=1.0, message="")
        after = 0
        while True:
            try:
                after, row = _show(db, job.id, after, progress, task)
                if row.status in jobs.ENDED:
                    progress.update(task, message=row.message)
                    return row
                dispatcher.reconcile()
                threading.Event().wait(POLL_SECONDS)
            except KeyboardInterrupt:
                with db.begin() as session:
                    jobs.cancel(session, job.id)


def _show(db: Database, job_id: str, after: int, progress: Progress, task: TaskID) -> tuple[int, Job]:
    with db.read() as session:
        row = jobs.find(session, job_id)
        events = jobs.events_after(session, job_id, after)
    for event in events:
        _tell(event, progress)
    progress.update(task, completed=row.progress, message=row.message)
    return (events[-1].id if events else after), row


def _tell(event: JobEvent, progress: Progress) -> None:
    if event.type == "snapshot":
        metrics = ", ".join(f"{name} {event.data['metrics'][name]:.3g}" for name in TOLD if event.data["metrics"])
        progress.console.print(f"{event.data['kimg']:.1f} kimg: checkpoint {event.data['checkpoint'][:12]} {metrics}")
    elif event.type in {"warning", "log"}:
        progress.console.print(str(event.data.get("message", "")))


def _store_source(storage: Storage, source: Path) -> str:
    """The zip itself, or a zip of a folder's pictures and their captions, sub-folders as labels."""
    if source.is_file():
        if not zipfile.is_zipfile(source):
            raise InvalidRequest(f"{source} is neither a folder nor a zip.", code="not_an_archive", param="folder")
        return storage.put(source)
    files = sorted(file for file in source.rglob("*") if file.is_file() and not file.is_symlink())
    wanted = [file for file in files if file.suffix.lower() in PICTURES | SIDECARS]
    if not any(file.suffix.lower() in PICTURES for file in wanted):
        raise NotFound(f"{source} holds no pictures ({', '.join(sorted(PICTURES))}).", code="dataset_empty")
    with storage.scratch() as place:
        with zipfile.ZipFile(place, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
            for file in wanted:
                archive.write(file, file.relative_to(source).as_posix())
        return storage.adopt(place)


@contextmanager
def _workers(settings: Settings, console: Console) -> Iterator[None]:
    """Redis and workers for the length of the command, unless a studio already runs on this data folder."""
    with ExitStack() as stack:
        try:
            studio = stack.enter_context(supervisor.running(settings))
        except SettingsInvalid as error:
            if error.param != "GANVAS_DATA" or not settings.redis_socket.exists():
                raise
            console.print("A studio runs on this data folder; its workers will train.")
            yield
            return
        thread = threading.Thread(target=studio.tend, name="supervisor")
        thread.start()
        try:
            yield
        finally:
            studio.stopping.set()
            thread.join()
