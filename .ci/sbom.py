"""Writes down what Ganvas ships with, as CycloneDX JSON: the packages that `pip install ganvas` brings here, and what
is inside its own package. Tools of its developers are left out."""

import json
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[1]
BUNDLED: Final = (ROOT / "app" / "api" / "docs" / "origin.json",)  # scripts of the documentation page
SELF: Final = "root-component"


def installed() -> dict[str, Any]:
    """All that is installed beside this Python."""
    program = str(Path(sys.executable).with_name("cyclonedx-py"))
    asked = [
        program,
        "environment",
        "--pyproject",
        str(ROOT / "pyproject.toml"),
        "--output-reproducible",
        sys.executable,
    ]
    said: dict[str, Any] = json.loads(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)
    return said


def shipped(requirements: list[str]) -> set[str]:
    """Names of all that these bring along here. What packages need for their own development is no part of it."""
    names = set[str]()
    ahead = [(Requirement(each), frozenset({""})) for each in requirements]
    seen = set[tuple[str, frozenset[str]]]()
    while ahead:
        wanted, extras_before = ahead.pop()
        if wanted.marker is not None and not any(wanted.marker.evaluate({"extra": extra}) for extra in extras_before):
            continue
        name, extras = canonicalize_name(wanted.name), frozenset({"", *wanted.extras})
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        names.add(name)
        ahead += [(Requirement(each), extras) for each in metadata.distribution(name).requires or ()]
    return names


def narrowed(bill: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The same without other packages than these."""
    components = [each for each in bill["components"] if canonicalize_name(each["name"]) in names]
    kept = {SELF, *(each["bom-ref"] for each in components)}
    dependencies = [
        {"ref": each["ref"], "dependsOn": [ref for ref in each.get("dependsOn", ()) if ref in kept]}
        for each in bill["dependencies"]
        if each["ref"] in kept
    ]
    return bill | {"components": components, "dependencies": dependencies}


def bundled(package: Path) -> dict[str, str | list[Any]]:
    """What is inside Ganvas' own package, of npm."""
    told = json.loads(package.read_text())
    name, version = told["name"], told["version"]
    return {
        "type": "library",
        "bom-ref": f"{name}@{version}",
        "name": name,
        "version": version,
        "purl": f"pkg:npm/{name}@{version}",
        "licenses": [{"license": {"id": told["license"]}}],
    }


def main() -> None:
    """Write it where the first argument says."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bill = narrowed(installed(), shipped(project["dependencies"]))
    bill["components"] += [bundled(package) for package in BUNDLED]
    place = Path(sys.argv[1])
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(bill, indent=2) + "\n")
    sys.stdout.write(f"{place}: {len(bill['components'])} components\n")


if __name__ == "__main__":
    main()
