"""Scores of cell-eval on halves of Norman, which a test compares celldit's own with.

cell-eval and celldit need not be in one environment, so this runs in two steps:

    python notebooks/compare_cell_eval.py write halves/          # with celldit
    python notebooks/compare_cell_eval.py score halves/ tests/evaluation/cell_eval.json
                                                                 # with cell-eval
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path


def write(folder: Path) -> None:
    """Both halves with all control cells, in log expression."""
    import anndata as ad
    import numpy as np

    from celldit import datasets
    from celldit.data import Cells, setup_anndata

    adata = datasets.norman()
    fields = setup_anndata(adata, perturbation_key="perturbation", size_factor_key="total_umis")
    # The same halves as the fixture cell_eval_halves of the tests.
    rng = np.random.default_rng(0)
    half = np.zeros(adata.n_obs, dtype=bool)
    for rows in adata.obs.groupby("perturbation", observed=True).indices.values():
        half[rng.permutation(rows)[: len(rows) // 2]] = True
    is_control = (adata.obs["perturbation"] == "control").to_numpy()
    log = Cells.from_anndata(adata, fields).log_normalized()
    folder.mkdir(parents=True, exist_ok=True)
    for name, chosen in (("pred", half | is_control), ("real", ~half | is_control)):
        obs = adata.obs.loc[chosen, ["perturbation"]].copy()
        ad.AnnData(log[chosen], obs=obs, var=adata.var[[]].copy()).write_h5ad(folder / f"{name}.h5ad")


def score(folder: Path, output: Path) -> None:
    """cell-eval's values of every perturbation."""
    from cell_eval import MetricsEvaluator

    evaluator = MetricsEvaluator(
        adata_pred=str(folder / "pred.h5ad"),
        adata_real=str(folder / "real.h5ad"),
        control_pert="control",
        pert_col="perturbation",
        num_threads=1,
        outdir=str(folder / "out"),
    )
    results, _ = evaluator.compute(profile="full", write_csv=False)
    names = {
        "pearson": "pearson_delta",
        "discrimination": "discrimination_score_cosine",
        "discrimination_l1": "discrimination_score_l1",
        "de_overlap": "overlap_at_N",
        "de_direction": "de_direction_match",
    }
    table = {row["perturbation"]: row for row in results.to_dicts()}
    values = {
        ours: {p: row[theirs] for p, row in sorted(table.items())} for ours, theirs in names.items()
    }
    content = {"cell-eval": version("cell-eval"), "pdex": version("pdex"), "values": values}
    output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
    else:
        score(Path(sys.argv[2]), Path(sys.argv[3]))
