"""The docs say what is so: every file of the map exists, every setting is listed, every link leads somewhere."""

import ast
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from app.api.errors import FRAMEWORK_CODES, VALIDATION_CODES
from app.core.settings import Settings

ROOT = Path(__file__).parents[2]
LONGEST_FILE, LONGEST_FUNCTION = 400, 60


def tracked(*patterns: str) -> list[Path]:
    """Files that git knows or would add, by pattern."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return sorted(ROOT / name for name in set(listed) if (ROOT / name).is_file())


def shown(default: object) -> str:
    """A setting's default as one writes it in the environment."""
    if default is None:
        return "unset"
    return json.dumps(default) if isinstance(default, bool | dict | list) else str(default)


@pytest.mark.parametrize("page", tracked("*.md"), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_file_map_of_the_readme_names_what_exists_and_every_package() -> None:
    block = re.search(r"## The file map\n+```\n(.+?)```", (ROOT / "README.md").read_text(), re.S)
    assert block
    named = {line.split()[0].rstrip("/") for line in block[1].splitlines() if line.strip()}
    assert [name for name in named if not (ROOT / name).exists()] == []
    homes = {str(path.parent.relative_to(ROOT)) for path in tracked("app/**/__init__.py", "worker/**/__init__.py")}
    homes |= {str(path.parent.relative_to(ROOT)) for path in tracked("models/**/__init__.py")}
    assert homes - named == set()


def test_the_settings_page_lists_every_setting_with_its_default_and_no_other() -> None:
    rows = re.findall(r"^\| `GANVAS_(\w+)` \| (.*?) \| (.*?) \|$", (ROOT / "docs" / "settings.md").read_text(), re.M)
    documented = {name.lower(): (default.strip("`"), meaning) for name, default, meaning in rows}
    fields = Settings.model_fields.items()
    assert documented == {
        name: (shown(field.get_default(call_default_factory=True)), field.description) for name, field in fields
    }


@pytest.mark.parametrize("file", tracked("*.py"), ids=lambda file: str(file.relative_to(ROOT)))
def test_files_and_functions_stay_short_enough_to_read(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            assert node.end_lineno - node.lineno < LONGEST_FUNCTION, node.name


def test_every_folder_of_tests_is_run_by_default_but_chaos_which_has_targets_of_its_own() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    folders = {str(file.relative_to(ROOT).parent) for file in tracked("tests/**/test_*.py")}
    tops = {"/".join(folder.split("/")[:2]) for folder in folders}
    assert tops - {"tests/chaos"} == set(settings["testpaths"])


def test_no_adr_is_missing_from_the_list() -> None:
    listed = (ROOT / "docs" / "adr" / "README.md").read_text()
    records = tracked("docs/adr/0*.md")
    assert records
    assert [record.name for record in records if f"({record.name})" not in listed] == []


def test_the_errors_page_lists_every_code_and_no_other() -> None:
    source = "\n".join(file.read_text() for file in tracked("app/**/*.py", "app/*.py", "worker/**/*.py", "worker/*.py"))
    used = set(re.findall(r'code(?:: ClassVar\[str\])? ?= ?"([a-z_]+)"', source))
    used |= set(re.findall(r'"code": "([a-z_]+)"', source))
    used |= set(FRAMEWORK_CODES.values()) | set(VALIDATION_CODES.values()) | {"http_error", "json_expected"}
    page = (ROOT / "docs" / "errors.md").read_text()
    assert set(re.findall(r"^\| `([a-z_]+)` \|", page, re.M)) == used
