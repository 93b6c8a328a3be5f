"""What the transformer adds: effect model alone, the network in full, and the share chosen.

One model is trained without the network. Another is trained with it and asked twice, with the
weight that cross-validation chose and in full (``model.weighted``). Scores are means over two draws
of the counts.

    python notebooks/benchmarks/transformer.py docs/results/transformer.csv --seeds 0 1 2
    python notebooks/benchmarks/transformer.py docs/results/transformer.csv --write

Rows are appended; what has rows is not run again. ``--data`` names a folder with screens that
celldit does not bundle (``tal1_chimera.h5ad``). ``--variants`` runs the ablation: what tokens are
(slices of the latent, random views, modules, gene sets of two collections) and how cells are
paired.
"""

from __future__ import annotations

import argparse
import platform
import time
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from appended import append_missing
from held_out import cases
from pages import put
from scores import Scorer

import celldit as cd
from celldit.nn.dit import DiTConfig
from celldit.tokenizers import GeneSets
from celldit.training import TrainingConfig

COLUMNS = [
    "problem", "variant", "seed", "used", "weight", "pearson", "nmse", "energy",
    "train_seconds", "predict_seconds", "date", "machine",
]  # fmt: skip


N_DRAWS = 2
PAGE = "docs/transformer.md"


@dataclass(frozen=True)
class Variant:
    """One way to make and train the network."""

    tokenizer: Any = None
    network: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


def variants() -> dict[str, Variant]:
    """The product, and what it is compared with."""
    made = {"default": Variant()}
    tokens = {
        "slices": {"network": {"tokens": "latent"}},
        "random": {"network": {"tokens": "random"}},
        "modules": {"tokenizer": "modules"},
        "Hallmark": {"tokenizer": "gene_sets"},
        "Reactome": {"tokenizer": reactome},
    }
    for name, how in tokens.items():
        for pairs, coupling in (("random pairs", "independent"), ("OT pairs", "ot")):
            made[f"{name}, {pairs}"] = Variant(**how, training={"coupling": coupling})
    return made


def reactome() -> GeneSets:
    """Gene sets of Reactome."""
    return GeneSets(cd.datasets.gene_set_file("reactome"))


def run(name: str, variant_name: str, seed: int, folder: Path | None) -> list[dict[str, Any]]:
    """Train one model and score it at three weights."""
    problem, variant = cases(folder)[name](), variants()[variant_name]
    score = Scorer(problem)
    tokenizer = variant.tokenizer() if callable(variant.tokenizer) else variant.tokenizer

    def train(**settings: Any) -> tuple[cd.CellDiT, float]:
        model = cd.CellDiT(problem.train, tokenizer, dit=DiTConfig(**variant.network))
        start = time.process_time()
        config = TrainingConfig(new_cells=False, least_gain=0, **{**variant.training, **settings})
        model.train(seed=seed, config=config, enable_progress_bar=False)
        return model, time.process_time() - start

    model, trained_in = train()
    asked = {"chosen": (model, trained_in), "full": (model.weighted(1), trained_in)}
    # What follows the network is fitted to its share, so the effect model alone is another model.
    # It does not depend on what tokens are, nor on how cells are paired.
    if variant_name == "default":
        asked = {"none": train(flow_epochs=0), **asked}
    rows = []
    for used, (own, seconds) in asked.items():
        start = time.process_time()
        drawn = [
            own.predict(problem.controls, perturbations=problem.perturbations, seed=10 * seed + i)
            for i in range(N_DRAWS)
        ]
        predicted_in = (time.process_time() - start) / N_DRAWS
        scores = pd.DataFrame([score(predicted) for predicted in drawn]).mean().round(4)
        rows.append(
            {
                "problem": problem.name, "variant": variant_name, "seed": seed, "used": used,
                "weight": round(float(drawn[0].obs["flow_weight"].mean()), 3), **scores,
                "train_seconds": round(seconds, 1), "predict_seconds": round(predicted_in, 1),
                "date": date.today().isoformat(), "machine": f"{platform.machine()}, one core",
            }
        )  # fmt: skip
    return rows


def pooled(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, splits, types and tissues, by problem, variant and what is used."""
    what = rows["problem"].str.replace(r", split \d", "", regex=True)
    what = what.str.replace(r"^Kang, .*", "Kang, nine types", regex=True)
    rows = rows.assign(what=what.str.replace(r"^Tal1, .*", "Tal1, two tissues", regex=True))
    keys = ["what", "variant", "used"]
    return rows.groupby(keys, sort=False)[["weight", "nmse", "energy", "train_seconds"]].mean()


def table(rows: pd.DataFrame) -> str:
    """The product, and what it is compared with, as Markdown."""
    said = [
        "| held out | network | weight | nmse | energy | seconds |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    names = {"none": "none: effect model alone", "full": "in full", "chosen": "as chosen"}
    for (what, _, used), row in pooled(rows).iterrows():
        said.append(
            f"| {what} | {names[used]} | {row.weight:.2f} | {row.nmse:.3f} | {row.energy:.3f} | "
            f"{row.train_seconds:.0f} |"
        )
    seeds = rows.groupby("problem")["seed"].nunique()
    most = sorted(seeds[seeds == seeds.max()].index)
    said += [
        "",
        f"{rows['date'].max()}; one core; {seeds.max()} training seeds for {', '.join(most)}, "
        f"{seeds.min()} for the others; every run in `docs/results/transformer.csv`.",
    ]
    return "\n".join(said)


def ablation(rows: pd.DataFrame) -> str:
    """Tokens by pairs, the network in full, as Markdown: two numbers for each problem."""
    tried = rows[(rows["used"] == "full") & (rows["variant"] != "default")]
    problems, shown = list(dict.fromkeys(tried["problem"])), ("nmse", "energy")
    heads = [f"{what}: {name}" for what in problems for name in shown]
    said = [
        f"| tokens | pairs | {' | '.join(heads)} | seconds |",
        f"| --- | --- | {' | '.join(['---:'] * len(heads))} | ---: |",
    ]
    for variant, own in tried.groupby("variant", sort=False):
        tokens, _, pairs = str(variant).rpartition(", ")
        of = own.groupby("problem")[list(shown)].mean().reindex(problems)
        numbers = [
            "" if pd.isna(of.loc[what, name]) else f"{of.loc[what, name]:.3f}"
            for what in problems
            for name in shown
        ]
        seconds = own["train_seconds"].mean()
        said.append(f"| {tokens} | {pairs} | {' | '.join(numbers)} | {seconds:.0f} |")
    return "\n".join(said)


def short(rows: pd.DataFrame) -> str:
    """Without the network and as chosen, one number a cell, as Markdown."""
    said = [
        "| held out | nmse, effect model | nmse, with network | energy, effect model | "
        "energy, with network | weight |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    own = pooled(rows[rows["variant"] == "default"])
    for what in dict.fromkeys(own.index.get_level_values("what")):
        alone, chosen = (own.loc[(what, "default", used)] for used in ("none", "chosen"))
        said.append(
            f"| {what} | {alone.nmse:.3f} | {chosen.nmse:.3f} | {alone.energy:.3f} | "
            f"{chosen.energy:.3f} | {chosen.weight:.2f} |"
        )
    return "\n".join(said)


def write_pages(rows: pd.DataFrame) -> None:
    """Put the tables between their marks in README and documentation."""
    own = rows[rows["variant"] == "default"]
    put("README.md", "transformer", short(rows))
    put(PAGE, "transformer", table(own))
    put(PAGE, "ablation", ablation(rows))


def main() -> None:
    """Append the rows that are missing, or write the tables into README and documentation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--problems", nargs="+")
    parser.add_argument("--variants", nargs="+", default=["default"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    if asked.write:
        write_pages(pd.read_csv(asked.out))
        return
    torch.set_num_threads(1)
    every = list(variants()) if asked.variants == ["all"] else asked.variants
    known = cases(asked.data)
    names = {known[name]().name: name for name in asked.problems or known}
    wanted = (
        {"problem": title, "variant": variant, "seed": seed}
        for seed in asked.seeds
        for title in names
        for variant in every
    )
    append_missing(
        asked.out,
        COLUMNS,
        wanted,
        lambda case: run(names[case["problem"]], case["variant"], case["seed"], asked.data),
    )


if __name__ == "__main__":
    main()
