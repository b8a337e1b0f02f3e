"""Schedules: functions of progress, from 0 at the start of the budget to 1 at its end."""

from math import cos, pi

from models.config import TrainConfig


def budget_progress(config: TrainConfig, kimg: float, minutes: float) -> float:
    """The part of the budget that is spent, 0 to 1: of kimg or of minutes, whichever is further."""
    spent = [
        used / budget
        for used, budget in ((kimg, config.total_kimg), (minutes, config.max_minutes))
        if budget is not None
    ]
    return min(1.0, max(spent))


def cosine(progress: float, start: float, end: float) -> float:
    """From start to end along half a cosine: slow, fast, slow. Loshchilov and Hutter, arXiv:1608.03983, eq. 5."""
    return end + (start - end) * (1 + cos(pi * progress)) / 2


def learning_rate(config: TrainConfig, progress: float) -> float:
    """Adam's step size at this progress."""
    return cosine(progress, config.learning_rate, config.final_learning_rate)


def adam_beta2(config: TrainConfig, progress: float) -> float:
    """Adam's decay of the mean squared gradient at this progress."""
    end = config.final_adam_beta2
    return config.adam_beta2 if end is None else cosine(progress, config.adam_beta2, end)


def penalty_gamma(config: TrainConfig, progress: float) -> float:
    """Weight of the gradient penalty at this progress."""
    end = config.final_penalty_gamma
    return config.penalty_gamma if end is None else cosine(progress, config.penalty_gamma, end)
