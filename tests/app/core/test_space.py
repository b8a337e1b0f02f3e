"""New work needs room: below the floor it is refused with the figures, wherever the studio's things lie."""

from pathlib import Path

import pytest

from app.core import space
from app.core.errors import StorageFull, Unavailable
from app.core.settings import MIB, Settings

NEVER_FREE_MIB = 1 << 40


def test_with_room_nothing_is_refused_and_below_the_floor_the_figures_are_told(tmp_path: Path) -> None:
    space.require_room(Settings(data=tmp_path, free_space_floor_mib=0))
    free = space.free_bytes(tmp_path) // MIB
    with pytest.raises(StorageFull, match=rf"has [\d,]+ MiB free; below {NEVER_FREE_MIB:,} MiB nothing new") as caught:
        space.require_room(Settings(data=tmp_path, free_space_floor_mib=NEVER_FREE_MIB))
    told = int(caught.value.message.split("has ")[1].split(" MiB")[0].replace(",", ""))
    assert abs(told - free) < 1024


def test_what_is_about_to_be_written_counts(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, free_space_floor_mib=1)
    space.require_room(settings, MIB)
    with pytest.raises(StorageFull, match="and this takes"):
        space.require_room(settings, space.free_bytes(tmp_path))


def test_a_database_on_another_disk_is_looked_at_too(tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm")  # noqa: S108 - nothing is made there
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    settings = Settings(data=tmp_path, database_url=f"sqlite:///{elsewhere}/ganvas.sqlite3")
    assert space.places(settings) == [("data folder", tmp_path), ("database's folder", elsewhere)]
    assert [what for what, _ in space.places(Settings(data=tmp_path))] == ["data folder"]


def test_a_folder_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be looked at"):
        space.free_bytes(tmp_path / "gone")
