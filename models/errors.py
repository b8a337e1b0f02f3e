"""What can go wrong in the GANs.

ModelsError (a ValueError)
├── ConfigInvalid       a preset, resolution or setting that does not exist or fit
├── SeedsInvalid        seeds that are not uint32, or not a list of them
├── CheckpointInvalid   a file that is not one of our checkpoints, or is damaged
└── EncoderUnavailable  a text encoder that does not exist, or is not installed
"""


class ModelsError(ValueError):
    """Anything `models` refuses; the message says what came and what to do."""


class ConfigInvalid(ModelsError):
    """A preset, resolution or setting that does not exist or does not fit the others."""


class SeedsInvalid(ModelsError):
    """Seeds that are not whole numbers from 0 to 2^32 - 1, or too many of them."""


class CheckpointInvalid(ModelsError):
    """A file that is not a Ganvas checkpoint, or one that is damaged."""


class EncoderUnavailable(ModelsError):
    """A text encoder that does not exist, is not installed, or cannot be loaded."""
