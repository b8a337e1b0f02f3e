"""LitServe: worker processes that batch, and one that speaks HTTP.

python benchmarks/peers/litserve_server.py CHECKPOINT PORT [--batch N --window SECONDS --threads N --workers N]
"""

import argparse
from pathlib import Path
from typing import Any

import litserve
import numpy as np
from fastapi import Response
from numpy.typing import NDArray
from pictures import Pictures

Picture = tuple[int, NDArray[np.uint8]]  # a seed and its pixels


class PictureAPI(litserve.LitAPI):  # type: ignore[misc]
    """POST /predict {"seed": 1}."""

    def __init__(self, checkpoint: Path, threads: int, **batching: Any) -> None:
        super().__init__(**batching)
        self.checkpoint = checkpoint
        self.threads = threads

    def setup(self, device: str) -> None:
        """In the worker process; the loader chooses the device."""
        self.pictures = Pictures(self.checkpoint, self.threads)

    def decode_request(self, request: dict[str, int]) -> int:
        """The seed."""
        return request["seed"]

    def batch(self, inputs: list[int]) -> list[int]:
        """As they are: LitServe would stack them."""
        return inputs

    def predict(self, x: int | list[int]) -> Picture | list[Picture]:
        """One pass for one seed, or for as many as LitServe has gathered."""
        if isinstance(x, int):
            return x, self.pictures.paint([x])[0]
        return list(zip(x, self.pictures.paint(x), strict=True))

    def unbatch(self, output: list[Picture]) -> list[Picture]:
        """As they are."""
        return output

    def encode_response(self, output: Picture) -> Response:
        """The PNG."""
        return Response(self.pictures.file(*output), media_type="image/png")


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--window", type=float, default=0.0, help="seconds that a batch waits for more")
    parser.add_argument("--threads", type=int, default=0, help="of a forward pass; 0 is torch's own choice")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    batching = {"max_batch_size": arguments.batch, "batch_timeout": arguments.window}
    server = litserve.LitServer(
        PictureAPI(arguments.checkpoint, arguments.threads, **batching),
        accelerator="cpu",
        workers_per_device=arguments.workers,
        fast_queue=arguments.threads == 1,  # quicker then; with spinning threads beside it, much slower
    )
    server.run(host="127.0.0.1", port=arguments.port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main()
