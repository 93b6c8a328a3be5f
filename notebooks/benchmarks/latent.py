"""How well does the latent space give held-out cells back? celldit against scVI.

A fifth of the cells is held out (the same for every method). Each method learns from the rest with
its default training and encodes the held-out cells; the number reported is the negative
log-likelihood of their counts given their latent, in nats per cell. All latents have the same
number of dimensions.
scVI is given its best case: the latent is the mean of its posterior, and it knows each cell's total
count over exactly these genes, where celldit knows the library size of the whole cell.

    python notebooks/benchmarks/latent.py celldit --data kang --out docs/results/latent.csv
    python notebooks/benchmarks/latent.py scvi --data kang --out docs/results/latent.csv

The second needs `pip install scvi-tools`, best in an environment of its own; it needs no celldit.
Rows are appended, so that an interrupted run loses nothing. Peak memory is that of the process so
far, so each row of celldit is a call of its own.
"""

from __future__ import annotations

import argparse
import csv
import resource
import time
from pathlib import Path

import anndata as ad
import numpy as np
import torch
from scipy.stats import nbinom

FILES = {
    "kang": "kang_ifnb.h5ad",
    "baron": "baron_islets.h5ad",
    "papalexi": "papalexi_eccite.h5ad",
    "norman": "norman_crispra.h5ad",
}
COLUMNS = (
    "data", "method", "size_factor", "n_dims", "held_out_nll", "train_nll", "start_nll", "seconds",
    "peak_memory_mb", "epochs", "seed", "version",
)  # fmt: skip
DATA = Path(__file__).resolve().parents[2] / "data"
BATCH = 512


def split(n_cells: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Four fifths to learn from, one fifth to be judged by."""
    order = np.random.default_rng(seed).permutation(n_cells)
    n_held_out = round(0.2 * n_cells)
    return np.sort(order[n_held_out:]), np.sort(order[:n_held_out])


def memory() -> float:
    """Most memory that the process ever held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_celldit(name: str, seed: int) -> dict[str, object]:
    """The autoencoder of celldit, as CellDiT(adata).train() fits it."""
    import celldit as cd
    from celldit.data.cells import Cells
    from celldit.data.fields import Fields
    from celldit.latent import Autoencoder, LatentConfig
    from celldit.tokenizers import resolve

    adata = cd.datasets.load(name)
    cd.CellDiT.setup_anndata(adata, size_factor_key="total_umis")
    cells = Cells.from_anndata(adata, Fields.from_anndata(adata))
    train, test = (cells.take(rows) for rows in split(cells.n_cells, seed))

    @torch.no_grad()
    def nll(model: Autoencoder, some: Cells) -> float:
        total = 0.0
        for start in range(0, some.n_cells, BATCH):
            batch = some.take(slice(start, start + BATCH))
            counts = model.decode(model.encode(batch), torch.from_numpy(batch.size_factors))
            mean, theta = counts.mean_BG.double().numpy(), counts.theta_G.double().numpy()
            total -= nbinom.logpmf(batch.counts.toarray(), theta, theta / (theta + mean)).sum()
        return total / some.n_cells

    began = time.perf_counter()
    model = Autoencoder.fit(train, resolve("gene_sets").fit(train), LatentConfig(), seed)
    return {
        "method": "celldit",
        "size_factor": "whole cell",
        "n_dims": model.n_tokens * model.token_dim,
        "seconds": time.perf_counter() - began,
        "held_out_nll": nll(model, test),
        "train_nll": nll(model, train),
        "version": cd.__version__,
    }


def run_scvi(name: str, seed: int, n_dims: int, data: Path) -> dict[str, object]:
    """scVI with its default architecture and training."""
    import scvi

    scvi.settings.seed = seed
    adata = ad.read_h5ad(data / FILES[name])
    train, test = (adata[rows].copy() for rows in split(adata.n_obs, seed))
    scvi.model.SCVI.setup_anndata(train)
    began = time.perf_counter()
    model = scvi.model.SCVI(train, n_latent=n_dims, gene_likelihood="nb")
    model.train(accelerator="cpu", enable_progress_bar=False, logger=False)
    seconds = time.perf_counter() - began

    @torch.no_grad()
    def nll(some: ad.AnnData) -> float:
        total = 0.0
        model.module.eval()
        for tensors in model._make_data_loader(
            adata=model._validate_anndata(some), batch_size=BATCH
        ):
            inference = model.module.inference(**model.module._get_inference_input(tensors))
            inference["z"] = inference["qz"].loc
            generative = model.module.generative(
                **model.module._get_generative_input(tensors, inference)
            )
            total -= float(generative["px"].log_prob(tensors["X"]).double().sum())
        return total / some.n_obs

    return {
        "method": "scvi",
        "size_factor": "these genes",
        "n_dims": n_dims,
        "seconds": seconds,
        "held_out_nll": nll(test),
        "train_nll": nll(train),
        "epochs": len(model.history["train_loss"]) if "train_loss" in model.history else "",
        "version": scvi.__version__,
    }


def append(path: Path, row: dict[str, object]) -> None:
    """Add one row, with a header if the file is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        if is_new:
            writer.writeheader()
        rounded = {k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()}
        writer.writerow(rounded)
        print(rounded, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method", choices=("celldit", "scvi"))
    parser.add_argument("--data", nargs="+", choices=tuple(FILES), default=["kang"])
    parser.add_argument("--n-dims", type=int, default=48, help="of scVI; celldit's own are 48 here")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/results/latent.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.data:
        base = {"data": name, "seed": arguments.seed}
        if arguments.method == "scvi":
            row = run_scvi(name, arguments.seed, arguments.n_dims, DATA)
        else:
            row = run_celldit(name, arguments.seed)
        append(arguments.out, {**base, **row, "peak_memory_mb": memory()})


if __name__ == "__main__":
    main()
