"""Run by torchrun in test_ranks.py: what several processes do together, and what came of it on each.

torchrun ... together.py FOLDER
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import distributed

from app.core.errors import TrainingDiverged
from models.config import NetworkConfig, TrainConfig
from models.presets import preset
from worker.training import loop
from worker.training.ranks import Ranks
from worker.training.state import TrainingState


def config(**settings: Any) -> TrainConfig:
    """The tiny preset without batch norm, which sees each process's share alone; nothing drawn picture by picture."""
    network = preset("tiny", 32).network.model_dump()
    widths = {"generator_widths": (16, 8, 8, 4), "discriminator_widths": (16, 8, 8), "generator_norm": "none"}
    chosen = {"batch_size": 8, "total_kimg": 0.048, "max_minutes": None, "seed": 1, "augment": ()}
    whole = preset("tiny", 32).model_dump() | chosen | {"precision": "float32", "ema_halflife_kimg": 0.01} | settings
    return TrainConfig.model_validate(whole | {"network": NetworkConfig(**(network | widths))})


def pictures() -> np.ndarray:
    """Forty pictures of noise, uint8 [40, 32, 32, 3]."""
    return np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)


def trained(
    state: TrainingState, ranks: Ranks, *, stop_after: int | None = None, told: list[str] | None = None
) -> TrainingState:
    """The state after training, which the first process alone is told of."""
    saved: list[bytes] = []
    questions = iter(range(1_000_000))
    loop.train(
        state.config,
        pictures(),
        on_tick=lambda tick: None,
        on_snapshot=lambda snapshot: saved.append(snapshot.state()),
        on_concern=lambda concern: told.append(concern.kind) if told is not None else None,
        should_stop=lambda: stop_after is not None and next(questions) >= stop_after,
        state=state,
        device="cpu",
        ranks=ranks,
    )
    assert bool(saved) == ranks.first, "the first process alone takes snapshots"
    return TrainingState.from_bytes(ranks.broadcast(saved[-1] if saved else b""))


def digest(state: TrainingState) -> str:
    """All that was learnt and all chance, in a word; the minutes differ."""
    state.minutes = 0.0
    return hashlib.sha256(state.to_bytes()).hexdigest()


def equals_one(ranks: Ranks, folder: Path) -> dict[str, Any]:
    state = TrainingState.start(config(micro_batch=2))
    after = trained(state, ranks)
    if ranks.first:
        (folder / "together.safetensors").write_bytes(after.to_bytes())
    state.generator_ema.w_avg.zero_()  # the first one's snapshot sets it, and no step reads it
    return {"own": digest(state)}


def resumes(ranks: Ranks, _folder: Path) -> dict[str, Any]:
    drawing = config(augment=("color", "translation", "cutout"), augment_target=0.1, augment_kimg=0.1)
    whole = trained(TrainingState.start(drawing), ranks)
    half = trained(TrainingState.start(drawing), ranks, stop_after=3)
    return {"stopped_at": half.kimg, "whole": digest(whole), "resumed": digest(trained(half, ranks))}


def draws(ranks: Ranks, _folder: Path) -> dict[str, Any]:
    torch.manual_seed(5)
    with ranks.own_chance(torch.device("cpu")):
        own = torch.rand(3).tolist()
    return {"own": own, "common": torch.rand(3).tolist()}


def stops(ranks: Ranks, _folder: Path) -> dict[str, Any]:
    return {"kimg": trained(TrainingState.start(config()), ranks, stop_after=None if ranks.first else 2).kimg}


def diverges(ranks: Ranks, _folder: Path) -> dict[str, Any]:
    state = TrainingState.start(config())
    next(state.discriminator.parameters()).data.fill_(float("inf"))
    told: list[str] = []
    try:
        trained(state, ranks, told=told)
    except TrainingDiverged as error:
        return {"told": told, "error": error.message}
    return {"told": told}


def runs_out_of_memory(ranks: Ranks, _folder: Path) -> dict[str, Any]:
    step, calls = loop.train_step, iter(range(1_000_000))

    def failing(*arguments: Any) -> Any:
        if not ranks.first and next(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return step(*arguments)

    loop.train_step = failing  # type: ignore[assignment]
    told: list[str] = []
    state = trained(TrainingState.start(config()), ranks, told=told)
    loop.train_step = step
    return {"told": told, "micro_batch": state.micro_batch, "kimg": state.kimg, "images_drawn": state.images_drawn}


def listens(_ranks: Ranks, _folder: Path) -> dict[str, Any]:
    """Where this process and torchrun can be reached."""
    both = (psutil.Process(), psutil.Process().parent())
    open_ = [port for process in both if process for port in process.net_connections() if port.status == "LISTEN"]
    return {"addresses": sorted({port.laddr.ip for port in open_})}


SCENARIOS: tuple[Callable[[Ranks, Path], dict[str, Any]], ...] = (
    equals_one,
    resumes,
    draws,
    stops,
    diverges,
    runs_out_of_memory,
    listens,
)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    ranks = Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    distributed.init_process_group("gloo", (folder / "ranks").as_uri(), rank=ranks.rank, world_size=ranks.count)
    results = {scenario.__name__: scenario(ranks, folder) for scenario in SCENARIOS}
    (folder / f"{ranks.rank}.json").write_text(json.dumps(results))
    distributed.destroy_process_group()
