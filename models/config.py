"""The one configuration object: request body, job payload and checkpoint header."""

from math import log2
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Resolution = Literal[32, 64, 128, 256, 512]
Architecture = Literal["dcgan", "fastgan", "r3gan"]
Norm = Literal["batch", "none"]
Width = Annotated[int, Field(ge=4, le=1024)]


class TextConfig(BaseModel):
    """How captions and labels reach the networks; a label is a one-word caption."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: str = Field("hashed-8192", max_length=200, description="Id of what turns a text into numbers.")
    features: int = Field(8192, ge=1, le=65_536, description="Numbers the encoder gives a text.")
    dim: int = Field(128, ge=1, le=1024, description="Length of the learnt text vector.")


class NetworkConfig(BaseModel):
    """The shape of G and D: all that is needed to build them, and to check a checkpoint against them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: Architecture = Field("dcgan", description="Family of networks.")
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
        description="Feature maps of D at 4, 8, 16 ... pixels, to half of the resolution; r3gan's to all of it."
    )
    upsampling: Literal["transposed", "resize"] = Field(
        "transposed", description="In G: 4x4 transposed convolutions, or nearest resizing and 3x3 convolutions."
    )
    generator_norm: Norm = Field("batch", description="Normalisation in G.")
    discriminator_norm: Norm = Field("none", description="Normalisation in D.")

    blocks: int = Field(1, ge=1, le=4, description="Residual blocks a stage; r3gan alone has them.")
    group_size: int = Field(16, ge=1, le=256, description="Feature maps a group of r3gan's 3x3 convolutions.")
    text: TextConfig | None = Field(None, description="Conditioning on captions and labels; null: on nothing.")

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
        fits = {"dcgan": ((half, full), (half,)), "fastgan": ((full,), (half,)), "r3gan": ((full,), (full,))}
        for name, allowed in zip(("generator_widths", "discriminator_widths"), fits[self.architecture], strict=True):
            if (entries := len(getattr(self, name))) not in allowed:
                takes = "/".join(map(str, allowed))
                raise ValueError(
                    f"{name} has {entries} entries; {self.architecture} at {self.resolution} px takes {takes}"
                )
        if self.text is not None and self.mapping_layers == 0:
            raise ValueError("Captions reach G through its mapping network: set mapping_layers to 1 or more")
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

    loss: Literal["bce", "hinge", "relativistic", "wasserstein"] = Field(description="Adversarial loss.")
    batch_size: int = Field(ge=2, le=512, description="Real images per step.")
    micro_batch: int | None = Field(
        None, ge=2, le=512, description="Images a pass: gradients add up to the batch. Null: all at once."
    )
    learning_rate: float = Field(gt=0, le=1, description="Adam's step size at the start, of G and of D.")
    final_learning_rate: float = Field(gt=0, le=1, description="Adam's step size at the end; a cosine leads there.")
    adam_beta1: float = Field(ge=0, lt=1, description="Adam's decay of the mean gradient.")
    adam_beta2: float = Field(ge=0, lt=1, description="Adam's decay of the mean squared gradient.")

    final_adam_beta2: float | None = Field(
        None, ge=0, lt=1, description="adam_beta2 at the end; a cosine leads there. Null: it stays."
    )

    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Of the networks' arithmetic in training; auto: bfloat16 where the processor has it."
    )

    penalty: Literal["r1", "r1_r2", "wgan_gp"] = Field(
        "r1_r2", description="D's gradient penalty: at real pictures, at painted ones too, or between them."
    )
    penalty_gamma: float = Field(0.0, ge=0, le=1e4, description="Weight of the penalty; 0: none.")
    final_penalty_gamma: float | None = Field(
        None, ge=0, le=1e4, description="penalty_gamma at the end; a cosine leads there. Null: it stays."
    )
    penalty_interval: int = Field(
        1, ge=1, le=64, description="Steps between penalties, which then weigh as many times."
    )
    reconstruction_weight: float = Field(
        0.0, ge=0, le=100, description="Weight of D redrawing real pictures from its features; fastgan alone can."
    )
    frozen_discriminator_stages: int = Field(
        0, ge=0, le=8, description="Stages of D, from the pixels on, that keep the weights of the base."
    )

    augment: tuple[Literal["color", "translation", "cutout"], ...] = Field(
        (), description="What D sees of real and painted pictures alike: recoloured, shifted, or with a square cut out."
    )
    augment_probability: float = Field(1.0, ge=0, le=1, description="Share of the pictures changed, at the start.")
    augment_target: float | None = Field(
        None, ge=0, lt=1, description="D's certainty about real pictures that the share is steered to. Null: it stays."
    )
    augment_kimg: float = Field(100.0, gt=0, le=1e5, description="Images in which the share may go from 0 to 1.")
    translation_fraction: float = Field(0.125, gt=0, le=0.5, description="Largest shift, as a part of the side.")
    cutout_fraction: float = Field(0.45, gt=0, lt=1, description="Side of the cut square, as a part of the side.")
    augment_fill: float = Field(1.0, ge=-1, le=1, description="Background revealed by a shift: -1 black, 1 white.")
    holdout: bool = Field(
        True, description="Never show a tenth of the pictures, so that copying can be told from learning."
    )
    mirror: bool = Field(True, description="Show half of the pictures mirrored, left to right.")

    caption_dropout: float = Field(0.1, ge=0, lt=1, description="Share of the pictures shown without their caption.")
    label_share: float = Field(
        0.2, ge=0, le=1, description="Share of the pictures, of those with caption and label, shown with the label."
    )
    matching_weight: float = Field(
        1.0, ge=0, le=100, description="Weight of telling a picture's own caption from those of others."
    )
    caption_kl_weight: float = Field(
        0.002, ge=0, le=100, description="Weight that keeps the variation around a caption's vector from dying out."
    )

    caption_layout_weight: float = Field(
        4.0, ge=0, le=100, description="Weight of a picture's coarse colours being those of its caption's one picture."
    )

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
