"""Every block of the documentation's pages, and every terminal line, runs as printed.

On a small screen in which what the pages name is there; models stay at their linear start. The
guides and the gallery run in test_guides.py, the README in test_readme.py.
"""

from __future__ import annotations

import re
import shlex
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

mpl.use("Agg")

import matplotlib.pyplot as plt

import celldit as cd
from celldit.cli import app

from .neighbours import packages

ROOT = Path(__file__).resolve().parents[1]
PAGES = {page.stem: page.read_text("utf-8") for page in sorted((ROOT / "docs").glob("*.md"))}
LABELS = (
    "control", "STAT1", "IRF1", "JAK2", "IRF1+JAK2", "A", "B", "C", "KLF1", "MAP2K6", "KLF1+MAP2K6",
    "CBL", "CNN1", "IFNB", "dexamethasone",
)  # fmt: skip
GENES = ["ISG15", "IFIT1", "IFIT3", "MKI67", "TOP2A", "STAT1", "JAK2", "IRF1"]
#: Written for other packages; their syntax is looked at alone.
OTHERS = ("pt.", "cpa.", "model = GEARS", "model = CellFlow")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], flags=re.DOTALL)


@pytest.fixture(scope="module")
def screen(simulate_screen: Callable[..., ad.AnnData]) -> ad.AnnData:
    """Cells with all columns that a page names."""
    adata = simulate_screen(1200, 40, labels=("control", "control", *LABELS))
    adata.var_names = GENES + [f"gene{i}" for i in range(40 - len(GENES))]
    label, rng = adata.obs["perturbation"].astype(str), np.random.default_rng(0)
    adata.obs["replicate"] = adata.obs["donor"].replace({"d1": "rep_1", "d2": "rep_2"})
    adata.obs["batch"] = adata.obs["cell_line"] = adata.obs["replicate"]
    adata.obs["grna"] = label + "_g" + pd.Series(rng.integers(1, 3, adata.n_obs).astype(str)).values
    adata.obs["cell_type"] = rng.choice(["B", "NK", "CD4 T", "Treg"], adata.n_obs)
    adata.obs["total_umis"] = np.asarray(adata.X.sum(axis=1)).ravel() * 2.0
    adata.obs["dose_um"] = rng.choice([0.1, 0.5, 2.0], adata.n_obs)
    adata.obs.loc[label != "dexamethasone", "dose_um"] = 0.5
    adata.obs.loc[label == "control", "dose_um"] = 0.0
    adata.obs["drug"] = adata.obs["condition"] = label
    adata.obs["dose"] = adata.obs["dose_um"]
    return adata


def set_up(adata: ad.AnnData, **more: Any) -> ad.AnnData:
    adata = adata.copy()
    given = {"perturbation_key": "perturbation", "covariate_keys": ["replicate"], **more}
    cd.CellDiT.setup_anndata(adata, size_factor_key="total_umis", **given)
    return adata


@pytest.fixture(scope="module")
def model(screen: ad.AnnData) -> cd.CellDiT:
    made = cd.CellDiT(set_up(screen), "modules")
    made.train(0, enable_progress_bar=False)
    return made


@pytest.fixture(scope="module")
def predicted(screen: ad.AnnData, model: cd.CellDiT) -> ad.AnnData:
    return model.predict(set_up(screen), perturbations=["STAT1", "JAK2"])


@pytest.fixture(scope="module")
def effects(model: cd.CellDiT) -> pd.DataFrame:
    return model.predict_effects(["STAT1", "JAK2"])


@pytest.fixture
def linear(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Training and fine-tuning stop at the linear start, on the machine at hand."""
    train, fine_tune = cd.CellDiT.train, cd.CellDiT.fine_tune
    kept = ("seed", "checkpoint_dir", "checkpoint_minutes")

    def quick(model: cd.CellDiT, *_: Any, **options: Any) -> None:
        here = {name: value for name, value in options.items() if name in kept}
        train(model, 0, enable_progress_bar=False, **here)

    def gentle(model: cd.CellDiT, adata: ad.AnnData, **options: Any) -> cd.CellDiT:
        return fine_tune(model, adata, max_epochs=0, enable_progress_bar=False)

    monkeypatch.setattr(cd.CellDiT, "train", quick)
    monkeypatch.setattr(cd.CellDiT, "fine_tune", gentle)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    plt.close("all")


# --- Python -------------------------------------------------------------------------------------


def doses(adata: ad.AnnData) -> dict[str, Any]:
    return {"adata": set_up(adata, dose_key="dose_um", covariate_keys=[])}


def elsewhere(adata: ad.AnnData) -> dict[str, Any]:
    theirs = adata.copy()
    theirs.obs["perturbation"] = theirs.obs["perturbation"].replace(
        {"C": "GENE_THAT_ONLY_THEY_TRIED"}
    )
    return {"their_screen": set_up(theirs), "adata": set_up(adata)}


def described(adata: ad.AnnData) -> dict[str, Any]:
    names = [name for name in LABELS if name != "control" and "+" not in name]
    numbers = np.random.default_rng(0).normal(size=(len(names), 4))
    np.savez("esm2.npz", names=names, vectors=numbers)
    links = [f"{a}\t{b}\t0.9" for a, b in pairwise(names)]
    Path("string_links.tsv").write_text("\n".join(["gene1\tgene2\tscore", *links]))
    kept = adata.obs["perturbation"].isin(["control", "STAT1", "IRF1", "JAK2", "IRF1+JAK2"])
    return {"adata": set_up(adata[kept])}


def on_disk(adata: ad.AnnData) -> dict[str, Any]:
    adata.write_zarr("screen.zarr")
    return {"adata": set_up(adata), "WandbLogger": lambda: None}


def sets_in_a_file(adata: ad.AnnData) -> dict[str, Any]:
    lines = (
        f"SET{i}\thttps\t" + "\t".join(adata.var_names[i * 12 : i * 12 + 12]) for i in range(3)
    )
    Path("c5.go.bp.symbols.gmt").write_text("\n".join(lines))
    return {name: set_up(adata) for name in ("adata", "big_screen", "small_screen")}


def papalexi(adata: ad.AnnData) -> dict[str, Any]:
    return {"adata": set_up(adata)}


PREPARED: dict[str, Callable[[ad.AnnData], dict[str, Any]]] = {
    "cells_and_pairs": doses,
    "effects_elsewhere": elsewhere,
    "features": described,
    "scaling": on_disk,
    "tokenizers": sets_in_a_file,
}


def slow_apart(names: Iterable[str]) -> list[Any]:
    """Names of pages as parameters, those that take long marked."""
    slow = ("comparison", "scaling", "help")
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in names]


RUN = [name for name in PAGES if blocks(name, "python") and name not in ("gallery", "index")]


@pytest.mark.parametrize("page", slow_apart(RUN))
def test_python_runs_as_printed(
    page: str, screen: ad.AnnData, model: cd.CellDiT, predicted: ad.AnnData,
    effects: pd.DataFrame, linear: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    if page == "model_format":
        model.save("model")
    names: dict[str, Any] = {
        "cd": cd,
        "model": model,
        "predicted": predicted.copy(),
        "truth": set_up(screen),
        "control": set_up(screen),
        "effects": effects.copy(),
        **packages(),
        **PREPARED.get(page, papalexi)(screen.copy()),
    }
    for block in blocks(page, "python"):
        code = compile(block, page, "exec")
        if page == "comparison":  # Each pair of blocks is of other data.
            names |= papalexi(screen.copy())
        if not block.startswith(OTHERS):
            exec(code, names)


def test_the_home_page_has_the_ten_lines_of_the_readme() -> None:
    (shown,) = blocks("index", "python")
    readme = (ROOT / "README.md").read_text("utf-8")
    given = [re.sub(r"\s+#.*", "", line) for line in readme.splitlines()]
    told = [line for line in shown.splitlines() if not line.startswith("effects = ")]
    assert [line for line in told if line not in given] == []


# --- the terminal -------------------------------------------------------------------------------


def lines_of(text: str) -> list[str]:
    """The commands of a text's terminal blocks, a line each."""
    found = "\n".join(re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL))
    joined = [" ".join(line.split()) for line in found.replace("\\\n", " ").splitlines()]
    return [line for line in joined if "celldit " in line and not line.startswith(("pip", "#"))]


def examples() -> list[str]:
    """The examples in the help of the commands."""
    folder = ROOT / "celldit" / "cli" / "commands"
    texts = (path.read_text("utf-8") for path in sorted(folder.rglob("*.py")))
    found = [re.findall(r"Example: (celldit .*?)\n    \"\"\"", text, re.DOTALL) for text in texts]
    return [" ".join(example.split()) for examples in found for example in examples]


LINES = {
    "help": examples(),
    "README": lines_of((ROOT / "README.md").read_text("utf-8")),
    **{name: lines_of(text) for name, text in PAGES.items() if lines_of(text)},
}
#: Options whose file a line writes; it is not there before.
WRITTEN = ("-o", "--output", "--report", "--figure", "--cells", "--genes", "--points")


@pytest.fixture(scope="module")
def prepared(
    screen: ad.AnnData, model: cd.CellDiT, predicted: ad.AnnData, effects: pd.DataFrame,
    tmp_path_factory: Any, train_tiny: Any,
) -> Path:  # fmt: skip
    """A folder with what the lines read."""
    folder: Path = tmp_path_factory.mktemp("lines")
    set_up(screen).write_h5ad(folder / "screen.h5ad")
    set_up(screen, dose_key="dose_um", covariate_keys=[]).write_h5ad(folder / "drugs.h5ad")
    other = screen.copy()
    del other.obs["replicate"]
    other.write_h5ad(folder / "other_lab.h5ad")
    predicted.write_h5ad(folder / "predicted.h5ad")
    controls = screen[screen.obs["perturbation"] == "control"].copy()
    controls.write_h5ad(folder / "controls.h5ad")
    (folder / "panel.txt").write_text("\n".join(screen.var_names))
    effects.to_csv(folder / "effects.csv", index=False)
    model.save(folder / "model")
    controls.obs["day"] = 10 + np.arange(controls.n_obs) % 3 / 2
    cd.CellDiT.setup_anndata(controls, time_key="day")
    train_tiny(controls, max_epochs=0).save(folder / "timed")
    controls[controls.obs["day"] == 10].copy().write_h5ad(folder / "day10.h5ad")
    return folder


@pytest.mark.parametrize("page", slow_apart(LINES))
def test_terminal_lines_run_as_printed(
    page: str, prepared: Path, linear: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "at"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    for line in LINES[page]:
        words = shlex.split(line[line.index("celldit ") :].rstrip("&"))
        words = [re.sub(r"\$i/8", "1/1", word) for word in words]  # so few cells are one shard
        if line.startswith(("srun", "torchrun")):  # several machines
            words.append("--print-config")
        if "trajectory" in words:
            words = ["timed" if word == "model" else word for word in words]
        into = words.index(">") if ">" in words else len(words)
        for name, value in pairwise(words):
            if name in WRITTEN and "--print-config" not in words:
                shutil.rmtree(value, ignore_errors=True)
                Path(value).unlink(missing_ok=True)
        done = CliRunner().invoke(app, words[1:into])
        assert done.exit_code == 0, (line, done.output, done.exception)
        if into < len(words):
            Path(words[-1]).write_text(done.stdout)
        if page == "help":  # Each line starts from the same files.
            shutil.copytree(prepared, folder, dirs_exist_ok=True)


def shown_commands() -> dict[str, Any]:
    found = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return {name: one for name, one in found.items() if not one.hidden}


def test_every_command_has_an_example() -> None:
    shown = {line.split()[1] for line in LINES["help"]}
    assert set(shown_commands()) - shown == {"demo", "info"}


def test_commands_and_options_that_prose_names_exist() -> None:
    commands = shown_commands()
    texts = [*PAGES.items(), ("README", (ROOT / "README.md").read_text("utf-8"))]
    texts += [(page.stem, page.read_text("utf-8")) for page in (ROOT / "docs/guides").glob("*.md")]
    wrong = []
    for page, text in texts:
        for name, rest in re.findall(r"`celldit ([a-z][a-z-]+)([^`]*)`", text):
            known = {option for one in commands[name].params for option in one.opts}
            told = re.findall(r"(?<![\w-])--?[a-z][\w-]*", rest)
            wrong += [(page, name, option) for option in told if option not in known]
    assert wrong == []


def test_the_terminal_page_lists_every_command() -> None:
    listed = re.findall(r"^\| `celldit ([a-z-]+)", PAGES["terminal"], flags=re.MULTILINE)
    assert sorted(listed) == sorted(shown_commands())
