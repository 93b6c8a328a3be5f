"""What errors and warnings tell to do can be done, and helps."""

from __future__ import annotations

import ast
import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy
from scipy import sparse

import celldit as cd
from celldit import CellDiT
from celldit.cli.wording import OPTIONS
from celldit.errors import CellditError
from celldit.inference.maps.edit import EditConfig
from celldit.latent import LatentConfig
from celldit.pretrained import Pretrained
from celldit.tokenizers import GeneSets
from celldit.training import TrainingConfig

PACKAGE = Path(cd.__file__).parent
SETUP: dict[str, Any] = {"perturbation_key": "perturbation", "covariate_keys": ["donor"]}


# --- carried out ---------------------------------------------------------------------------------


def code_in(message: str) -> str:
    """The statement that a message ends with."""
    found = re.findall(r"(?:^|: | with |call )((?:adata|sc|spelt|scipy)\b[^;]*[)\]])", message)
    assert found, message
    return str(found[-1])


def argument_in(message: str) -> dict[str, Any]:
    """The arguments that a message tells to pass."""
    told = re.findall(r"pass ((?:\w+=(?:'[^']*'|\[[^\]]*\]|\"[^\"]*\"|\w+)(?:, )?)+)", message)
    assert told, message
    return dict(eval(f"dict({told[-1]})"))


def doubled_genes(adata: ad.AnnData) -> None:
    adata.var_names = [f"gene{i // 2}" for i in range(adata.n_vars)]


def empty_cells(adata: ad.AnnData) -> None:
    counts = adata.X.toarray()
    counts[:5] = 0
    adata.X = sparse.csr_matrix(counts)


def missing_labels(adata: ad.AnnData) -> None:
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(object)
    adata.obs.iloc[3, 0] = None


def missing_donors(adata: ad.AnnData) -> None:
    adata.obs["donor"] = adata.obs["donor"].astype(object)
    adata.obs.iloc[3, 1] = np.nan


def antibodies(adata: ad.AnnData) -> None:
    adata.var["feature_types"] = ["Gene Expression"] * 38 + ["Antibody Capture"] * 2


def unassigned(adata: ad.AnnData) -> None:
    adata.obs["perturbation"] = adata.obs["perturbation"].replace({"C": "multiplet"})


def several_cases(adata: ad.AnnData) -> None:
    labels = adata.obs["perturbation"].to_numpy(dtype=object)
    labels[5] = "Control"
    adata.obs["perturbation"] = labels


STATEMENTS = [
    doubled_genes, empty_cells, missing_labels, missing_donors, antibodies, unassigned,
    several_cases,
]  # fmt: skip


@pytest.mark.parametrize("spoil", STATEMENTS)
def test_statements_that_are_told_help(
    tiny_screen: ad.AnnData, spoil: Callable[[ad.AnnData], None]
) -> None:
    spoil(tiny_screen)
    told = said_by(lambda: CellDiT.setup_anndata(tiny_screen, **SETUP))
    scope: dict[str, Any] = {"adata": tiny_screen, "sc": sc, "scipy": scipy}
    exec(code_in(told), scope)
    assert said_by(lambda: CellDiT.setup_anndata(scope["adata"], **SETUP)) == ""


def said_by(use: Callable[[], Any]) -> str:
    """What is said, as an error or a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:
            use()
        except (CellditError, UserWarning) as said:
            return str(said)
    return ""


def renamed(adata: ad.AnnData, **names: str) -> None:
    adata.obs["perturbation"] = adata.obs["perturbation"].replace(names)


def in_a_layer(adata: ad.AnnData) -> None:
    adata.layers["umis"] = adata.X.copy()
    adata.X = sparse.csr_matrix(np.log1p(adata.X.toarray()))


ARGUMENTS: dict[str, Callable[[ad.AnnData], None]] = {
    "another control": lambda a: renamed(a, control="DMSO"),
    "another spelling of the control": lambda a: renamed(a, control="Control"),
    "several controls": lambda a: renamed(a, C="non-targeting"),
    "another joiner": lambda a: renamed(a, **{"A+B": "A_B"}),
    "the separator in names": lambda a: renamed(a, **{"A+B": "(+)-AB", "C": "A"}),
    "counts in a layer": in_a_layer,
}


@pytest.mark.parametrize("what", ARGUMENTS)
def test_arguments_that_are_told_help(tiny_screen: ad.AnnData, what: str) -> None:
    ARGUMENTS[what](tiny_screen)
    told = said_by(lambda: CellDiT.setup_anndata(tiny_screen, **SETUP))
    more = argument_in(told)
    assert said_by(lambda: CellDiT.setup_anndata(tiny_screen, **{**SETUP, **more})) == ""
    model = CellDiT(tiny_screen, "modules")
    assert any(condition.is_control for condition in model.conditions)


def test_arguments_of_guides_and_features_help(tiny_screen: ad.AnnData) -> None:
    tiny_screen.obs["guide"] = ["STAT1_1;JAK2_1", "NT_1", "STAT1_2"] * 160
    told = said_by(lambda: cd.pp.merge_guides(tiny_screen, "guide", sep="|"))
    assert said_by(lambda: cd.pp.merge_guides(tiny_screen, "guide", **argument_in(told))) == ""
    told = said_by(lambda: cd.pp.gene_features(tiny_screen, source="hallmark"))
    assert "allow_missing=True" in told
    table = cd.pp.gene_features(tiny_screen, source="hallmark", allow_missing=True)
    assert len(table)


def test_existing_outputs(tiny_model: Any, tiny_screen: ad.AnnData, tmp_path: Path) -> None:
    tiny_model.save(tmp_path / "model")
    told = said_by(lambda: tiny_model.save(tmp_path / "model"))
    assert argument_in(told) == {"overwrite": True}
    tiny_model.save(tmp_path / "model", overwrite=True)
    out = tmp_path / "out.h5ad"
    tiny_model.predict(tiny_screen, perturbations="A", out=out)
    told = said_by(lambda: tiny_model.predict(tiny_screen, perturbations="A", out=out))
    tiny_model.predict(tiny_screen, perturbations="A", out=out, **argument_in(told))


def test_files_by_columns(tiny_screen: ad.AnnData, tmp_path: Path) -> None:
    tiny_screen.X = sparse.csc_matrix(tiny_screen.X)
    tiny_screen.write_h5ad(tmp_path / "a.h5ad")
    told = said_by(lambda: cd.open_store(tmp_path / "a.h5ad"))
    assert "convert it with scipy.sparse.csr_matrix, and write it again" in told
    tiny_screen.X = scipy.sparse.csr_matrix(tiny_screen.X)
    tiny_screen.write_h5ad(tmp_path / "a.h5ad")
    assert cd.open_store(tmp_path / "a.h5ad").n_cells == tiny_screen.n_obs


# --- looked up -----------------------------------------------------------------------------------


def sentences() -> Iterator[tuple[str, str]]:
    """Every text of the package that could be part of a message, with its place."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documented = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "…" for v in node.values]
                yield f"{path.name}:{node.lineno}", "".join(map(str, parts))
            elif (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and id(node) not in documented
            ):
                yield f"{path.name}:{node.lineno}", node.value


def public() -> list[Callable[..., Any]]:
    """Functions and classes that users call."""
    modules = [cd, cd.pp, cd.tl, cd.pl, cd.datasets, cd.data]
    found = [getattr(m, n) for m in modules for n in dir(m) if not n.startswith("_")]
    found += [getattr(CellDiT, n) for n in dir(CellDiT) if not n.startswith("_")]
    found += [CellDiT, LatentConfig, TrainingConfig, EditConfig, Pretrained, GeneSets]
    return [f for f in found if callable(f)]


def test_arguments_in_messages_exist() -> None:
    known = set(OPTIONS)
    for function in public():
        try:
            known |= set(inspect.signature(function).parameters)
        except (TypeError, ValueError):
            continue
    # Of scanpy's, Lightning's and the flow's own functions.
    known |= {"min_counts", "accelerator", "devices", "strategy", "num_nodes", "precision", "noise"}
    told = re.compile(r"(?:pass|with|leave out|give|choose|set|use) (\w+)=")
    unknown = {
        (place, name)
        for place, text in sentences()
        for name in told.findall(text)
        if name not in known and name.islower()
    }
    assert not unknown


def test_functions_in_messages_exist() -> None:
    homes: dict[str, Any] = {
        "cd": cd,
        "celldit": cd,
        "CellDiT": CellDiT,
        "model": CellDiT,
        "sc": sc,
    }
    homes["adata"] = ad.AnnData
    call = re.compile(r"\b(cd|celldit|CellDiT|model|sc|adata)((?:\.[A-Za-z_]\w*)+)\(")
    lost = []
    for place, text in sentences():
        for home, names in call.findall(text):
            found: Any = homes[home]
            for name in names.strip(".").split("."):
                instance = name in ("obs", "var", "obs_names", "var_names", "raw", "X", "layers")
                if home == "adata" and instance:
                    break
                found = getattr(found, name, None)
                if found is None:
                    lost.append((place, home + names))
                    break
    assert {name for _, name in lost} <= {"cd.tl.name"}  # which stands for any
