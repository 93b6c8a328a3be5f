"""Of tables of effects: made, read, matched and used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

import celldit as cd
from celldit import CellDiT

from .case import Case, Scope
from .model import FAST, made


def table(s: Scope) -> ad.AnnData:
    """Of the screen itself."""
    return s.once("table of effects", lambda: cd.pp.effect_table(s.adata, min_cells=5)).copy()


def changed(s: Scope, change: Callable[[ad.AnnData], Any]) -> ad.AnnData:
    """The table after a change, which may give another one."""
    given = table(s)
    other = change(given)
    return other if isinstance(other, (ad.AnnData, pd.DataFrame)) else given


def of_mean(given: ad.AnnData) -> ad.AnnData:
    """One row for each perturbation, without contexts."""
    return given[~given.obs["perturbation"].duplicated().to_numpy()].copy()


def rows(s: Scope) -> pd.DataFrame:
    given = of_mean(table(s))
    wide = pd.DataFrame(given.X, list(given.obs["perturbation"]), list(given.var_names))
    long = wide.rename_axis("perturbation").reset_index()
    long = long.melt("perturbation", var_name="gene", value_name="log_fold_change")
    return long.assign(se=0.3)


def use(s: Scope, given: Any) -> CellDiT:
    return made(s, effects=given)


def train(s: Scope, given: Any, labels: tuple[str, ...] | None = None) -> CellDiT:
    adata = s.adata
    if labels is not None:
        adata = adata[adata.obs["perturbation"].isin(labels).to_numpy()].copy()
    model = CellDiT(adata, "modules", effects=given)
    model.train(0, config=FAST, enable_progress_bar=False)
    return model


def setting(name: str, value: Any) -> Callable[[ad.AnnData], None]:
    def change(given: ad.AnnData) -> None:
        given.obs[name] = value

    return change


def renamed(names: Callable[[str], str]) -> Callable[[ad.AnnData], None]:
    def change(given: ad.AnnData) -> None:
        given.var_names = [names(name) for name in given.var_names]

    return change


def infinite(given: ad.AnnData) -> None:
    given.X[0, 0] = np.inf


def without_numbers(given: ad.AnnData) -> None:
    given.X[:] = np.nan
    given.layers["se"][:] = np.nan


def without_errors(given: ad.AnnData) -> None:
    del given.layers["se"]


def without_log(given: ad.AnnData, labels: str = "Z") -> ad.AnnData:
    other = of_mean(given)
    other.obs["perturbation"] = [f"{labels}{i}" for i in range(other.n_obs)]
    del other.uns["effect_table"]
    return other


def said(given: ad.AnnData) -> ad.AnnData:
    given.uns["effect_table"] = {"log": "natural"}
    return given


def stored(s: Scope, name: str = "t.h5ad", text: str | None = None) -> Path:
    path = s.folder / name
    if text is None:
        table(s).write_h5ad(path)
    else:
        path.write_text(text)
    return path


def later(given: ad.AnnData) -> None:
    given.uns["effect_table"]["format"] = 99


def half_as_many_genes(given: ad.AnnData) -> ad.AnnData:
    return given[:, : given.n_vars // 3].copy()


def turned(s: Scope, sign: float) -> ad.AnnData:
    given = table(s)
    given.X = sign * given.X
    return given


NAMES = ["A", "B", "C"]


def features(s: Scope, name: str = "f.npz", write: Callable[[Path], Any] | None = None) -> CellDiT:
    """A model with features from a file."""
    path = s.folder / name
    if write is None:
        np.savez(path, names=np.array(NAMES), vectors=np.eye(3))
    else:
        write(path)
    return made(s, features=path)


def edges(score: float) -> pd.DataFrame:
    return pd.DataFrame({"from": ["A", "B"], "to": ["B", "C"], "score": [score, 1.0]})


def with_names(path: Path) -> None:
    np.save(path, np.eye(3))
    path.with_suffix(".txt").write_text("\n".join(NAMES))


def several(s: Scope, rename: Callable[[str], str] | None = None, **setup: Any) -> CellDiT:
    """Two halves of the screen as two screens, the second set up or named otherwise."""
    one, other = s.adata[::2].copy(), s.adata[1::2].copy()
    other.obs["total"] = 100.0
    s.setup(other, **setup)
    if rename is not None:
        other.var_names = [rename(gene) for gene in other.var_names]
    return CellDiT([one, other], "modules")


def backed(s: Scope) -> CellDiT:
    s.adata.copy().write_h5ad(s.folder / "s.h5ad")
    return CellDiT([s.adata, ad.read_h5ad(s.folder / "s.h5ad", backed="r")], "modules")


def right(call: Callable[[Scope], Any]) -> Callable[..., Any]:
    return lambda s, _: call(s)


WHOLE = right(lambda s: use(s, table(s)))
FROM_ROWS = right(lambda s: use(s, rows(s)))

CASES: dict[str, Case] = {
    "no table": Case(
        lambda s: use(s, 3), r"what cd\.pp\.effect_table gives", WHOLE
    ),
    "no file": Case(
        lambda s: use(s, s.folder / "none.h5ad"), "check the path",
        right(lambda s: use(s, stored(s))),
    ),
    "no table by its name": Case(
        lambda s: use(s, stored(s, "t.txt", "x")), r"give a (\.h5ad)",
        right(lambda s: use(s, stored(s))),
    ),
    "no table by its content": Case(
        lambda s: use(s, stored(s, "bad.h5ad", "x")), "cannot be read as a table of effects",
        right(lambda s: use(s, stored(s))),
    ),
    "a later format": Case(
        lambda s: use(s, changed(s, later)), "update celldit", WHOLE
    ),
    "empty": Case(
        lambda s: use(s, table(s)[:0].copy()), "needs rows of perturbations", WHOLE
    ),
    "empty rows": Case(
        lambda s: use(s, rows(s).iloc[:0]), "needs rows of perturbations", FROM_ROWS
    ),
    "no values": Case(
        lambda s: use(s, ad.AnnData(obs=table(s).obs, var=table(s).var)),
        "no X, which holds log fold changes", WHOLE,
    ),
    "genes twice": Case(
        lambda s: use(s, changed(s, renamed(lambda _: "gene0"))), "drop the duplicates", WHOLE
    ),
    "perturbations twice": Case(
        lambda s: use(s, changed(s, setting("context", ""))), "drop the duplicates",
        right(lambda s: use(s, of_mean(changed(s, setting("context", ""))))),
    ),
    "two directions": Case(
        lambda s: use(s, changed(s, lambda t: setting(
            "direction", ["activation", *["knock-out"] * (t.n_obs - 1)])(t))),
        "keep the rows of one direction",
        right(lambda s: use(s, changed(s, setting("direction", "knock-out")))),
    ),
    "a strange direction": Case(
        lambda s: use(s, changed(s, setting("direction", "up"))), "use '(knock-out)'",
        lambda s, found: use(s, changed(s, setting("direction", found[1]))),
    ),
    "a missing column": Case(
        lambda s: use(s, rows(s).drop(columns="gene")), "give perturbation, gene", FROM_ROWS
    ),
    "values that are none": Case(
        lambda s: use(s, rows(s).assign(log_fold_change="x")), "values that are not numbers",
        FROM_ROWS,
    ),
    "values twice": Case(
        lambda s: use(s, pd.concat([rows(s), rows(s)])), "drop or average",
        right(lambda s: use(s, pd.concat([rows(s), rows(s)]).drop_duplicates())),
    ),
    "other genes": Case(
        lambda s: use(s, changed(s, renamed(lambda g: f"x{g}"))), "names of the same kind", WHOLE
    ),
    "another species": Case(
        lambda s: use(s, changed(s, renamed(str.upper))), "names genes like another species",
        WHOLE,
    ),
    "few genes": Case(
        lambda s: use(s, changed(s, half_as_many_genes)), "follow from how genes vary", WHOLE
    ),
    "no errors": Case(
        lambda s: use(s, changed(s, without_errors)), r"layers\['se'\]", WHOLE
    ),
    "which logarithm": Case(
        lambda s: use(s, changed(s, without_log)), r'uns\["effect_table"\]',
        right(lambda s: use(s, said(changed(s, without_log)))),
    ),
    "infinite effects": Case(
        lambda s: train(s, changed(s, infinite)), "drop these rows or genes",
        right(lambda s: _quiet_train(s, changed(s, infinite)[1:].copy())),
    ),
    "no numbers": Case(
        lambda s: train(s, changed(s, without_numbers)), "no number for genes of the model",
        right(lambda s: _quiet_train(s, table(s))),
    ),
    "no cells enough": Case(
        lambda s: cd.pp.effect_table(s.adata, min_cells=10_000), "lower min_cells",
        right(lambda s: cd.pp.effect_table(s.adata, min_cells=5)),
    ),
    "a strange direction of a screen": Case(
        lambda s: cd.pp.effect_table(s.adata, direction="knockout"), "Did you mean '(.+?)'",
        lambda s, found: cd.pp.effect_table(s.adata, min_cells=5, direction=found[1]),
    ),
    "one screen": Case(
        lambda s: CellDiT([s.adata]), "or give one by itself|or one by itself",
        right(made),
    ),
    "screens of different covariates": Case(
        lambda s: several(s, covariate_keys=()), "with the same covariate_keys", right(several)
    ),
    "one screen with sizes": Case(
        lambda s: several(s, size_factor_key="total"), "or neither", right(several)
    ),
    "other separators": Case(
        lambda s: several(s, perturbation_sep="&"), "write them alike", right(several)
    ),
    "screens of other genes": Case(
        lambda s: several(s, rename=lambda gene: f"x{gene}"), "name genes alike", right(several)
    ),
    "a screen in a file": Case(
        backed, r"adata\.to_memory\(\)",
        right(lambda s: several(s)),
    ),
    "few controls": Case(
        lambda s: cd.pp.control_effects(s.adata[:40].copy()), "it needs 50",
        right(lambda s: cd.pp.control_effects(s.adata)),
    ),
    "a strange direction of a gene": Case(
        lambda s: cd.pp.control_effects(s.adata, direction={"gene1": "activate"}),
        "Did you mean '(.+?)'",
        lambda s, found: cd.pp.control_effects(s.adata, direction={"gene1": found[1]}),
    ),
    "features as a pickle": Case(
        lambda s: features(s, "f.pkl", lambda path: path.write_bytes(b"")), r"save .+ as \.npz",
        right(features),
    ),
    "no file of features": Case(
        lambda s: made(s, features=s.folder / "none.csv"), "check the path", right(features)
    ),
    "features of another kind": Case(
        lambda s: features(s, "f.doc", lambda path: path.write_text("x")), r"give one of .*\.npz",
        right(features),
    ),
    "numbers without names": Case(
        lambda s: features(s, "f.npy", lambda path: np.save(path, np.eye(3))),
        "put these, one a line",
        right(lambda s: features(s, "f.npy", with_names)),
    ),
    "names that do not fit": Case(
        lambda s: made(s, features=(np.eye(3), ["A"])), "one row for each name",
        right(lambda s: made(s, features=(np.eye(3), NAMES))),
    ),
    "several matrices": Case(
        lambda s: features(s, "f.npz", lambda path: np.savez(path, a=np.eye(3), b=np.eye(2))),
        "one matrix and one list of names", right(features),
    ),
    "features without numbers": Case(
        lambda s: made(s, features=ad.AnnData(obs=pd.DataFrame(index=NAMES))), "has no X",
        right(lambda s: made(s, features=ad.AnnData(np.eye(3), pd.DataFrame(index=NAMES)))),
    ),
    "edges without weights": Case(
        lambda s: features(s, "f.csv", lambda path: edges(0.0).to_csv(path, index=False)),
        "weights above 0",
        right(lambda s: features(s, "f.csv", lambda path: edges(0.5).to_csv(path, index=False))),
    ),
}  # fmt: skip


def _quiet_train(s: Scope, given: Any) -> None:
    """Trained; whether so few perturbations tell that a table helps is another matter."""
    from .model import without_warning

    without_warning(lambda: train(s, given), "holds (infinite|no number)")
