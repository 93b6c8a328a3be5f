"""Every message of the public functions is provoked, what it tells to do is done, and helps."""

from __future__ import annotations

import ast
import re
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import pytest

import celldit as cd
from celldit.errors import CellditError

from .remedies import (
    answers,
    data,
    elsewhere,
    figures,
    files,
    further,
    measured,
    modalities,
    model,
    tools,
)
from .remedies.case import Case, Scope
from .remedies.others import OTHERS

PACKAGE = Path(cd.__file__).parent
MODULES = (data, files, model, tools, answers, further, elsewhere, measured, figures, modalities)
CASES: dict[str, Case] = {
    f"{module.__name__.rpartition('.')[2]}: {name}": case
    for module in MODULES
    for name, case in module.CASES.items()
}
#: What each case made celldit say, and where in the code; filled as the cases run.
SAID: dict[str, tuple[str, str, int]] = {}
NOT_OURS = ("Observation names are not", "Variable names are not", "Writing zarr v2")


def said_by(use: Any) -> tuple[str, str, int]:
    """What is said, as an error or a warning of celldit's, and the file and line of an error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            use()
        except CellditError as error:
            frames = traceback.extract_tb(error.__traceback__)
            own = [f for f in frames if PACKAGE in Path(f.filename).parents]
            if not own:
                return str(error), "", 0
            return str(error), _name(Path(own[-1].filename)), int(own[-1].lineno or 0)
    told = [str(w.message) for w in caught if w.category is UserWarning]
    return "\n".join(text for text in told if not text.startswith(NOT_OURS)), "", 0


def _name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("name", CASES)
def test_what_is_told_helps(
    name: str, tiny_screen: ad.AnnData, tiny_model: Any, tmp_path: Path, train_tiny: Any
) -> None:
    case, scope = CASES[name], Scope(tiny_screen, tiny_model, tmp_path, train_tiny)
    SAID[name] = said_by(lambda: case.wrong(scope))
    told = SAID[name][0]
    assert told, "nothing was said"
    found = re.search(case.told, told, re.DOTALL)
    assert found, told
    assert said_by(lambda: case.right(scope, found))[0] == ""


@dataclass(frozen=True)
class Site:
    """A place in the code that raises or warns."""

    path: str
    first: int
    last: int
    #: What it says, with "…" where values come in.
    text: str

    def said(self, text: str, path: str, line: int) -> bool:
        """Whether a message came from here: by its place, or by its words where that is unknown."""
        if path:
            return path == self.path and self.first <= line <= self.last
        fixed = [re.escape(part) for part in self.text.split("…")]
        telling = sum(map(len, fixed)) > 20
        return telling and re.search(".*".join(fixed), text, re.DOTALL) is not None


ERRORS = {"CellditError", "FileError", "InputError", "NotTrainedError", "TrainingError"}
ERRORS |= {"CannotRun", "UnknownNameError", "OutOfMemoryError"}


def sites() -> list[Site]:
    """Every place of the package that raises an error of celldit's, or warns."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            call = node.exc if isinstance(node, ast.Raise) else node
            if not isinstance(call, ast.Call):
                continue
            name = ast.unparse(call.func)
            if isinstance(node, ast.Raise) and name.partition(".")[0] not in ERRORS:
                continue
            if not isinstance(node, ast.Raise) and name != "warnings.warn":
                continue
            text = _text(call.args[0]) if call.args else "…"
            if name.endswith(".among"):
                text = f"Unknown {text} …"
            found.append(Site(_name(path), node.lineno, int(node.end_lineno or 0), text))
    return found


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    return "…"


def test_every_message_has_a_case_or_a_reason() -> None:
    """A new message needs a case above, or a line in ``remedies/others.py`` that says why not."""
    if set(SAID) != set(CASES):
        pytest.skip("looks at what all cases of this file said")
    everywhere = sites()
    done = {site for site in everywhere for said in SAID.values() if site.said(*said)}
    left, used = [], set()
    for site in everywhere:
        excuse = next((key for key in OTHERS if _is(key, site)), None)
        if excuse is not None and site not in done:
            used.add(excuse)
        if excuse is None and site not in done:
            left.append(f"{site.path}:{site.first} {site.text}")
    assert not left, "\n".join(left)
    assert not set(OTHERS) - used, f"these reasons are needed no more: {sorted(set(OTHERS) - used)}"


def _is(key: tuple[str, str], site: Site) -> bool:
    words = key[1]
    told = site.text == words if words == "…" else words in site.text
    return site.path.startswith(key[0]) and told


def test_an_excuse_is_of_a_message_that_it_names() -> None:
    """Without words, every message that a file will ever hold would be excused with it."""
    assert not [key for key in OTHERS if not key[1]]
    made_elsewhere = [key for key in OTHERS if key[1] == "…"]
    assert all(sum(_is(key, site) for site in sites()) == 1 for key in made_elsewhere)
