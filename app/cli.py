"""The `ganvas` command; each subcommand imports what it needs when it runs, so that --help is quick."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.core.errors import GanvasError

if TYPE_CHECKING:
    from app.core.db import Database
    from app.core.records import ApiKey
    from app.core.settings import Settings

cli = typer.Typer(help="Ganvas: train GANs on your own artwork and draw from them.", no_args_is_help=True)
keys_cli = typer.Typer(help="API keys, needed by every listener that is not loopback.", no_args_is_help=True)
cli.add_typer(keys_cli, name="keys")


def main() -> None:
    """Entry of the console script: our errors end in one clear line and exit status 1."""
    try:
        cli()
    except GanvasError as error:
        sys.stderr.write(f"ganvas: {error.message}\n")
        sys.exit(1)


@cli.command()
def up() -> None:
    """Run the whole studio: Redis, workers and API, until Ctrl-C."""
    from app import studio, supervisor

    settings = _settings()
    listener = supervisor.listen(settings)
    with listener:
        key = studio.open_studio(settings)
        supervisor.up(settings, listener, announce=lambda: studio.announce(settings, listener.getsockname()[1], key))


@cli.command()
def api(fd: Annotated[int | None, typer.Option(help="An inherited listening socket.")] = None) -> None:
    """Run the HTTP API alone; Redis, database and storage come from the settings."""
    import gc

    gc.disable()  # a third of the start would go into looking for garbage among modules; serve() enables it
    from app import studio

    settings = _settings()
    key = studio.open_studio(settings)
    if key is not None:
        sys.stderr.write(f"First start: this key is shown once. {key}\n")
    studio.serve(settings, fd)


@cli.command()
def worker(queue: Annotated[str, typer.Argument(help="prepare or train")]) -> None:
    """Run one worker on one queue."""
    import os

    os.execv(sys.executable, [sys.executable, "-m", "worker", queue])  # noqa: S606 - our own interpreter


@cli.command()
def train(
    folder: Annotated[Path, typer.Argument(help="Folder (or zip) of pictures.", exists=True)],
    name: Annotated[str | None, typer.Option(help="Name of the model; the folder's by default.")] = None,
    preset: Annotated[str, typer.Option(help="tiny or classic.")] = "tiny",
    minutes: Annotated[float | None, typer.Option(help="Budget in minutes.")] = None,
    kimg: Annotated[float | None, typer.Option(help="Budget in thousands of images shown.")] = None,
    resolution: Annotated[int | None, typer.Option(help="Side in pixels: 32, 64 or 128.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the first weights.")] = 0,
) -> None:
    """Train on a folder of pictures, with a progress bar; Ctrl-C stops and keeps the last checkpoint."""
    from app.terminal_training import Wish, train_folder

    wish = Wish(folder, name or folder.stem, preset, minutes=minutes, kimg=kimg, resolution=resolution, seed=seed)
    raise typer.Exit(train_folder(_settings(), wish))


@cli.command()
def demo(
    minutes: Annotated[float, typer.Option(help="Minutes of training.")] = 1.0,
    out: Annotated[Path, typer.Option(help="Folder for the sheets.")] = Path("demo-output"),
) -> None:
    """Tell the whole story by itself: upload the sample artwork, train, draw, and save the sheets."""
    from app.demo import tell

    tell(_settings(), minutes=minutes, out=out)


@cli.command()
def osc(
    model: Annotated[str, typer.Argument(help="Model to play, by name or name@checkpoint.")],
    performance: Annotated[str, typer.Option(help="Name of the performance, for those who watch.")] = "osc",
    listen: Annotated[str, typer.Option(help="UDP address to hear OSC on.")] = "127.0.0.1:9000",
    url: Annotated[str, typer.Option(help="The studio; its key comes from GANVAS_KEY.")] = "http://127.0.0.1:8000",
    mapping: Annotated[Path | None, typer.Option(help="TOML file of what addresses mean; see docs/live.md.")] = None,
    rate: Annotated[bool, typer.Option("--rate", help="Show messages and frames a second.")] = False,
) -> None:
    """Play a performance by OSC, until Ctrl-C: /slider/NAME, /psi, /seed and whatever a mapping names."""
    import asyncio
    import os

    from app import osc as bridge
    from app.osc_mapping import read_mapping

    where = bridge.Bridge(
        mapping=read_mapping(mapping),
        listen=bridge.parse_listen(listen),
        studio=url,
        model=model,
        performance=performance,
        key=os.environ.get("GANVAS_KEY") or None,
        show_rate=rate,
    )
    with suppress(KeyboardInterrupt):
        asyncio.run(bridge.run(where))


@keys_cli.command("create")
def keys_create(
    name: Annotated[str, typer.Option(help="Whose key it is.")] = "unnamed",
    scope: Annotated[list[str] | None, typer.Option(help="generate, train or admin; may be repeated.")] = None,
    model: Annotated[str | None, typer.Option(help="The only model it draws from.")] = None,
    rate: Annotated[str | None, typer.Option(help="Most requests: 10/second, 60/minute, 1000/hour, 5000/day.")] = None,
    origin: Annotated[list[str] | None, typer.Option(help="Of pages that may use it; may be repeated.")] = None,
    days: Annotated[float | None, typer.Option(min=0, help="Days until it ends by itself; none is never.")] = None,
    publishable: Annotated[bool, typer.Option("--publishable", help="It may stand in a page, and only draws.")] = False,
) -> None:
    """Make a key and show it, once."""
    from datetime import timedelta

    from app.core import keys
    from app.core.records import utc_now

    with _database() as db, db.begin() as session:
        _row, key = keys.create(
            session,
            name,
            scope or ["generate"],
            model=model,
            rate=rate,
            origins=origin or [],
            expires_at=None if days is None else utc_now() + timedelta(days=days),
            publishable=publishable,
        )
    typer.echo(key)


@keys_cli.command("list")
def keys_list() -> None:
    """Show every key's id, beginning, name and what it may do, never the key."""
    from sqlalchemy import select

    from app.core.records import ApiKey

    with _database() as db, db.read() as session:
        for row in session.scalars(select(ApiKey).order_by(ApiKey.created_at)):
            typer.echo("  ".join([row.id, f"{row.hint}...", row.name, ",".join(row.scopes), *_told(row)]))


@keys_cli.command("revoke")
def keys_revoke(key_id: Annotated[str, typer.Argument(help="The id that `ganvas keys list` shows.")]) -> None:
    """End a key at once."""
    from app.core import keys

    with _database() as db, db.begin() as session:
        keys.revoke(session, key_id)
    typer.echo(f"{key_id} is revoked.")


@cli.command()
def audit(
    last: Annotated[int, typer.Option(min=1, help="How many entries, from the latest back.")] = 100,
) -> None:
    """Show who made or revoked a key, or deleted something, and when."""
    from app.core import audit as log

    with _database() as db, db.read() as session:
        for entry in log.latest(session, last):
            moment = f"{entry.created_at:%Y-%m-%d %H:%M:%S}Z"
            typer.echo("  ".join([moment, entry.actor, entry.address or "-", entry.action, entry.target]))


@cli.command()
def doctor(
    repair: Annotated[bool, typer.Option("--repair", help="Put right what can be put right without guessing.")] = False,
) -> None:
    """Look for what is wrong with the studio; a studio may run meanwhile. Exit status 1 while something is."""
    from app.core.doctor.examination import examine

    wrong = 0
    for finding in examine(_settings(), repair=repair):
        wrong += finding.state == "wrong"
        typer.echo(f"{finding.state:<9} {finding.about}: {finding.message}")
    raise typer.Exit(1 if wrong else 0)


@cli.command()
def backup(
    folder: Annotated[Path, typer.Argument(help="Where to; one with an earlier backup is brought up to date.")],
) -> None:
    """Copy the studio, all of one moment, while it runs. Exit status 1 where some of it was lost before."""
    from app.core.backup import backup as make

    made = make(_settings(), folder)
    typer.echo(f"{made.blobs:,} blobs of {made.bytes:,} bytes, {made.copied:,} of them new, and the database.")
    for sha256, what in made.lost.items():
        typer.echo(f"Missing or damaged in the studio: {what} ({sha256[:12]}).")
    raise typer.Exit(1 if made.lost else 0)


@cli.command()
def restore(folder: Annotated[Path, typer.Argument(help="What `ganvas backup` made.", exists=True)]) -> None:
    """Make the studio of a backup, in the data folder, which must be empty; all of it is verified first."""
    from app.core.backup import restore as make

    settings = _settings()
    made = make(settings, folder)
    typer.echo(f"{made.blobs:,} blobs of {made.bytes:,} bytes, and the database, in {settings.data.absolute()}.")
    for sha256, what in made.lost.items():
        typer.echo(f"It was lost before the backup was made: {what} ({sha256[:12]}).")


def _told(row: "ApiKey") -> list[str]:
    """What else there is to say of a key."""
    from app.core import keys

    told = [f"{what} {value}" for what, value in (("model", row.model), ("rate", row.rate)) if value]
    told += [f"for {origin}" for origin in row.origins]
    told += ["publishable"] if row.publishable else []
    moments = {"expires": row.expires_at, "used": row.last_used_at, "revoked": row.revoked_at}
    told += [f"{what} {moment:%Y-%m-%d %H:%M}" for what, moment in moments.items() if moment]
    return [*told, *(["in force"] if keys.is_in_force(row) else [])]


def _settings() -> "Settings":
    from app.core.logs import configure_logs
    from app.core.settings import load_settings

    settings = load_settings()
    configure_logs(settings.log_level)
    return settings


@contextmanager
def _database() -> Iterator["Database"]:
    from app.core import callers
    from app.core.db import Database

    callers.enter(callers.TERMINAL)
    db = Database(_settings().database)
    db.migrate()
    try:
        yield db
    finally:
        db.close()


if __name__ == "__main__":
    main()
