"""How long does each answer to a biologist's questions take, in Python and at the terminal?

On the bundled screens and one core, with a model that was trained before: each call once, its
figure drawn and written; and each command from the start of Python to its end. Seconds by the
clock, and of processor time, which other work on the machine does not lengthen.

    python notebooks/benchmarks/answers.py docs/results/answers.csv [FOLDER FOR THE FIGURES]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path

import anndata as ad
import matplotlib as mpl
import pandas as pd
import torch

import celldit as cd

PAPALEXI = ["--perturbation-key", "perturbation", "--covariate-key", "replicate",
            "--size-factor-key", "total_umis"]  # fmt: skip
NORMAN = ["--perturbation-key", "perturbation", "--size-factor-key", "total_umis"]
PAIRS = ["CBL+MAPK1", "KLF1+MAPK1", "CBL+KLF1", "MIDN+KLF1", "MIDN+NIT1", "FOXO4+KLF1"]


def papalexi(folder: Path) -> tuple[ad.AnnData, cd.CellDiT]:
    """The screen, a trained model, and both as files."""
    adata = cd.datasets.papalexi()
    cd.CellDiT.setup_anndata(
        adata, perturbation_key="perturbation", control="control", covariate_keys=["replicate"],
        size_factor_key="total_umis",
    )  # fmt: skip
    return trained(adata, folder / "papalexi")


def norman(folder: Path) -> tuple[ad.AnnData, cd.CellDiT]:
    """The same of the other screen."""
    adata = cd.datasets.norman()
    cd.CellDiT.setup_anndata(
        adata, perturbation_key="perturbation", control="control", size_factor_key="total_umis"
    )
    return trained(adata, folder / "norman")


def trained(adata: ad.AnnData, path: Path) -> tuple[ad.AnnData, cd.CellDiT]:
    """Train once."""
    adata.write_h5ad(path.with_suffix(".h5ad"))
    model = cd.CellDiT(adata)
    model.train(enable_progress_bar=False)
    model.save(path)
    return adata, model


def in_python(
    name: str, adata: ad.AnnData, model: cd.CellDiT, folder: Path
) -> dict[str, Callable[[], object]]:
    """Each answer with its figure."""
    first = "STAT1" if name == "Papalexi" else "KLF1"

    def figure(answer: str) -> Path:
        return folder / f"{name.lower()}_{answer}.png"

    def effects() -> None:
        table = cd.tl.effects(adata, model)
        cd.tl.ranked_genes(table)
        context = table["context"].iloc[0]
        cd.pl.volcano(table, first, context=context, save=figure("effects"))

    def next_perturbations() -> None:
        pairs = ["IRF1+JAK2", "IRF1+STAT1", "JAK2+STAT1"] if name == "Papalexi" else PAIRS
        cd.tl.next_perturbations(adata, model, pairs, n=2)

    def responders() -> None:
        cd.tl.responders(adata, guide_key="grna" if name == "Papalexi" else None)
        cd.pl.responders(adata, first, save=figure("responders"))

    def interactions() -> None:
        cd.tl.interactions(adata)
        cd.pl.interactions(adata, "KLF1+MAP2K6", save=figure("interactions"))

    found: dict[str, Callable[[], object]] = {
        "effects": effects,
        "next": next_perturbations,
        "responders": responders,
        "explore": lambda: cd.report.explore(adata, model, folder / f"{name.lower()}.html"),
        "summary": model.summary,
    }
    return found if name == "Papalexi" else {**found, "interactions": interactions}


def at_terminal(name: str, path: Path, folder: Path) -> dict[str, list[str]]:
    """The same as commands."""
    screen, model, out = f"{path}.h5ad", str(path), str(folder / "table.csv")
    figure = ["--figure", str(folder / "figure.pdf")]
    setup = PAPALEXI if name == "Papalexi" else NORMAN
    pairs = ["IRF1+JAK2", "IRF1+STAT1", "JAK2+STAT1"] if name == "Papalexi" else PAIRS
    found = {
        "effects": ["effects", model, screen, "-o", out],
        "next": ["next", model, *(part for pair in pairs for part in ("-c", pair)), "-n", "2"],
        "responders": ["responders", screen, "-o", out, *setup, *figure],
        "explore": ["explore", model, screen, "-o", str(folder / "terminal.html")],
        "summary": ["summary", model],
    }
    if name == "Papalexi":
        return found
    return {**found, "interactions": ["interactions", screen, "-o", out, *setup, *figure]}


def doses(folder: Path, kept: Path) -> tuple[Callable[[], object], list[str]]:
    """Dose-response curves of sci-Plex 2, which has doses."""
    drug = cd.datasets.sciplex2()
    cd.CellDiT.setup_anndata(
        drug, perturbation_key="perturbation", control="control", size_factor_key="total_umis",
        dose_key="dose_um",
    )  # fmt: skip
    drug.write_h5ad(folder / "drug.h5ad")

    def ask() -> None:
        curves = cd.tl.dose_response(drug)
        points = drug.uns["dose_response_points"]
        cd.pl.dose_response(points, curves=curves, save=kept / "dose_response.png")

    files = ["-o", str(folder / "curves.csv"), "--figure", str(folder / "figure.pdf")]
    setup = [*NORMAN, "--dose-key", "dose_um"]
    return ask, ["dose-response", str(folder / "drug.h5ad"), *files, *setup]


def timed(answer: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of processor time, children included."""
    start, busy = time.perf_counter(), sum(os.times()[:4])
    answer()
    return round(time.perf_counter() - start, 1), round(sum(os.times()[:4]) - busy, 1)


def command_line(words: list[str]) -> None:
    """Run a command, and stop where it fails."""
    again = ["--overwrite"] if "-o" in words else []
    subprocess.run(
        [sys.executable, "-m", "celldit", *words, *again], check=True, capture_output=True
    )


def main(out: Path, figures: Path | None) -> None:
    """Write one row for each answer and screen."""
    torch.set_num_threads(1)
    mpl.use("agg")
    warnings.simplefilter("ignore")
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        kept = folder if figures is None else figures
        kept.mkdir(parents=True, exist_ok=True)
        asked: list[tuple[str, str, Callable[[], object], list[str]]] = []
        for name, make in (("Papalexi", papalexi), ("Norman", norman)):
            adata, model = make(folder)
            words = at_terminal(name, folder / name.lower(), folder)
            for question, answer in in_python(name, adata, model, kept).items():
                asked.append((name, question, answer, words[question]))
        asked.append(("sci-Plex 2", "dose-response", *doses(folder, kept)))
        for name, question, answer, words in asked:
            row: dict[str, object] = {"screen": name, "answer": question}
            row["python"], row["python_busy"] = timed(answer)
            row["terminal"], row["terminal_busy"] = timed(partial(command_line, words))
            print(row, flush=True)
            rows.append(row)
    table = pd.DataFrame(rows)
    table["machine"], table["date"] = "x86_64, one core", date.today().isoformat()
    table.to_csv(out, index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
