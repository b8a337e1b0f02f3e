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
) -> None:
    """Make a key and show it, once."""
    from app.core import keys

    scopes = scope or ["generate"]
    with _database() as db, db.begin() as session:
        _row, key = keys.create(session, name, keys.check_scopes(scopes))
    typer.echo(key)


@keys_cli.command("list")
def keys_list() -> None:
    """Show every key's id, name and scopes, never the key."""
    from sqlalchemy import select

    from app.core.records import ApiKey

    with _database() as db, db.read() as session:
        for row in session.scalars(select(ApiKey).order_by(ApiKey.created_at)):
            state = f"revoked {row.revoked_at:%Y-%m-%d}" if row.revoked_at else "in force"
            typer.echo(f"{row.id}  {row.name}  {','.join(row.scopes)}  {state}")


@keys_cli.command("revoke")
def keys_revoke(key_id: Annotated[str, typer.Argument(help="The id that `ganvas keys list` shows.")]) -> None:
    """End a key at once."""
    from app.core import keys

    with _database() as db, db.begin() as session:
        keys.revoke(session, key_id)
    typer.echo(f"{key_id} is revoked.")


def _settings() -> "Settings":
    from app.core.logs import configure_logs
    from app.core.settings import load_settings

    settings = load_settings()
    configure_logs(settings.log_level)
    return settings


@contextmanager
def _database() -> Iterator["Database"]:
    from app.core.db import Database

    db = Database(_settings().database)
    db.migrate()
    try:
        yield db
    finally:
        db.close()


if __name__ == "__main__":
    main()
