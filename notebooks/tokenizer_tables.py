"""Fill the tables of docs/latent_measured.md from the committed results.

python notebooks/tokenizer_tables.py
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
PLAIN = ("attention_worth", "latent_anchor", "latent_cause", "latent_memory", "tokenizing_speed")
PAGE = ROOT / "docs" / "latent_measured.md"


def likelihood() -> pd.DataFrame:
    """Held-out negative log-likelihood, with the time and memory of training."""
    table = pd.read_csv(RESULTS / "latent.csv", keep_default_na=False)
    table["latent"] = [
        "scVI" if method == "scvi" else f"{latent} {tokenizer}".strip()
        for method, latent, tokenizer in zip(
            table["method"], table["latent"], table["tokenizer"], strict=True
        )
    ]
    table["cell"] = [
        f"{nll:.1f} / {seconds:.0f} / {memory:.0f}"
        for nll, seconds, memory in zip(
            table["held_out_nll"], table["seconds"], table["peak_memory_mb"], strict=True
        )
    ]
    order = list(dict.fromkeys(table["latent"]))
    return table.pivot(index="latent", columns="data", values="cell").loc[order].reset_index()


def choice() -> pd.DataFrame:
    """Prediction of held-out conditions by latent, over seeds."""
    measures = ["pearson", "nmse", "energy", "trust", "seconds"]
    return over_seeds("latent_choice", ["held_out", "latent", "tokenizer"], measures)


def structure() -> pd.DataFrame:
    """Cell types in the latent, over splits."""
    measures = ["knn_accuracy", "ari", "unit_knn_accuracy", "unit_ari", "seconds"]
    return over_seeds("structure", ["latent", "tokenizer", "n_dims"], measures)


def over_seeds(name: str, keys: list[str], measures: list[str]) -> pd.DataFrame:
    """Mean and standard deviation over seeds, and their number."""
    groups = (
        pd.read_csv(RESULTS / f"{name}.csv").fillna({"tokenizer": ""}).groupby(keys, sort=False)
    )
    mean, sd = groups[measures].mean(), groups[measures].std()
    table = pd.DataFrame(index=mean.index)
    for measure in measures:
        digits = 0 if measure == "seconds" else 3
        table[measure] = [
            f"{m:.{digits}f}" if pd.isna(s) or not digits else f"{m:.{digits}f} ± {s:.{digits}f}"
            for m, s in zip(mean[measure], sd[measure], strict=True)
        ]
    table["seeds"] = groups.size()
    return table.reset_index()


def plain(name: str) -> pd.DataFrame:
    """A committed table as it is."""
    return pd.read_csv(RESULTS / f"{name}.csv", keep_default_na=False)


def markdown(table: pd.DataFrame) -> str:
    """Rows of pipes."""
    lines = [list(map(str, table.columns)), ["---"] * table.shape[1]]
    lines += [list(map(str, row)) for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Replace what stands between the markers of each table."""
    tables = {
        "likelihood": likelihood(),
        "choice": choice(),
        "structure": structure(),
        **{name: plain(name) for name in PLAIN},
    }
    page = PAGE.read_text(encoding="utf-8")
    for name, table in tables.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        head, rest = page.split(begin)
        page = head + begin + "\n" + markdown(table) + "\n" + end + rest.split(end)[1]
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
