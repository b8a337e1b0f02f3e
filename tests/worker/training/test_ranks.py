"""Two processes under torchrun, each with half of every batch, learn what one process learns with all of it."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from worker.training.ranks import ALONE, Ranks
from worker.training.state import TrainingState
from worker.training.texts import Texts

PROGRAM = Path(__file__).with_name("together.py")
LAUNCH_SECONDS = 300  # a few, but for a machine with much else to do

Results = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("together")


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    """What each of two processes tells of every scenario in together.py."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--log-dir", os.devnull]
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint={folder}/torchrun", "--rdzv-conf=store_type=file"]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }
    command = [*torchrun, *meeting, str(PROGRAM), str(folder)]
    subprocess.run(command, env=environment, check=True, timeout=LAUNCH_SECONDS)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def together() -> ModuleType:
    spec = importlib.util.spec_from_file_location("together", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def weights(state: TrainingState) -> dict[str, torch.Tensor]:
    networks = {"g": state.generator, "d": state.discriminator, "ema": state.generator_ema}
    return {f"{n}.{name}": w.detach() for n, network in networks.items() for name, w in network.named_parameters()}


def test_two_halves_of_every_batch_teach_what_one_process_learns_from_the_whole(
    results: Results, folder: Path, together: ModuleType
) -> None:
    assert len(results) == 2
    start = weights(TrainingState.start(together.config()))
    alone = weights(together.trained(TrainingState.start(together.config(micro_batch=4)), ALONE))
    shared = weights(TrainingState.from_bytes((folder / "together.safetensors").read_bytes()))
    for name, weight in alone.items():
        learnt = (weight - start[name]).norm()
        assert learnt > 0
        assert (shared[name] - weight).norm() < 1e-3 * learnt, name  # rounding alone: 2e-5


def test_every_process_ends_with_the_same_networks_optimisers_and_chance_bit_for_bit(results: Results) -> None:
    assert results[0]["equals_one"]["own"] == results[1]["equals_one"]["own"]


def test_a_training_of_two_stopped_and_resumed_equals_the_uninterrupted_one_bit_for_bit(results: Results) -> None:
    for told in results:
        assert told["resumes"]["stopped_at"] == 0.024
        assert told["resumes"]["resumed"] == told["resumes"]["whole"]


def test_pictures_are_changed_by_chance_of_each_process_own_and_the_common_chance_is_left_as_it_is(
    results: Results,
) -> None:
    torch.manual_seed(5)
    common = torch.rand(3).tolist()
    first, second = (told["draws"] for told in results)
    assert first["common"] == second["common"] == common
    assert not set(first["own"]) & set(second["own"])
    assert not set(first["own"]) & set(common)


def test_all_stop_at_the_same_step_when_one_is_told_to(results: Results) -> None:
    assert [told["stops"]["kimg"] for told in results] == [0.016, 0.016]


def test_all_go_back_when_the_losses_diverge_and_all_end_when_that_was_in_vain(results: Results) -> None:
    for told in results:
        assert told["diverges"]["told"] == ["rolled_back"]
        assert "in vain" in told["diverges"]["error"]


def test_all_take_smaller_passes_when_one_runs_out_of_memory_and_no_picture_is_skipped(results: Results) -> None:
    for told in results:
        assert told["runs_out_of_memory"]["told"] == ["out_of_memory"]
        assert told["runs_out_of_memory"]["micro_batch"] == 2  # half of a share of 4
        assert told["runs_out_of_memory"]["kimg"] == 0.048
        assert told["runs_out_of_memory"]["images_drawn"] == 96  # a relativistic step shows G reals of its own


def test_nothing_is_open_to_other_machines(results: Results) -> None:
    for told in results:
        assert told["listens"]["addresses"] == ["127.0.0.1"]


def test_shares_of_a_batch_add_up_to_it() -> None:
    shares = [Ranks(rank, 3).share_of(9) for rank in range(3)]
    assert shares == [3, 3, 3]
    assert ALONE.share_of(9) == 9


def test_each_process_shows_the_texts_that_one_would_have_shown_with_its_rows(together: ModuleType) -> None:
    captions, labels = [f"caption {row}" for row in range(8)], [f"label {row}" for row in range(8)]
    features, said = np.eye(16, dtype=np.float16), captions + labels
    texts = Texts(features, np.ones(16, dtype=np.float32), np.arange(8), np.arange(8) + 8, said)
    config, cpu = together.config(label_share=0.5, caption_dropout=0.0), torch.device("cpu")
    rows = np.array([3, 1, 0, 2, 7, 5, 4, 6])

    def shown(rows: np.ndarray, ranks: Ranks) -> list[int]:
        torch.manual_seed(2)
        return texts.show(rows, config, cpu, ranks).features.argmax(dim=1).tolist()

    whole = shown(rows, ALONE)
    assert 0 < sum(text in range(8) for text in whole) < 8, "captions of some, labels of others"
    for rank in range(2):
        assert shown(rows[rank::2], Ranks(rank, 2)) == whole[rank::2]
