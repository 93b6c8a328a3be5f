"""Scores of cell-eval on halves of the bundled screens, which a test compares celldit's own with.

    pip install 'celldit[eval]'
    python notebooks/compare_cell_eval.py tests/evaluation/cell_eval.json
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import anndata as ad
import numpy as np
from cell_eval import MetricsEvaluator

from celldit import datasets
from celldit.data import Cells, setup_anndata

STRONG = ("IFNGR1", "IFNGR2", "IRF1", "JAK2", "SMAD4", "STAT1")
# Of shifts, not of tests.
OTHERS = (
    "pearson_delta",
    "mse_delta",
    "discrimination_score_cosine",
    "discrimination_score_l1",
)


def screens() -> dict[str, tuple[ad.AnnData, str]]:
    """Norman, strong knock-outs of Papalexi in one replicate, and one cell type of Kang.

    With the column of the perturbation. Nothing to a few dozen genes differ in the first two, some
    hundreds in the third, so that the measures of the top k genes differ, too.
    """
    papalexi, kang = datasets.papalexi(), datasets.kang()
    wanted = papalexi.obs["perturbation"].isin([*STRONG, "control"])
    wanted &= papalexi.obs["replicate"] == "rep_2"
    monocytes = kang.obs["cell_type"] == "CD14 Mono"
    return {
        "norman": (datasets.norman(), "perturbation"),
        "papalexi": (papalexi[wanted].copy(), "perturbation"),
        "kang": (kang[monocytes].copy(), "condition"),
    }


def halves(adata: ad.AnnData, key: str) -> tuple[ad.AnnData, ad.AnnData]:
    """Both halves with all control cells, in log expression; the tests draw the same."""
    known = setup_anndata(adata, perturbation_key=key, size_factor_key="total_umis")
    rng = np.random.default_rng(0)
    half = np.zeros(adata.n_obs, dtype=bool)
    for rows in adata.obs.groupby(key, observed=True).indices.values():
        half[rng.permutation(rows)[: len(rows) // 2]] = True
    is_control = (adata.obs[key] == "control").to_numpy()
    log = Cells.from_anndata(adata, known).log_normalized()
    sides = []
    for chosen in (half | is_control, ~half | is_control):
        obs = adata.obs.loc[chosen, [key]].rename(columns={key: "perturbation"})
        sides.append(ad.AnnData(log[chosen], obs=obs, var=adata.var[[]].copy()))
    return sides[0], sides[1]


def scores(predicted: ad.AnnData, real: ad.AnnData) -> dict[str, dict[str, float | None]]:
    """Every measure of differential expression that cell-eval has, and some others."""
    with tempfile.TemporaryDirectory() as folder:
        evaluator = MetricsEvaluator(
            adata_pred=predicted,
            adata_real=real,
            control_pert="control",
            pert_col="perturbation",
            num_threads=1,
            outdir=str(Path(folder) / "tests"),
        )
        tests, _ = evaluator.compute(profile="de", write_csv=False, break_on_error=True)
        names = [name for name in tests.columns if name != "perturbation"]
        everything, _ = evaluator.compute(
            profile="full",
            # One number for all perturbations, from distances or graphs of their own kind.
            skip_metrics=["clustering_agreement", "pearson_edistance"],
            write_csv=False,
        )
    rows = sorted(everything.to_dicts(), key=lambda row: row["perturbation"])
    # What is not a number in one place is nothing in another; JSON knows nothing only.
    return {
        name: {
            row["perturbation"]: None if row[name] is None or np.isnan(row[name]) else row[name]
            for row in rows
        }
        for name in (*names, *OTHERS)
    }


def main(output: Path) -> None:
    content = {
        "cell-eval": version("cell-eval"),
        "pdex": version("pdex"),
        "values": {
            name: scores(*halves(adata, key)) for name, (adata, key) in screens().items()
        },
    }
    output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
