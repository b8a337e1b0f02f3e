"""G_ema: the running average of G that snapshots, checkpoints and pictures are made from."""

import torch

from models.config import TrainConfig
from models.networks.generator import Generator


def ema_decay(config: TrainConfig, images_seen: int) -> float:
    """How much of G_ema a step keeps: half of it after ema_halflife_kimg, or after ema_ramp of the images seen if that
    is less, so that the first minutes are not an average over noise. 0 (no half-life): G_ema is G."""
    halflife = min(config.ema_halflife_kimg * 1000, config.ema_ramp * images_seen)  # images
    return 0.5 ** (config.batch_size / halflife) if halflife > 0 else 0.0


@torch.no_grad()
def update_ema(generator_ema: Generator, generator: Generator, decay: float) -> None:
    """Move G_ema towards G, batch norm's running means and variances included; w_avg is G_ema's own."""
    live = generator.state_dict()
    for name, average in generator_ema.state_dict().items():
        if name == "w_avg":
            continue
        if average.is_floating_point():
            average.lerp_(live[name], 1 - decay)
        else:
            average.copy_(live[name])
