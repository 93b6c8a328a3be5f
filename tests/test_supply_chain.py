"""What celldit is installed with is pinned to the version, and what it brings is checked."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from celldit import datasets

ROOT = Path(__file__).resolve().parents[1]
#: Extras whose packages are for one comparison or one function, and are not pinned.
UNPINNED = {"eval", "drugs", "notebooks"}


def pins() -> dict[str, Version]:
    found: dict[str, Version] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        name, sign, version = line.partition("==")
        # No range, no link to a file, no other index: what an audit reads is what is installed.
        assert sign, line
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name), line
        found[key(name)] = Version(version)
    return found


def key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_pin_is_exact_and_stands_once() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert len(pins()) == len(lines) > 50


def test_every_dependency_is_pinned_to_a_version_that_will_do() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = list(project["dependencies"])
    for extra, names in project["optional-dependencies"].items():
        wanted += [] if extra in UNPINNED else names
    pinned = pins()
    for requirement in map(Requirement, wanted):
        assert requirement.url is None
        assert requirement.specifier.contains(pinned[key(requirement.name)]), str(requirement)


def test_every_bundled_file_has_a_check_sum() -> None:
    files = {p for p in (ROOT / "data").iterdir() if p.name != "README.md"}
    assert {p.name for p in files} == set(datasets._SHA256)
    for path in files:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == datasets._SHA256[path.name]
