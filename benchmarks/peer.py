"""A peer for benchmarks/training.py: lucidrains' lightweight_gan 1.2.1 (MIT), trained on a CPU by its own trainer.

The package comes from the package index, unchanged, into a folder of its own. It insists on CUDA, so before it is
imported and while it runs, from the outside:
- torch.cuda.is_available answers yes during the import, .cuda() leaves tensors and networks where they are, and
  torch.device("cuda:0") is the CPU, in its module alone;
- torchvision, which it needs to read files, is an empty stand-in: it gets the same pictures from memory, in [0, 1], in
  shuffled batches, which costs it less than decoding them;
- it writes no checkpoints and no progress sheets, which it would do every 1000 and 100 steps: all its time is training.

Its settings are its trainer's own (hinge loss, gradient penalty 10 every 4th step, Adam 2e-4 (0.5, 0.9), latent 256,
auto-encoding loss, translation and cutout with the probability it sets itself for this many pictures) but for
- image_size, of the pictures; disc_output_size 1, the default of its command line;
- fmap_inverse_coef and fmap_max: with the widths that it means for 256 pixels and GPUs, a step of 40 pictures takes
  minutes on two cores; here its generator is as wide as `tiny` at every size;
- one head of attention in the branch of its discriminator that sees 32 pixels, instead of 8, which would take three
  times as long as all the rest together; no other attention, as is its trainer's default;
- batch_size 8 at once, instead of 10 four times: more steps in the same minutes.

Its moving average starts at step 20,000, which no CPU reaches in these minutes. So an average of its generator is kept
here (decay 0.995 a step, its own decay), pictures of both are drawn, and the better ones may count for it.

python benchmarks/peer.py --images pictures.npy --minutes 10 --threads 2 --out FOLDER
"""

import argparse
import functools
import importlib
import os
import random
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

PACKAGES = Path(__file__).with_name("results") / "peer-packages"
REQUIREMENTS = (
    "lightweight-gan==1.2.1",
    *("adabelief-pytorch==0.2.1", "colorama==0.4.6", "einops==0.8.2", "kornia==0.9.0", "kornia_rs==0.2.0"),
    *("tabulate==0.10.0", "tqdm==4.70.1"),
)
BATCH = 8
LATENT = 256
INVERSE_COEF = 10  # 2^(10 - 5) feature maps where 32 pixels become 64, twice as many a stage before: those of `tiny`
WIDEST = 256
ATTENTION_HEADS = 1
AVERAGE_DECAY = 0.995  # a step
DRAWN_AT_ONCE = 64
TICK_SECONDS = 30.0


class PeerResult(NamedTuple):
    """What the peer painted, and what it took."""

    minutes: float
    kimg: float
    steps: int
    plain: NDArray[np.uint8]  # [N, R, R, 3], of its generator as it is
    averaged: NDArray[np.uint8]  # [N, R, R, 3], of its average


def train_apart(
    images: NDArray[np.uint8], folder: Path, *, minutes: float, threads: int, seed: int, count: int
) -> PeerResult:
    """Train the peer on images [N, R, R, 3] in a process of its own, which its patches cannot leave; draw `count`."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", images)
    options = {"images": folder / "images.npy", "minutes": minutes, "threads": threads, "seed": seed, "count": count}
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    subprocess.run([sys.executable, __file__, *flags, "--out", str(folder)], check=True)
    with np.load(folder / "peer.npz") as drawn:
        return PeerResult(
            float(drawn["minutes"]), float(drawn["kimg"]), int(drawn["steps"]), drawn["plain"], drawn["averaged"]
        )


def main() -> None:
    """Train the peer on an array of pictures, and save what it draws."""
    args = arguments()
    torch.set_num_threads(args.threads)
    random.seed(args.seed)  # its augmentation flips the coins of three libraries
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    images = np.load(args.images)
    install()
    package = import_for_cpu()
    with on_cpu(package):
        trainer = build_trainer(package, images, args.out)
        ema = get_ema_multi_avg_fn(AVERAGE_DECAY)  # type: ignore[no-untyped-call]
        average = AveragedModel(trainer.GAN.G, multi_avg_fn=ema, use_buffers=True)
        minutes = train(trainer, average, args.minutes)
        plain, averaged = draw(trainer.GAN.G, args.count), draw(average.module, args.count)
    kimg = trainer.steps * BATCH / 1000
    np.savez(args.out / "peer.npz", minutes=minutes, kimg=kimg, steps=trainer.steps, plain=plain, averaged=averaged)
    print(f"peer: {trainer.steps} steps, {kimg:.1f} kimg, {minutes:.1f} min; wrote {args.out / 'peer.npz'}.")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="uint8 [N, R, R, 3], as .npy")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=64, help="pictures to draw")
    parser.add_argument("--out", type=Path, required=True, help="folder for peer.npz")
    return parser.parse_args()


def install() -> None:
    """Fetch the package and what it imports, once; torch, numpy and Pillow are Ganvas's own."""
    if not (PACKAGES / "lightweight_gan").exists():
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--target", str(PACKAGES), *REQUIREMENTS], check=True)
    sys.path.append(str(PACKAGES))


def import_for_cpu() -> Any:
    """Its module, with all that its lines would take from a GPU or from torchvision."""
    vision = types.ModuleType("torchvision")
    vision.transforms = types.ModuleType("torchvision.transforms")  # type: ignore[attr-defined]
    stand_ins = {"torchvision": vision, "torchvision.transforms": vision.transforms}
    with mock.patch.dict(sys.modules, stand_ins), mock.patch.object(torch.cuda, "is_available", return_value=True):
        package: Any = importlib.import_module("lightweight_gan.lightweight_gan")
    package.LinearAttention = functools.partial(package.LinearAttention, heads=ATTENTION_HEADS)
    package.torch = TorchOnCpu("torch")
    return package


class TorchOnCpu(types.ModuleType):
    """torch, with the CPU for any device."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def device(self, name: str) -> torch.device:
        """The CPU."""
        return torch.device("cpu")


@contextmanager
def on_cpu(package: Any) -> Iterator[None]:
    """While this lasts, .cuda() does nothing, and the trainer neither saves nor paints sheets."""
    with (
        mock.patch.multiple(package.Trainer, save=_nothing, evaluate=_nothing),
        mock.patch.object(Tensor, "cuda", _itself),
        mock.patch.object(nn.Module, "cuda", _itself),
    ):
        yield


def _nothing(trainer: Any, *args: Any, **kwargs: Any) -> None:
    del trainer, args, kwargs


def _itself(holder: Any, *args: Any) -> Any:
    del args
    return holder


def build_trainer(package: Any, images: NDArray[np.uint8], folder: Path) -> Any:
    """Its trainer with its networks, which takes its pictures from memory."""
    trainer = package.Trainer(
        name="peer",
        base_dir=folder,
        image_size=images.shape[1],
        latent_dim=LATENT,
        batch_size=BATCH,
        disc_output_size=1,
        fmap_max=WIDEST,
        fmap_inverse_coef=INVERSE_COEF,
        use_aim=False,
    )
    trainer.loader = batches(images)
    trainer.aug_prob = min(0.5, (1e5 - len(images)) * 3e-6)  # what its loader of files sets for this many
    trainer.init_GAN()
    return trainer


def batches(images: NDArray[np.uint8]) -> Iterator[Tensor]:
    """Endless batches [BATCH, 3, R, R] in [0, 1], each pass in its own order and without its incomplete last batch."""
    while True:
        order = np.random.permutation(len(images))
        for start in range(0, len(images) - BATCH + 1, BATCH):
            pixels = torch.from_numpy(images[order[start : start + BATCH]])
            yield pixels.permute(0, 3, 1, 2).float() / 255


def train(trainer: Any, average: AveragedModel, budget_minutes: float) -> float:
    """Let it train until the budget is used up; the minutes it took."""
    started = printed = time.perf_counter()
    while (now := time.perf_counter()) - started < budget_minutes * 60:
        if now - printed >= TICK_SECONDS:
            printed = now
            speed = f"{trainer.steps * BATCH / (now - started):6.1f} img/s"
            losses = f"D {trainer.d_loss:.3f} G {trainer.g_loss:.3f}"
            print(f"peer     {(now - started) / 60:5.1f} min {trainer.steps:6} steps {speed}  {losses}", flush=True)
        trainer.train()
        average.update_parameters(trainer.GAN.G)
    return (time.perf_counter() - started) / 60


@torch.inference_mode()
def draw(generator: nn.Module, count: int) -> NDArray[np.uint8]:
    """`count` pictures, uint8 [count, R, R, 3], of the same latents every time."""
    generator.eval()
    chance = torch.Generator().manual_seed(0)
    pictures = []
    for start in range(0, count, DRAWN_AT_ONCE):
        z = torch.randn(min(DRAWN_AT_ONCE, count - start), LATENT, generator=chance)
        pictures.append((generator(z).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    return np.concatenate(pictures)


if __name__ == "__main__":
    main()
