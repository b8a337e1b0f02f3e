"""Milliseconds a picture by what calculates it, and how far its pictures are from plain PyTorch's in float32.

Networks: the bundled one, and three presets with first weights, scaled until the pictures have contrast. Engines:
PyTorch as it comes (eager), with channels_last, prepared as it is served (app/serving/inference.py) in float32 and
bfloat16, torch.compile of those two, ONNX Runtime and OpenVINO; what is not installed, or what this machine cannot do,
is said and left out. Engines take turns in one run, and each figure is the median of its turns: of one thread the time
on the processor, which neighbours hardly change, of several the clock's. Pictures are those of 16 seeds, texts and all;
their differences are in levels of 255.

python benchmarks/engines.py --install --markdown    (8 minutes of two idle cores, most of them compiling)
"""

import argparse
import copy
import importlib.util
import logging
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn

from app.serving import inference
from app.serving.inference import prepare
from models.checkpoint import load_generator
from models.networks.generator import Generator
from models.networks.r3gan import Block, spread
from models.objectives.precision import multiplies_bfloat16
from models.presets import preset
from models.registry import build_generator
from models.sampling import text_vectors, to_uint8

PACKAGES = Path(__file__).with_name("results") / "engine-packages"
REQUIREMENTS = ("onnxruntime==1.32.0", "onnxscript==0.7.2", "openvino==2026.4.1")
BUNDLED = Path(__file__).parents[1] / "models" / "pretrained" / "emoji.safetensors"
NETWORKS = {  # the bundled one has no preset
    "bundled": None,
    "classic 64 px": ("classic", 64),
    "quality 64 px": ("quality", 64),
    "few-shot 256 px": ("few-shot", 256),
}
BATCHES = (1, 4, 8, 16)
CONTRAST = 0.5  # spread of first weights' pictures, which go from -1 to 1
SEEN = 64  # pictures that the norms' statistics are from
LEAST_TURNS = 3
REST_SECONDS = 0.01  # before each turn: the threads of the engine before still spin for a moment

Paint = Callable[[Tensor], Tensor]  # w [N, num_ws, w_dim] -> x [N, C, R, R], float32


class Missing(Exception):
    """This engine cannot be had here."""


class Network:
    """A network to measure, and what the engines need of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.generator = generator_of(name)
        z = torch.randn(max(BATCHES), self.generator.z_dim, generator=torch.Generator().manual_seed(1))
        texts = [self.generator.text_of(seed) for seed in range(len(z))]
        with torch.inference_mode():
            c = text_vectors(self.generator, texts) if self.generator.captions else None
            self.w = self.generator.mapping(z, c)
            self.reference = to_uint8(self.generator.synthesis(self.w))
        self._exported: Any = None

    def prepared(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """A synthesis as it is served."""
        generator = copy.deepcopy(self.generator)
        prepare(generator, dtype)
        return generator.synthesis

    def exported(self) -> Any:
        """The prepared synthesis as a torch.export program of any batch, without the padding that only PyTorch's own
        libraries need. TorchScript's exporter cannot take r3gan: the filter's kernel is made in the pass."""
        if self._exported is None:
            any_batch = {0: torch.export.Dim("pictures", min=2, max=max(BATCHES))}  # and 1, as the libraries read it
            with mock.patch.multiple(inference, ROW_BLOCK=1, SMALL_SIDE=0), torch.no_grad():
                w = self.w[:2].clone()
                self._exported = torch.export.export(self.prepared(), (w,), dynamic_shapes=(any_batch,))
        return self._exported


def generator_of(name: str) -> Generator:
    """A generator in evaluation mode; one of a preset paints as a trained one does, in all but meaning."""
    chosen = NETWORKS[name]
    if chosen is None:
        return load_generator(BUNDLED, torch.device("cpu"))[0].eval()
    torch.manual_seed(0)
    generator = build_generator(preset(*chosen).network)
    paint: Any = generator.synthesis.paint
    with torch.no_grad():
        for module in generator.modules():
            if isinstance(module, Block):  # which starts as the identity
                spread(module.narrow)
        generator(torch.randn(SEEN, generator.z_dim))  # sets the norms' statistics
        generator.eval()
        painted: list[Tensor] = []
        seen = paint.register_forward_hook(lambda layer, inputs, output: painted.append(output))
        generator(torch.randn(4, generator.z_dim))
        seen.remove()
        paint.weight *= CONTRAST / painted[0].std()
    return generator


def eager(network: Network, threads: int) -> Paint:
    """PyTorch with the network as it was trained."""
    return copy.deepcopy(network.generator.synthesis)


def channels_last(network: Network, threads: int) -> Paint:
    """The same, with features and kernels that have their channels side by side."""
    synthesis: nn.Module = copy.deepcopy(network.generator.synthesis)
    return synthesis.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def prepared(network: Network, threads: int, dtype: torch.dtype = torch.float32) -> Paint:
    """As Ganvas serves it: folded, fused, channels_last."""
    return network.prepared(supported(dtype))


def compiled(network: Network, threads: int, dtype: torch.dtype = torch.float32) -> Paint:
    """That, compiled: once for a batch of 1, once for the others; the second count of threads finds both on disk."""
    if not (os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")):
        raise Missing("no C++ compiler")
    options: dict[str, Any] = {"cpp.dynamic_threads": True}
    paint: Paint = torch.compile(network.prepared(supported(dtype)), dynamic=True, options=options)
    return paint


def onnx_runtime(network: Network, threads: int) -> Paint:
    """ONNX Runtime in float32; on a CPU it has no convolution in bfloat16."""
    runtime = installed("onnxruntime")
    installed("onnxscript")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    # Its threads would spin through the turns of the others, as they would through a server's own work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "network.onnx")
        program = torch.onnx.export(network.exported(), verbose=False)
        assert program is not None
        program.save(file)
        session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda w: torch.from_numpy(session.run(None, {name: w.numpy()})[0])


def openvino(network: Network, threads: int, precision: str = "f32") -> Paint:
    """OpenVINO; bf16 is only a hint to it, taken where it thinks that it pays."""
    if precision == "bf16":
        supported(torch.bfloat16)
    library = installed("openvino")
    hints = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision, "NUM_STREAMS": 1}
    try:
        converted = library.convert_model(network.exported())
    except library.frontend.OpConversionFailure as error:
        raise Missing(f"{network.name} cannot be converted") from error
    model = library.Core().compile_model(converted, "CPU", hints)
    request = model.create_infer_request()
    return lambda w: torch.from_numpy(request.infer([w.numpy()], share_inputs=True)[0])


ENGINES: dict[str, Callable[[Network, int], Paint]] = {
    "eager": eager,
    "channels_last": channels_last,
    "prepared": prepared,
    "prepared, bfloat16": partial(prepared, dtype=torch.bfloat16),
    "compiled": compiled,
    "compiled, bfloat16": partial(compiled, dtype=torch.bfloat16),
    "ONNX Runtime": onnx_runtime,
    "OpenVINO": openvino,
    "OpenVINO, bfloat16": partial(openvino, precision="bf16"),
}


def installed(package: str) -> Any:
    """A package that may be missing. Raises Missing."""
    if importlib.util.find_spec(package) is None:
        raise Missing(f"{package} is not installed (--install fetches it)")
    return importlib.import_module(package)


def supported(dtype: torch.dtype) -> torch.dtype:
    """The dtype itself. Raises Missing where the processor has no instructions for it."""
    if dtype == torch.bfloat16 and not multiplies_bfloat16(torch.device("cpu")):
        raise Missing("this processor does not multiply bfloat16")
    return dtype


class Row(NamedTuple):
    """What one engine takes for one network with so many threads, and how its pictures differ."""

    network: str
    threads: int
    engine: str
    times: dict[int, float]  # milliseconds a picture, by batch
    eager: dict[int, float]
    most: int  # levels of 255
    mean: float
    equal: float  # share of the pixels' bytes
    decibels: float  # peak signal to noise of all pictures; nobody sees a difference above 45

    def cells(self) -> list[str]:
        """Each batch's time and, in brackets, how many times as quick as eager that is; then the differences."""
        times = [f"{self.times[batch]:.2f} ({self.eager[batch] / self.times[batch]:.2f})" for batch in self.times]
        difference = [str(self.most), f"{self.mean:.3f}", f"{100 * self.equal:.1f}%", f"{self.decibels:.0f}"]
        return [self.network, str(self.threads), self.engine, *times, *difference]


def main() -> None:
    """Print every network's times."""
    args = arguments()
    if args.install:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, "--target", str(PACKAGES), *REQUIREMENTS], check=True)
    sys.path.append(str(PACKAGES))  # last, so that our own versions of what is in both are taken
    warnings.filterwarnings("ignore")  # of the exporters
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # that torchvision is not there
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}: ms a picture (x eager)")
    heads = ["network", "threads", "engine", *(f"batch {n}" for n in args.batches), "most", "mean", "equal", "dB"]
    show(heads, args.markdown)
    if args.markdown:
        show(["---"] * len(heads), args.markdown)
    for name in args.networks:
        network = Network(name)
        for threads in args.threads:
            for row in rows(network, threads, args):
                show(row.cells(), args.markdown)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = sorted({1, os.cpu_count() or 1})
    parser.add_argument("--seconds", type=float, default=2.0, help="of each network, count of threads and batch")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="eager is always there")
    parser.add_argument("--threads", nargs="+", type=int, default=every, help="default: one, and all")
    parser.add_argument("--batches", nargs="+", type=int, choices=BATCHES, default=BATCHES)
    parser.add_argument("--install", action="store_true", help=f"fetch {', '.join(REQUIREMENTS)} into {PACKAGES.name}")
    parser.add_argument("--markdown", action="store_true", help="print a table for documents")
    return parser.parse_args()


@torch.inference_mode()
def rows(network: Network, threads: int, args: argparse.Namespace) -> list[Row]:
    """Measure one network with so many threads."""
    torch.set_num_threads(threads)
    paints: dict[str, Paint] = {}
    for name in ("eager", *(name for name in args.engines if name != "eager")):
        try:
            with torch.inference_mode(mode=False):  # exporters and compilers take ordinary tensors
                paints[name] = ENGINES[name](network, threads)
        except (Missing, RuntimeError) as reason:  # RuntimeError: of an exporter that does not know an operation
            print(f"{name} is left out: {str(reason).strip().splitlines()[-1]}.", file=sys.stderr)
    times: dict[str, dict[int, float]] = {name: {} for name in paints}
    for batch in args.batches:
        for name, milliseconds in in_turns(paints, network.w[:batch].clone(), args.seconds).items():
            times[name][batch] = milliseconds
    found = [row(network, threads, name, paints[name], times) for name in paints]
    torch._dynamo.reset()  # it keeps few compilations of one class
    return found


def in_turns(paints: dict[str, Paint], w: Tensor, seconds: float) -> dict[str, float]:
    """Milliseconds a picture of each engine, the median of its turns."""
    for paint in paints.values():
        for _ in range(2):  # the first compiles, orders memory and packs kernels
            paint(w)
    taken: dict[str, list[float]] = {name: [] for name in paints}
    end = time.perf_counter() + seconds
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    while time.perf_counter() < end or len(taken["eager"]) < LEAST_TURNS:
        for name, paint in paints.items():
            time.sleep(REST_SECONDS)
            start = clock()
            paint(w)
            taken[name].append(clock() - start)
    return {name: 1000 * statistics.median(turns) / len(w) for name, turns in taken.items()}


def row(network: Network, threads: int, name: str, paint: Paint, times: dict[str, dict[int, float]]) -> Row:
    """An engine's times beside eager's, and the difference of its pictures."""
    pictures = to_uint8(paint(network.w.clone()))
    apart = abs(pictures.astype(int) - network.reference)
    most, mean, equal = int(apart.max()), float(apart.mean()), float((apart == 0).mean())
    squared = float((apart**2).mean())
    decibels = 10 * math.log10(255**2 / squared) if squared else math.inf
    return Row(network.name, threads, name, times[name], times["eager"], most, mean, equal, decibels)


def show(cells: list[str], markdown: bool) -> None:
    """A line of the table."""
    if markdown:
        print(f"| {' | '.join(cells)} |", flush=True)
        return
    head, *rest = f"{cells[0]:16} {cells[1]:>7}  {cells[2]:19}", *cells[3:]
    columns = (f"{cell:>15}" if index < len(rest) - 4 else f"{cell:>6}" for index, cell in enumerate(rest))
    print(head, *columns, flush=True)


if __name__ == "__main__":
    main()
