"""Loaded generators, by checkpoint: read once, kept while the memory budget allows, painting the same in any batch."""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.core.errors import CheckpointInvalid, InvalidRequest
from app.serving.inference import prepare
from app.serving.judge import Judge, load_judge
from app.serving.recipe import Recipe
from app.serving.reproduce import reproducing_sizes
from app.serving.texts import Meaning, Meanings, meanings
from models import errors as models_errors
from models.checkpoint import CheckpointMeta, load_generator
from models.checkpoint import read_meta as read_meta  # noqa: PLC0414 for those who may not import torch's part of models
from models.latents.mixing import mix_layers
from models.latents.seeds import z_from_seeds
from models.latents.truncation import truncate
from models.networks.generator import Generator
from models.sampling import to_uint8

CPU_PASS_BYTES = 8 * 2**20  # of a pass's largest features; from 4 to 16 MiB is best on 2 cores with 32 MiB of L3


class LoadedGenerator:
    """G of one checkpoint, ready to paint recipes; of the batch sizes it uses, all give the same pixels."""

    def __init__(
        self, sha256: str, generator: Generator, meta: CheckpointMeta, sizes: Sequence[int], meaning: Meanings | None
    ) -> None:
        self.sha256 = sha256
        self.generator = generator
        self.meta = meta
        self.sizes = tuple(sizes)  # rising
        self.meaning = meaning  # of texts; None where it knows none
        self.judge: Judge | None = None  # read when it is first asked for
        self.bytes = sum(tensor.nbytes for tensor in generator.state_dict().values())

    def batch_size(self, waiting: int) -> int:
        """How many of the waiting pictures the next pass should paint."""
        fitting = [size for size in self.sizes if size <= waiting]
        return fitting[-1] if fitting else waiting

    def check(self, recipe: Recipe) -> None:
        """Refuse, with InvalidRequest, a recipe that asks for what this generator has not got."""
        num_ws = self.generator.num_ws
        if recipe.mix is not None and max(recipe.mix.layers) >= num_ws:
            layers = f"layers 0 to {num_ws - 1}" if num_ws > 1 else "layer 0 alone"
            raise InvalidRequest(f"mix asks for layer {max(recipe.mix.layers)}; this model has {layers}.", param="mix")
        if self.meaning is None and recipe.text:
            raise InvalidRequest("These weights know no texts; leave prompt and label out.", param="prompt")

    def render(self, recipes: Sequence[Recipe]) -> NDArray[np.uint8]:
        """The pictures of recipes, uint8 [N, R, R, C], each as it would be alone."""
        pictures = []
        start = 0
        while start < len(recipes):
            size = self.batch_size(len(recipes) - start)
            batch = list(recipes[start : start + size])
            padding = [batch[-1]] * (self.sizes[0] - size)
            pictures.append(to_uint8(paint(self.generator, batch + padding, self.meaning))[:size])
            start += size
        return pictures[0] if len(pictures) == 1 else np.concatenate(pictures)


@torch.inference_mode()
def paint(generator: Generator, recipes: Sequence[Recipe], meaning: Meanings | None = None) -> Tensor:
    """One forward pass: x [N, C, R, R] in [-1, 1]. meaning: of texts, for a generator that knows them."""
    device = generator.w_avg.device
    c, center = None, generator.w_avg.expand(len(recipes), 1, -1)
    if meaning is not None:
        meant = [_meant(meaning, generator, recipe) for recipe in recipes]
        c = torch.cat([text.c for text in meant])  # [N, dim]
        center = torch.stack([text.center for text in meant])[:, None]  # [N, 1, w_dim]
    w = generator.mapping(_z(generator, [recipe.latent_seed for recipe in recipes]), c)  # [N, num_ws, w_dim]
    mixed = [(row, recipe.mix) for row, recipe in enumerate(recipes) if recipe.mix is not None]
    if mixed:
        texts = None if c is None else c[[row for row, _ in mixed]]  # the other seed is told the same
        others = generator.mapping(_z(generator, [mix.seed for _, mix in mixed]), texts)
        for (row, mix), other in zip(mixed, others, strict=True):
            w[row] = mix_layers(w[row, None], other[None], mix.layers)[0]
    psi = torch.tensor([recipe.truncation_psi for recipe in recipes], device=device)
    by_cutoff: dict[int | None, list[int]] = defaultdict(list)
    for row, recipe in enumerate(recipes):
        by_cutoff[recipe.truncation_cutoff].append(row)
    for cutoff, rows in by_cutoff.items():
        w[rows] = truncate(w[rows], center[rows], psi[rows], cutoff)
    x: Tensor = generator.synthesis(w)
    return x


def _meant(meaning: Meanings, generator: Generator, recipe: Recipe) -> Meaning:
    """What a recipe tells the generator; where that is nothing, one of the texts it was trained with, by the seed."""
    told = meaning(recipe.text)
    return meaning(generator.text_of(recipe.seed)) if told.silent else told


def _z(generator: Generator, seeds: Sequence[int]) -> Tensor:
    return torch.from_numpy(z_from_seeds(seeds, generator.z_dim)).to(generator.w_avg.device)


class Loader:
    """Checkpoints by sha256. Safe to call from any thread; concurrent first requests load once."""

    def __init__(
        self, resolve: Callable[[str], Path], *, device: str = "auto", budget_bytes: int, max_batch: int
    ) -> None:
        self.resolve = resolve
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        self.budget_bytes = budget_bytes
        self.max_batch = max_batch
        self._loaded: OrderedDict[str, LoadedGenerator] = OrderedDict()  # the least recently used first
        self._lock = Lock()
        self._loading: defaultdict[str, Lock] = defaultdict(Lock)

    def loaded(self, sha256: str) -> LoadedGenerator | None:
        """A checkpoint that is in memory."""
        with self._lock:
            if sha256 in self._loaded:
                self._loaded.move_to_end(sha256)
            return self._loaded.get(sha256)

    def get(self, sha256: str) -> LoadedGenerator:
        """A checkpoint, read from its file where it is not in memory. Raises NotFound, CheckpointInvalid."""
        with self._lock:
            loading = self._loading[sha256]
        with loading:
            try:
                found = self.loaded(sha256)
                if found is None:
                    found = self._load(sha256)
                    self._keep(found)
                return found
            finally:
                with self._lock:
                    self._loading.pop(sha256, None)

    def judge(self, sha256: str) -> Judge:
        """The judge of a checkpoint, which stays as long as the generator does; for one thread alone. Raises as get()
        does, and InvalidRequest where the checkpoint holds none."""
        loaded = self.get(sha256)
        if loaded.judge is None:
            loaded.judge = load_judge(self.resolve(sha256), self.device, loaded.meaning)
            loaded.bytes += loaded.judge.bytes
        return loaded.judge

    def _load(self, sha256: str) -> LoadedGenerator:
        try:
            generator, meta = load_generator(self.resolve(sha256), self.device)
        except models_errors.CheckpointInvalid as error:
            raise CheckpointInvalid(f"Checkpoint {sha256[:12]}: {error}") from error
        prepare(generator)
        generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # a tenth to a fifth faster
        meaning = meanings(generator)
        recipes = _probes(self._largest_pass(meta), sha256, meta)
        sizes = reproducing_sizes(lambda batch: paint(generator, batch, meaning), recipes)
        return LoadedGenerator(sha256, generator, meta, sizes, meaning)

    def _largest_pass(self, meta: CheckpointMeta) -> int:
        """On a CPU, no more pictures than stay in its caches: beyond that each takes longer, and the first one too."""
        if self.device.type != "cpu":
            return self.max_batch
        network = meta.config.network
        features = max(width * (4 << stage) ** 2 for stage, width in enumerate(network.generator_widths))
        return max(1, min(self.max_batch, CPU_PASS_BYTES // (4 * features)))  # float32

    def _keep(self, new: LoadedGenerator) -> None:
        """Make room by forgetting the least recently used; the newest stays, however large it is."""
        with self._lock:
            self._loaded[new.sha256] = new
            while len(self._loaded) > 1 and sum(kept.bytes for kept in self._loaded.values()) > self.budget_bytes:
                self._loaded.popitem(last=False)


def _probes(count: int, sha256: str, meta: CheckpointMeta) -> list[Recipe]:
    """Recipes of every kind of arithmetic, to compare batch sizes with."""
    kinds = [(0.7, None), (1.0, None), (-0.5, 1), (0.7, 1), (0.0, None)]
    prompts = [None, *meta.vocabulary[:3]]  # of an unconditional model: None alone
    side = meta.config.network.resolution
    return [
        Recipe(
            model="probe",
            checkpoint=sha256,
            seed=seed,
            truncation_psi=kinds[seed % len(kinds)][0],
            truncation_cutoff=kinds[seed % len(kinds)][1],
            size=(side, side),
            prompt=prompts[seed % len(prompts)],
        )
        for seed in range(count)
    ]
