"""BentoML with adaptive batching.

python benchmarks/peers/bentoml_service.py CHECKPOINT PORT [--threads N --workers N]
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType
from pictures import LARGEST_BATCH, Pictures
from pydantic import PlainSerializer

# A batched endpoint answers each caller with the list of its own; here that is one file, sent as it is.
Files = Annotated[list[bytes], PlainSerializer(lambda files: files[0], return_type=bytes), ContentType("image/png")]


@bentoml.service(workers=int(os.environ.get("WORKERS", "1")), logging={"access": {"enabled": False}})
class PictureService:
    """POST /image {"seeds": [1]}."""

    def __init__(self) -> None:
        self.pictures = Pictures(Path(os.environ["CHECKPOINT"]), int(os.environ["THREADS"]))

    @bentoml.api(batchable=True, max_batch_size=LARGEST_BATCH)
    def image(self, seeds: list[int]) -> Files:
        """Of as many callers as BentoML has gathered."""
        return self.pictures.files(seeds)


def main() -> None:
    """Become BentoML's own server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--threads", type=int, default=0, help="of a forward pass; 0 is torch's own choice")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    own = {"CHECKPOINT": str(arguments.checkpoint), "THREADS": str(arguments.threads)}
    own |= {"WORKERS": str(arguments.workers), "BENTOML_DO_NOT_TRACK": "True"}
    here = Path(__file__).resolve()
    command = [sys.executable, "-m", "bentoml", "serve", f"{here.stem}:PictureService"]
    command += ["--working-dir", str(here.parent), "--host", "127.0.0.1", "--port", str(arguments.port)]
    os.execve(sys.executable, command, os.environ | own)  # noqa: S606 - our own interpreter


if __name__ == "__main__":
    main()
