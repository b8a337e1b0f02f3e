"""What a release ships with is pinned and written down."""

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def program(name: str) -> ModuleType:
    """A program of .ci, imported."""
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def installed() -> dict[str, Any]:
    """What an inventory of the packages structlog, pytest and Mako would say."""
    names = ("structlog", "pytest", "Mako")
    components = [{"bom-ref": f"{name}==1", "name": name} for name in names]
    needs = [{"ref": "root-component", "dependsOn": ["structlog==1", "pytest==1"]}]
    return {"components": components, "dependencies": [*needs, {"ref": "structlog==1", "dependsOn": ["Mako==1"]}]}


def test_all_that_ganvas_ships_with_is_pinned_by_the_constraints() -> None:
    pinned = set(re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text().lower().replace("_", "-"), re.M))
    shipped = program("sbom").shipped(PROJECT["dependencies"])
    assert {"fastapi", "torch", "starlette", "sqlalchemy"} <= shipped
    assert shipped - pinned == set()


def test_what_developers_use_is_not_shipped() -> None:
    shipped = program("sbom").shipped(PROJECT["dependencies"])
    assert shipped & {"pytest", "mypy", "ruff", "schemathesis", "pip-audit"} == set()


def test_a_bill_is_narrowed_to_some_packages_and_what_they_need_of_each_other(installed: dict[str, Any]) -> None:
    bill = program("sbom").narrowed(installed, {"structlog", "mako"})
    assert [each["name"] for each in bill["components"]] == ["structlog", "Mako"]
    assert {each["ref"]: each["dependsOn"] for each in bill["dependencies"]} == {
        "root-component": ["structlog==1"],
        "structlog==1": ["Mako==1"],
    }


def test_scripts_inside_the_package_are_in_the_bill() -> None:
    sbom = program("sbom")
    (page,) = (sbom.bundled(package) for package in sbom.BUNDLED)
    assert page["purl"].startswith("pkg:npm/swagger-ui-dist@5.")


@pytest.mark.parametrize(
    ("said", "status", "shown"),
    [
        ({"pypi": [], "osv": []}, 2, "NOT AUDITED"),
        ({"pypi": [{"name": "a", "version": "1", "vulns": []}]}, 0, "1 packages looked up, 0 with"),
        (
            {"pypi": [{"name": "a", "skip_reason": "not there"}], "osv": [{"name": "a", "version": "1", "vulns": []}]},
            0,
            "osv: 1",
        ),
        (
            {"pypi": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}]},
            1,
            "a 1: CVE-1, fixed in 2",
        ),
    ],
)
def test_an_audit_says_what_it_found_and_whether_it_could_look(
    said: dict[str, list[dict[str, Any]]],
    status: int,
    shown: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    audit = program("audit")
    monkeypatch.setattr(audit, "audit", said.__getitem__)
    assert audit.main() == status
    assert shown in capsys.readouterr().out
