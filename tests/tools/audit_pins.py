"""Look up published vulnerabilities of every pinned version, before a release.

    python tests/tools/audit_pins.py

Asks the Python Package Index, which repeats what https://osv.dev knows of each version, and whether
a version was yanked. Needs a network and nothing but the standard library. Ends with an error if a
pin is vulnerable or yanked; pins that the index would say nothing of are listed.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
INDEX = "https://pypi.org/pypi"


def pins() -> dict[str, str]:
    """Name and version of every line of ``constraints.txt``."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    exact = [line.partition("#")[0].partition(";")[0].strip() for line in lines]
    return {name: version for name, _, version in (line.partition("==") for line in exact if line)}


def _read(address: str) -> dict[str, Any] | None:
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            content: dict[str, Any] = json.load(answer)
            return content
    except (urllib.error.URLError, TimeoutError, ValueError):
        return None


def ask(name: str, version: str) -> dict[str, Any] | None:
    """What the index says of one version; None where it says nothing."""
    own = _read(f"{INDEX}/{name}/{version}/json")
    if own is not None:
        return own
    # Some mirrors keep the page of a project alone, which speaks of its newest version.
    newest = _read(f"{INDEX}/{name}/json")
    return newest if newest is not None and newest["info"]["version"] == version else None


def main() -> None:
    """Print what was found."""
    found, silent = [], []
    every = pins()
    for name, version in every.items():
        said = ask(name, version)
        if said is None or "vulnerabilities" not in said:
            silent.append(f"{name}=={version}")
            continue
        if said["info"].get("yanked"):
            found.append(f"{name}=={version} was yanked: {said['info'].get('yanked_reason')}")
        for entry in said["vulnerabilities"]:
            if not entry.get("withdrawn"):
                fixed = ", ".join(entry["fixed_in"]) or "no version yet"
                found.append(f"{name}=={version}: {entry['id']}, fixed in {fixed}")
    print("\n".join(found))
    if silent:
        print(f"Not audited: {', '.join(silent)}")
    print(f"{len(every) - len(silent)} of {len(every)} pins audited, {len(found)} findings.")
    if found:
        sys.exit(1)


if __name__ == "__main__":
    main()
