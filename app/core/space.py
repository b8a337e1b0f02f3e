"""Room on the disk: how much is free where the studio keeps things, and whether it is enough to begin anything new."""

import contextlib
import shutil
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from app.core.errors import StorageFull, Unavailable
from app.core.settings import MIB, Settings


def free_bytes(folder: Path) -> int:
    """Bytes that may still be written on the file system of this folder; Unavailable where it cannot be asked."""
    try:
        return shutil.disk_usage(folder).free
    except OSError as error:
        reason = f"A folder of the studio cannot be looked at: {error.strerror}."
        raise Unavailable(reason, code="storage_unavailable") from error


def places(settings: Settings) -> list[tuple[str, Path]]:
    """What fills up, and the folder it is in: the data folder, and blobs and database where they lie on other disks."""
    data = settings.data.absolute()
    found = [("data folder", data), ("folder of blobs", data / "blobs")]
    with contextlib.suppress(ArgumentError):  # told of where the database is opened
        url = make_url(settings.database)
        if url.get_backend_name() == "sqlite" and url.database:
            found.append(("database's folder", Path(url.database).absolute().parent))
    disks: dict[int, tuple[str, Path]] = {}
    for what, folder in found:
        with contextlib.suppress(FileNotFoundError):  # made at the first start
            disks.setdefault(folder.stat().st_dev, (what, folder))
    return list(disks.values())


def require_room(settings: Settings, wanted_bytes: int = 0) -> None:
    """StorageFull where less is free than the floor below which nothing new begins, or would be once a file of
    `wanted_bytes` is there. What runs already may use the floor to end well."""
    for what, folder in places(settings):
        free = free_bytes(folder)
        left = free - (0 if what.startswith("database") else wanted_bytes)
        if left < settings.free_space_floor_mib * MIB:
            message = f"The {what} has {free // MIB:,} MiB free"
            wanted = f" and this takes {wanted_bytes / MIB:,.0f}" if free > left and wanted_bytes >= MIB else ""
            floor = f"below {settings.free_space_floor_mib:,} MiB nothing new is begun."
            raise StorageFull(f"{message}{wanted}; {floor} Make space, or lower GANVAS_FREE_SPACE_FLOOR_MIB.")
