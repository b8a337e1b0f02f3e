"""What the first of several processes tells the others before they train together: the dataset, and where to start."""

import json

from app.core.errors import InvalidRequest
from app.core.records import Dataset
from worker.training.ranks import Ranks
from worker.training.state import TrainingState

TOLD = ("array_sha256", "manifest_sha256", "count")  # of the dataset's record: enough to find its pictures and texts


def give_orders(ranks: Ranks, dataset: Dataset, state: TrainingState) -> None:
    """Tell the other processes; nothing where there are none. InvalidRequest where the batch cannot be shared out."""
    if ranks.count == 1:
        return
    batch = state.config.batch_size
    if batch % ranks.count:
        raise InvalidRequest(
            f"batch_size {batch} cannot be shared out to {ranks.count} processes. Make it a multiple of {ranks.count}.",
            code="config_does_not_fit",
            param="config",
        )
    ranks.broadcast(json.dumps({name: getattr(dataset, name) for name in TOLD}).encode())
    ranks.broadcast(state.to_bytes())


def take_orders(ranks: Ranks) -> tuple[Dataset, TrainingState]:
    """What the first process tells: the dataset, as far as it was told, and a state of this process's own."""
    dataset = Dataset(**json.loads(ranks.broadcast(b"")))
    return dataset, TrainingState.from_bytes(ranks.broadcast(b""))
