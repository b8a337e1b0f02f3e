"""Adaptive augmentation: only as many pictures are changed as it takes to keep D from knowing the reals by heart.
Karras et al., arXiv:2006.06676, section 3."""

from torch import Tensor

from models.config import TrainConfig

STRONGEST = 0.8  # share of the pictures changed; with more, the changes begin to appear in G's pictures (section 2.2)
JUDGE_PAIRS = {"relativistic", "wasserstein"}  # losses that only compare logits, so that 0 means nothing to D


def overfitting_signal(real_logits: Tensor, fake_logits: Tensor, loss: str) -> Tensor:
    """r_t, from -1 to 1, []: mean sign of D's logits for the reals it trains on; 1 is D sure of every one. Eq. 1.

    Under a loss that compares real with painted it is the sign of the difference, pair by pair.
    """
    margin = real_logits - fake_logits if loss in JUDGE_PAIRS else real_logits
    return margin.detach().sign().mean()


def adjust(probability: float, signal: float, config: TrainConfig, images: int) -> float:
    """The next augmentation probability, after that many images over which the signal was averaged.

    It rises while the signal is above config.augment_target and falls while it is below, from 0 to 1 in augment_kimg,
    within 0 and STRONGEST. Without a target it stays.
    """
    if config.augment_target is None:
        return probability
    direction = (signal > config.augment_target) - (signal < config.augment_target)
    step = images / (config.augment_kimg * 1000)
    return min(STRONGEST, max(0.0, probability + direction * step))
