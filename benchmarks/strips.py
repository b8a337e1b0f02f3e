"""What the directions of the bundled model do: the job that finds them, and the sheet it leaves.

python benchmarks/strips.py --out docs/images/directions.png
"""

import argparse
import os
import tempfile
from pathlib import Path

import studio

from app.core import jobs
from app.core.db import Database
from app.core.settings import load_settings
from app.core.storage import Storage
from app.samples import MODEL
from worker import tasks


def main() -> None:
    """Find, and save the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=["sefa", "pca"], default="sefa")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--layers", type=int, nargs="*", help="of w, from 0; all when absent")
    parser.add_argument("--out", type=Path, default=Path("directions.png"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GANVAS_DATA"] = folder
        options.out.write_bytes(_sheet(options))
    print(f"Saved {options.out}: {options.count} directions of {MODEL.name} by {options.method}.")


def _sheet(options: argparse.Namespace) -> bytes:
    settings = load_settings()
    checkpoint = studio.publish(settings.data, "emoji", MODEL.read_bytes())
    db, storage = Database(settings.database), Storage(settings.data / "blobs")
    request = {"kind": "directions", "model": "emoji", "checkpoint": checkpoint, "method": options.method}
    with db.begin() as session:
        job_id = jobs.submit(session, "render", request | {"count": options.count, "layers": options.layers}).id
    tasks.render(job_id)
    with db.read() as session:
        job = jobs.find(session, job_id)
    db.close()
    if job.result is None:
        raise SystemExit(job.message)
    return storage.get(job.result["file"])


if __name__ == "__main__":
    main()
