"""Asks an advisory database about the pinned dependencies: `make audit`, and a part of `.ci/run`.

    python .ci/audit.py              fails on a known vulnerability; says so where none can be asked
    python .ci/audit.py --required   fails where none is reached, too

A package that the database does not know is named: silence about it would be taken for a clean one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PINS = Path(__file__).parents[1] / "constraints.txt"
SERVICES = ("pypi", "osv")
PATIENCE_SECONDS = 600


def asked(service: str, pins: Path = PINS) -> list[dict[str, Any]] | None:
    """Returns what a database says of each pinned package; None where it was not reached."""
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"]
    command += ["--no-deps", "--disable-pip", "-s", service, "-r", str(pins)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired):
        return None
    return found if any("vulns" in one for one in found) else None


def audit(required: bool, ask: Callable[[str], list[dict[str, Any]] | None] = asked) -> int:
    """Returns the exit code, after printing what was found and what was not looked at."""
    for service in SERVICES:
        if (found := ask(service)) is not None:
            return _told(service, found)
    print(f"{'=' * 78}\nNOT AUDITED: no advisory database was reached ({', '.join(SERVICES)}).")
    print(f"Nothing is known about vulnerabilities of what {PINS.name} pins.\n{'=' * 78}")
    return int(required)


def _told(service: str, found: list[dict[str, Any]]) -> int:
    known = [one for one in found if "vulns" in one]
    wrong = [(one, of) for one in known for of in one["vulns"]]
    for one, of in wrong:
        mended = ", ".join(of.get("fix_versions", [])) or "no release"
        print(f"VULNERABLE: {one['name']} {one['version']}: {of['id']}, mended in {mended}")
    for one in found:
        if "vulns" not in one:
            print(f"NOT AUDITED: {one['name']}: {one.get('skip_reason', 'unknown there')}")
    print(f"{service}: {len(known)} of {len(found)} pinned packages audited, {len(wrong)} findings")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(audit("--required" in sys.argv[1:]))
