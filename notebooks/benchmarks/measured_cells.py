"""Who responded, pairs and doses: are the answers from measured cells right?

``responders``: screens are simulated in which it is known who responds; two guides of 300 cells, of
which 90% and 30% respond, against 500 controls in two batches, 80 genes, at five sizes of effects.
``calibration``: mean absolute difference between p and the share that responded, over tenths of p.
``share``: mean absolute error of the guides' shares; ``held``: how often their 90% intervals hold
them. "mixscape" stands for a method in the manner of Papalexi et al. (2021): each cell less the
mean of its 20 nearest controls, genes that change, the projection onto their mean difference, and
two normal distributions of which that of the controls is fixed, in rounds. On Papalexi's screen
itself, of cells with a knock-out of STAT1: the share without any count of STAT1 among those that
responded and the others, and among controls; and the share said to respond in ten fake
perturbations that controls were dealt into, which is 0 in truth.

``interactions``: kinds found for simulated pairs of each kind, and genes called, 25 pairs each.
``doses``: curves with a known EC50; of genes called, how often 90% intervals hold EC50 and the
curve; and genes called on sci-Plex 2 and with its doses permuted.

    python notebooks/benchmarks/measured_cells.py docs/results/measured_cells.csv
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse, stats
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

import celldit as cd
from celldit.analysis.dose_curves import fit_curves
from celldit.data import Cells
from celldit.data.fields import Fields

SIZES, N_SEEDS = (0.15, 0.3, 0.6, 1.0, 1.5), 10
SHARES = {"g0": 0.9, "g1": 0.3}
RULES = {
    "additive": lambda a, b, own: a + b,
    "synergy": lambda a, b, own: 1.7 * (a + b),
    "buffering": lambda a, b, own: 0.5 * (a + b),
    "epistasis": lambda a, b, own: a,
    "neomorphic": lambda a, b, own: own,
}
PAPALEXI = {"covariate_keys": ["replicate"], "size_factor_key": "total_umis"}


def prepared(adata: ad.AnnData, **setup: object) -> ad.AnnData:
    """The same cells, set up."""
    cd.CellDiT.setup_anndata(adata, perturbation_key="perturbation", control="control", **setup)
    return adata


def counted(log_NG: np.ndarray, obs: dict, rng: np.random.Generator) -> ad.AnnData:
    """Overdispersed counts with these log means."""
    counts = rng.poisson(np.exp(log_NG) * rng.gamma(6, 1 / 6, (len(log_NG), 1)))
    counts[:, 0] += 1  # no empty cell
    names = [f"cell{i}" for i in range(len(log_NG))]
    return ad.AnnData(
        sparse.csr_matrix(counts.astype(np.float32)), obs=pd.DataFrame(obs, index=names)
    )


def escapers(size: float, seed: int) -> tuple[ad.AnnData, np.ndarray]:
    """A screen, and who responded."""
    rng = np.random.default_rng(seed)
    guide = np.repeat([*SHARES, "NT"], [300, 300, 500])
    n, n_genes = len(guide), 80
    batch = rng.integers(0, 2, n)
    log_NG = np.log(rng.gamma(1.0, 2.0, n_genes)) + rng.normal(size=(n, 2)) @ rng.normal(
        0, 0.2, (2, n_genes)
    )
    log_NG[batch == 1] += rng.normal(0, 0.4, n_genes)
    responds = rng.random(n) < pd.Series(guide).map(SHARES).fillna(0.0).to_numpy()
    log_NG[responds] += size * rng.normal(size=n_genes) * (rng.random(n_genes) < 0.25)
    label = np.where(guide == "NT", "control", "A")
    obs = {"perturbation": label, "batch": [f"b{b}" for b in batch], "guide": guide}
    return prepared(counted(log_NG, obs, rng), covariate_keys=["batch"]), responds


def mixscape(adata: ad.AnnData, label: str) -> np.ndarray:
    """Probability that each cell of a perturbation was perturbed; see above."""
    cells = Cells.from_anndata(adata, Fields.from_anndata(adata))
    chosen = (cells.perturbations == label) | cells.is_control
    cells = cells.take(np.flatnonzero(chosen))
    log_NG, control_N = cells.log_normalized().toarray(), cells.is_control
    signature_NG = np.zeros_like(log_NG)
    for context in np.unique(cells.contexts):
        own = np.flatnonzero(cells.contexts == context)
        controls = own[control_N[own]]
        space = PCA(min(20, len(own) - 1, log_NG.shape[1]), random_state=0).fit_transform(
            log_NG[own]
        )
        near = NearestNeighbors(n_neighbors=21).fit(space[control_N[own]])
        # A control is not its own neighbour.
        found = near.kneighbors(space, return_distance=False)
        found = np.where(control_N[own][:, None], found[:, 1:], found[:, :-1])
        signature_NG[own] = log_NG[own] - log_NG[controls][found].mean(axis=1)
    change = stats.ttest_ind(log_NG[~control_N], log_NG[control_N], equal_var=False)
    size_G = log_NG[~control_N].mean(0) - log_NG[control_N].mean(0)
    p_G = np.nan_to_num(change.pvalue, nan=1.0)
    genes = (stats.false_discovery_control(p_G) < 0.05) & (np.abs(size_G) > 0.1)
    p_P = np.zeros(int((~control_N).sum()))
    if genes.sum() < 5:
        return p_P
    perturbed_P = np.ones(len(p_P), dtype=bool)
    for _ in range(10):
        mean_G = signature_NG[~control_N][perturbed_P].mean(0) - signature_NG[control_N].mean(0)
        direction_G = np.where(genes, mean_G, 0)
        score_N = signature_NG @ direction_G / max(float(direction_G @ direction_G), 1e-12)
        p_P = two_normals(score_N[~control_N], score_N[control_N])
        if ((p_P > 0.5) == perturbed_P).all() or not (p_P > 0.5).any():
            break
        perturbed_P = p_P > 0.5
    return p_P


def two_normals(score_P: np.ndarray, control_M: np.ndarray) -> np.ndarray:
    """Probability of the second of two normal distributions, the first that of the controls."""
    null_P = stats.norm.pdf(score_P, control_M.mean(), control_M.std())
    share, mean, sd = 0.5, float(score_P.mean()) + float(control_M.std()), float(score_P.std())
    p_P = np.zeros(len(score_P))
    for _ in range(200):
        own_P = share * stats.norm.pdf(score_P, mean, sd)
        p_P = own_P / (own_P + (1 - share) * null_P + 1e-300)
        share, total = float(p_P.mean()), max(float(p_P.sum()), 1e-9)
        mean = float(p_P @ score_P) / total
        sd = max(float(p_P @ (score_P - mean) ** 2 / total) ** 0.5, 0.1 * float(control_M.std()))
    return p_P


def calibration(p_N: np.ndarray, responded_N: np.ndarray) -> float:
    """Mean absolute difference over tenths of p."""
    tenth_N = np.minimum((10 * p_N).astype(int), 9)
    parts = [np.flatnonzero(tenth_N == k) for k in range(10)]
    off = [abs(float(p_N[own].sum() - responded_N[own].sum())) for own in parts]
    return sum(off) / len(p_N)


def of_responders() -> Iterator[dict[str, object]]:
    """On simulated screens and on Papalexi."""
    for size in SIZES:
        found: dict[str, list[dict[str, float]]] = {"celldit": [], "mixscape": []}
        pooled: dict[str, list[np.ndarray]] = {"celldit": [], "mixscape": [], "truth": []}
        for seed in range(N_SEEDS):
            adata, truth = escapers(size, seed)
            perturbed = (adata.obs["perturbation"] == "A").to_numpy()
            table = cd.tl.responders(adata, guide_key="guide").set_index("guide")
            ps = {"celldit": adata.obs["p_responded"].to_numpy()[perturbed],
                  "mixscape": mixscape(adata, "A")}  # fmt: skip
            responded, guide = truth[perturbed], adata.obs["guide"].to_numpy()[perturbed]
            pooled["truth"].append(responded)
            for name, p in ps.items():
                pooled[name].append(p)
                off = [abs(p[guide == g].mean() - responded[guide == g].mean()) for g in SHARES]
                found[name].append({"auc": roc_auc_score(responded, p), "share": np.mean(off)})
            held = [row.low <= responded[guide == row.Index].mean() <= row.high
                    for row in table.itertuples()]  # fmt: skip
            found["celldit"][-1]["held"] = np.mean(held)
            found["celldit"][-1]["size"] = table["size"].iloc[0]
        truth_N = np.concatenate(pooled["truth"])
        for name, rows in found.items():
            values = pd.DataFrame(rows).mean().to_dict()
            values["calibration"] = calibration(np.concatenate(pooled[name]), truth_N)
            yield from tidy("responders", f"simulated, effects {size}", name, values)
    yield from on_papalexi()


def on_papalexi() -> Iterator[dict[str, object]]:
    """Knock-outs of STAT1, and fake perturbations."""
    adata = prepared(cd.datasets.papalexi(), **PAPALEXI)
    cd.tl.responders(adata, guide_key="grna")
    label = adata.obs["perturbation"].astype(str).to_numpy()
    silent = np.asarray(adata[:, "STAT1"].X.todense()).ravel() == 0
    own = label == "STAT1"
    ps = {"celldit": adata.obs["p_responded"].to_numpy()[own], "mixscape": mixscape(adata, "STAT1")}
    for name, p in ps.items():
        values = {
            "share": p.mean(),
            "silent, responded": np.average(silent[own], weights=p),
            "silent, did not": np.average(silent[own], weights=1 - p),
            "silent, controls": silent[label == "control"].mean(),
        }
        yield from tidy("responders", "Papalexi, STAT1", name, values)
    shares: dict[str, list[float]] = {"celldit": [], "mixscape": []}
    low = []
    for seed in range(N_SEEDS):
        fake = adata[label == "control"].copy()
        number = np.random.default_rng(seed).integers(0, 20, fake.n_obs)
        fake.obs["perturbation"] = [f"fake{n}" if n < 10 else "control" for n in number]
        table = cd.tl.responders(prepared(fake, **PAPALEXI))
        shares["celldit"] += table["share"].tolist()
        low += (table["low"] > 0).tolist()
        shares["mixscape"] += [float(mixscape(fake, f"fake{n}").mean()) for n in range(3)]
    for name, every in shares.items():
        values = {"share": np.mean(every), "largest share": max(every)}
        values |= {"intervals above 0": np.mean(low)} if name == "celldit" else {}
        yield from tidy("responders", "Papalexi, fake perturbations", name, values)


def pair_screen(rule: str, n_cells: int, seed: int) -> ad.AnnData:
    """Controls, two single perturbations and their pair."""
    rng = np.random.default_rng(seed)
    n_genes = 150
    base_G = np.log(rng.gamma(1.0, 3.0, n_genes) + 0.05)
    a, b, own = (0.7 * rng.normal(size=n_genes) * (rng.random(n_genes) < 0.2) for _ in range(3))
    effects = {"control": 0 * a, "A": a, "B": b, "A+B": RULES[rule](a, b, own)}
    label = np.repeat(list(effects), n_cells)
    log_NG = base_G + np.repeat(list(effects.values()), n_cells, axis=0)
    log_NG = log_NG + rng.normal(size=(len(label), 3)) @ rng.normal(0, 0.2, (3, n_genes))
    adata = counted(log_NG, {"perturbation": label, "umis": 1e4}, rng)
    return prepared(adata, size_factor_key="umis")


def of_interactions() -> Iterator[dict[str, object]]:
    """Simulated pairs of each kind, and those of Norman."""
    for n_cells in (60, 300):
        for rule in RULES:
            kinds, called, z = [], [], []
            for seed in range(25):
                row = cd.tl.interactions(pair_screen(rule, n_cells, seed)).iloc[0]
                kinds.append(row["kind"])
                called.append(row["n_genes"])
                z.append((row["total"] - 1) / row["total_sd"])
            values = {f"kind: {k}": n / 25 for k, n in pd.Series(kinds).value_counts().items()}
            values["genes called of 150"] = np.mean(called)
            if rule == "additive":
                values["sd of z of the total"] = np.std(z)
            yield from tidy("interactions", f"simulated {rule}, {n_cells} cells", "celldit", values)
    norman = prepared(cd.datasets.norman(), size_factor_key="total_umis")
    for row in cd.tl.interactions(norman).itertuples():
        values = {"total": row.total, "total_sd": row.total_sd, "genes called of 500": row.n_genes,
                  f"kind: {row.kind}": 1}  # fmt: skip
        yield from tidy("interactions", f"Norman, {row.perturbation}", "celldit", values)


def of_doses() -> Iterator[dict[str, object]]:
    """Known curves with known noise; sci-Plex 2, and with its doses permuted."""
    rng, dose_D, n = np.random.default_rng(0), np.array([0.1, 0.5, 1, 5, 10, 50, 100.0]), 3000
    responds = rng.random(n) < 0.3
    largest, ec50 = np.where(responds, rng.normal(0, 1, n), 0), np.exp(rng.uniform(-3, 5.3, n))
    slope = np.exp(rng.uniform(np.log(0.5), np.log(4), n))
    true_DG = largest / (1 + (ec50 / dose_D[:, None]) ** slope)
    variance_DG, control_G = rng.uniform(0.05, 0.2, (7, n)) ** 2, rng.uniform(0.05, 0.2, n) ** 2
    measured_DG = true_DG + np.sqrt(variance_DG) * rng.normal(size=true_DG.shape)
    measured_DG -= np.sqrt(control_G) * rng.normal(size=n)
    fit = fit_curves(dose_D, measured_DG, variance_DG, control_G, rng)
    sure, (low, middle, high) = fit.lfsr_G < 0.05, fit.ec50_3G
    in_range = sure & (fit.in_range_G > 0.9)
    values = {
        "responding": responds.sum(),
        "called": sure.sum(),
        "called wrongly": (np.sign(fit.largest_G) != np.sign(largest))[sure].mean(),
        "EC50 held": ((low <= ec50) & (ec50 <= high))[sure].mean(),
        "curve held": ((fit.fitted_3DG[0] <= true_DG) & (true_DG <= fit.fitted_3DG[2]))[
            :, sure
        ].mean(),
        "factor off, in range": np.exp(np.median(np.abs(np.log(middle / ec50))[in_range])),
    }
    yield from tidy("doses", "simulated", "celldit", values)
    drug = cd.datasets.sciplex2()
    setup = {"size_factor_key": "total_umis", "dose_key": "dose_um"}
    curves = cd.tl.dose_response(prepared(drug, **setup)).set_index("gene")
    angptl4 = curves[curves.index.str.startswith("ENSG00000167772")].iloc[0]
    values = {"called": (curves["lfsr"] < 0.05).sum(), "ANGPTL4: lfsr": angptl4["lfsr"],
              "ANGPTL4: EC50": angptl4["ec50"]}  # fmt: skip
    called = []
    for seed in range(N_SEEDS):
        order = np.random.default_rng(seed).permutation(drug.n_obs)
        shuffled = drug.copy()
        for name in ("perturbation", "dose_um"):
            shuffled.obs[name] = drug.obs[name].to_numpy()[order]
        called.append((cd.tl.dose_response(shuffled)["lfsr"] < 0.05).sum())
    values["called, doses permuted"] = np.mean(called)
    yield from tidy("doses", "sci-Plex 2, dexamethasone", "celldit", values)


def tidy(question: str, data: str, method: str, values: dict) -> Iterator[dict[str, object]]:
    """One row for each number."""
    for name, value in values.items():
        row = {"question": question, "data": data, "method": method, "quantity": name,
               "value": round(float(value), 4)}  # fmt: skip
        print(row, flush=True)
        yield row


def main(out: Path) -> None:
    """Write a row for each number."""
    rows = [*of_responders(), *of_interactions(), *of_doses()]
    table = pd.DataFrame(rows)
    table["machine"], table["date"] = "x86_64, one core", date.today().isoformat()
    table.to_csv(out, index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
