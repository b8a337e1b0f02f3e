"""The one configuration object: request body, job payload and checkpoint header."""

from math import log2
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Resolution = Literal[32, 64, 128]
Norm = Literal["batch", "none"]
Width = Annotated[int, Field(ge=4, le=1024)]


class NetworkConfig(BaseModel):
    """The shape of G and D: all that is needed to build them, and to check a checkpoint against them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: Literal["dcgan"] = Field("dcgan", description="Family of networks.")
    resolution: Resolution = Field(description="Side of the pictures, pixels.")
    channels: int = Field(3, ge=1, le=4, description="Colour channels of the pictures.")
    z_dim: int = Field(ge=1, le=1024, description="Length of the latent z.")
    w_dim: int = Field(ge=1, le=1024, description="Length of the intermediate latent w.")
    mapping_layers: int = Field(
        ge=0, le=8, description="Layers from z to w; 0: w is z, once, and nothing is modulated."
    )
    generator_widths: tuple[Width, ...] = Field(
        description="Feature maps of G at 4, 8, 16 ... pixels. Listed to the full resolution: a 3x3 convolution paints "
        "the picture. Listed to half of it: the last upsampling paints it, as in DCGAN."
    )
    discriminator_widths: tuple[Width, ...] = Field(
        description="Feature maps of D at 4, 8, 16 ... pixels, to half of the resolution."
    )
    upsampling: Literal["transposed", "resize"] = Field(
        "transposed", description="In G: 4x4 transposed convolutions, or nearest resizing and 3x3 convolutions."
    )
    generator_norm: Norm = Field("batch", description="Normalisation in G.")
    discriminator_norm: Norm = Field("none", description="Normalisation in D.")

    @property
    def doublings(self) -> int:
        """How often 4x4 pixels are doubled to reach the resolution."""
        return int(log2(self.resolution // 4))

    @property
    def num_ws(self) -> int:
        """How many copies of w a picture takes: one a modulated stage, or one where nothing is modulated."""
        return len(self.generator_widths) if self.mapping_layers else 1

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        half, full = self.doublings, self.doublings + 1
        if len(self.generator_widths) not in (half, full):
            raise ValueError(
                f"generator_widths has {len(self.generator_widths)} entries; {self.resolution} px takes {half}/{full}"
            )
        if len(self.discriminator_widths) != half:
            raise ValueError(
                f"discriminator_widths has {len(self.discriminator_widths)} entries; {self.resolution} px takes {half}"
            )
        if self.mapping_layers == 0 and self.w_dim != self.z_dim:
            raise ValueError(f"With mapping_layers 0, w is z: w_dim {self.w_dim} must equal z_dim {self.z_dim}")
        return self


class TrainConfig(BaseModel):
    """How a GAN is trained. The budget ends at total_kimg or max_minutes, whichever comes first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str = Field(max_length=40, description="The preset these settings came from.")
    network: NetworkConfig = Field(description="The shape of G and D.")

    total_kimg: float | None = Field(None, gt=0, le=1e6, description="Budget: thousands of real images shown.")
    max_minutes: float | None = Field(None, gt=0, le=1e5, description="Budget: minutes of training.")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Seed of the first weights and of all chance in training.")

    loss: Literal["bce", "relativistic"] = Field(description="Adversarial loss.")
    batch_size: int = Field(ge=2, le=512, description="Real images per step.")
    learning_rate: float = Field(gt=0, le=1, description="Adam's step size at the start, of G and of D.")
    final_learning_rate: float = Field(gt=0, le=1, description="Adam's step size at the end; a cosine leads there.")
    adam_beta1: float = Field(ge=0, lt=1, description="Adam's decay of the mean gradient.")
    adam_beta2: float = Field(ge=0, lt=1, description="Adam's decay of the mean squared gradient.")

    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Of the networks' arithmetic in training; auto: bfloat16 where the processor has it."
    )

    penalty_gamma: float = Field(0.0, ge=0, le=1e4, description="Weight of the R1 and R2 gradient penalties; 0: none.")
    penalty_interval: int = Field(
        1, ge=1, le=64, description="Steps between penalties, which then weigh as many times."
    )

    augment: tuple[Literal["translation", "cutout"], ...] = Field(
        (), description="What D sees of real and painted pictures alike: shifted, or with a square cut out."
    )
    translation_fraction: float = Field(0.125, gt=0, le=0.5, description="Largest shift, as a part of the side.")
    cutout_fraction: float = Field(0.45, gt=0, lt=1, description="Side of the cut square, as a part of the side.")
    augment_fill: float = Field(1.0, ge=-1, le=1, description="Background revealed by a shift: -1 black, 1 white.")
    mirror: bool = Field(True, description="Show half of the pictures mirrored, left to right.")

    ema_halflife_kimg: float = Field(0.0, ge=0, le=1e5, description="Half-life of G_ema's memory; 0: G as it is.")
    ema_ramp: float = Field(0.05, gt=0, le=1, description="Half-life is at most this part of the images seen.")

    first_snapshot_minutes: float = Field(0.4, gt=0, le=60, description="Minutes to the first snapshot.")
    snapshot_growth: float = Field(2.0, ge=1, le=10, description="Each wait for a snapshot is this times the last.")
    longest_snapshot_minutes: float = Field(5.0, gt=0, le=600, description="Longest wait for a snapshot, minutes.")

    @model_validator(mode="after")
    def _has_a_budget(self) -> Self:
        if self.total_kimg is None and self.max_minutes is None:
            raise ValueError("Give a budget: total_kimg, max_minutes, or both.")
        return self
