"""Looks all that is installed up among known vulnerabilities, and says what could not be looked up.

Exit status: 0 where nothing is known, 1 where something is, 2 where no database could be reached.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

PIP_AUDIT: Final = (
    str(Path(sys.executable).with_name("pip-audit")),
    "--local",
    "--skip-editable",
    "--progress-spinner",
    "off",
)
DATABASES: Final = ("pypi", "osv")


def audit(database: str) -> list[dict[str, Any]]:
    """What a database says of each dependency; empty where it cannot be reached."""
    asked = [*PIP_AUDIT, "--vulnerability-service", database, "--format", "json"]
    ran = subprocess.run(asked, capture_output=True, text=True, check=False)
    try:
        said: list[dict[str, Any]] = json.loads(ran.stdout)["dependencies"]
    except (ValueError, KeyError):
        return []
    return said


def main() -> int:
    """Ask the databases in turn until one knows any of it."""
    for database in DATABASES:
        said = audit(database)
        known = [each for each in said if "skip_reason" not in each]
        if not known:
            sys.stdout.write(f"{database}: could not be reached, or knows none of these packages.\n")
            continue
        found = [each for each in known if each["vulns"]]
        for each in found:
            for vulnerability in each["vulns"]:
                fixed = ", ".join(vulnerability["fix_versions"]) or "nothing yet"
                sys.stdout.write(f"{each['name']} {each['version']}: {vulnerability['id']}, fixed in {fixed}\n")
        skipped = ", ".join(each["name"] for each in said if "skip_reason" in each)
        sys.stdout.write(f"{database}: {len(known)} packages looked up, {len(found)} with something known of them.\n")
        if skipped:
            sys.stdout.write(f"Not looked up: {skipped}.\n")
        return 1 if found else 0
    sys.stdout.write("NOT AUDITED: no database of vulnerabilities could be reached from here.\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
