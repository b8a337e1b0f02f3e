"""What no line of Ganvas may do: read what runs when it is read."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for name in ("app", "worker", "models") for path in (ROOT / name).rglob("*.py"))
UNPICKLERS = frozenset(
    {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "shelve"}
)
READERS = frozenset(
    {"torch.load", "torch.jit.load", "torch.package", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}
)
RUNNERS = frozenset({"eval", "exec"})


def faults(source: str) -> Iterator[str]:
    """What in a source reads, or could read, programs as if they were data."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            yield from (name for name in names if name.partition(".")[0] in UNPICKLERS)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in READERS | RUNNERS:
                yield called
            pickles = {each.arg: ast.unparse(each.value) for each in node.keywords}.get("allow_pickle")
            if called.endswith("np.load") and pickles != "False":
                yield called


def test_no_source_unpickles() -> None:
    assert len(SOURCES) > 100
    found = {str(path.relative_to(ROOT)): list(faults(path.read_text())) for path in SOURCES}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib.externals",
        "torch.load(path)",
        "torch.load(path, weights_only=True)",
        "yaml.load(text)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
    ],
)
def test_what_does_is_found(source: str) -> None:
    assert list(faults(source))
