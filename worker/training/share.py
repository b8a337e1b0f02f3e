"""What a training leaves of the machine to those who ask for pictures."""

import os
import sys

import torch


def step_threads(wanted: int) -> int:
    """Threads of a training step: so many or, where 0 are wanted, one for each core that this process may use."""
    if wanted:
        return wanted
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def keep_to_share(device: torch.device, share: float) -> None:
    """Let this process take no more than a part of a GPU's memory, 0 to 1.

    Beyond it torch says that memory ran out, and the training takes smaller passes, as on a smaller GPU.
    """
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(share, device)
