"""What keeps a training alive: it goes back when numbers break, and takes smaller passes when memory runs out."""

import gc
import traceback

import torch

from app.core.errors import TrainingDiverged
from worker.training.report import Concern
from worker.training.state import TrainingState

SLOWER = 0.5  # what the learning rate becomes of itself after going back
MEMORY_RAN_OUT = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")  # as torch says it otherwise
SMALLEST_PASS = 2  # images; the networks' normalisation compares the pictures of a pass with each other


class Guard:
    """Remembers the last state that was known to be good, as bytes: the networks and optimisers twice over."""

    def __init__(self, state: TrainingState) -> None:
        self._good = state.to_bytes()
        self._failed_at_good = False

    def keep(self, good: bytes) -> None:
        """A state that is good: its losses and weights are numbers, and it has learnt since the last one."""
        self._good = good
        self._failed_at_good = False

    def go_back(self, error: TrainingDiverged, broken: TrainingState) -> tuple[TrainingState, Concern]:
        """The last good state, to be learnt from at half the rate; the same error again when that has just failed."""
        if self._failed_at_good:
            raise TrainingDiverged(
                f"{error.message} It had just been taken back, and the learning rate halved, in vain."
            ) from error
        state = TrainingState.from_bytes(self._good)
        state.rate_scale *= SLOWER
        state.minutes = broken.minutes  # the time is spent, whatever came of it
        state.micro_batch = broken.micro_batch  # and there is no more memory than there was
        state.to(broken.device, torch.channels_last)
        self._good = state.to_bytes()
        self._failed_at_good = True
        message = f"{error.message} Went back to {state.kimg:.1f} kimg, and on at half the learning rate."
        return state, Concern("rolled_back", message, broken.kimg)


def ran_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of torch says that memory ran out, on a GPU or a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in MEMORY_RAN_OUT)


def take_smaller_passes(state: TrainingState, error: RuntimeError) -> Concern:
    """Halve the images of a pass; their gradients add up to the same batch. The error again when it cannot be less."""
    if state.micro_batch // 2 < SMALLEST_PASS:
        raise error
    was, state.micro_batch = state.micro_batch, state.micro_batch // 2
    traceback.clear_frames(error.__traceback__)  # which still hold what the failed pass had made
    gc.collect()
    if state.device.type == "cuda":
        torch.cuda.empty_cache()
    message = (
        f"Memory ran out with {was} images a pass; going on with {state.micro_batch}, which add up to batches of "
        f"{state.config.batch_size} as before, only slower."
    )
    return Concern("out_of_memory", message, state.kimg)
