"""Fill the tables of docs/latent_measured.md from the committed results.

python notebooks/benchmarks/latent_tables.py
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
COMPONENTS = "50 principal components"
PAGE = ROOT / "docs" / "latent_measured.md"


def likelihood() -> pd.DataFrame:
    """Held-out negative log-likelihood, with the time and memory of training."""
    table = pd.read_csv(RESULTS / "latent.csv", keep_default_na=False)
    table["latent"] = ["scVI" if method == "scvi" else "celldit" for method in table["method"]]
    table["cell"] = [
        f"{nll:.1f} / {seconds:.0f} / {memory:.0f}"
        for nll, seconds, memory in zip(
            table["held_out_nll"], table["seconds"], table["peak_memory_mb"], strict=True
        )
    ]
    order = list(dict.fromkeys(table["latent"]))
    return table.pivot(index="latent", columns="data", values="cell").loc[order].reset_index()


def structure() -> pd.DataFrame:
    """Cell types in the latent, over splits, and beside principal components of the same splits."""
    measures = ["knn_accuracy", "ari", "unit_knn_accuracy", "unit_ari", "seconds"]
    keys = ["data", "latent", "n_dims"]
    table = over_seeds("structure", keys, measures)
    rows = pd.read_csv(RESULTS / "structure.csv")
    for at, measure in enumerate(("knn_accuracy", "ari")):
        by_split = rows.pivot(index=keys, columns=["seed"], values=measure)
        gains = []
        for key in table[keys].itertuples(index=False, name=None):
            of_components = by_split.xs((key[0], COMPONENTS)).iloc[0]
            gain = (by_split.loc[key] - of_components).dropna()
            error = gain.std() / len(gain) ** 0.5
            gains.append("" if key[1] == COMPONENTS else f"{gain.mean():+.3f} ± {error:.3f}")
        table.insert(4 + 2 * at, f"{measure} gain", gains)
    return table.rename(columns={"seeds": "splits"})


def over_seeds(name: str, keys: list[str], measures: list[str]) -> pd.DataFrame:
    """Mean and standard deviation over seeds, and their number."""
    groups = pd.read_csv(RESULTS / f"{name}.csv").groupby(keys, sort=False)
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
        "structure": structure(),
        "tokenizing_speed": plain("tokenizing_speed"),
    }
    page = PAGE.read_text(encoding="utf-8")
    for name, table in tables.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        head, rest = page.split(begin)
        page = head + begin + "\n" + markdown(table) + "\n" + end + rest.split(end)[1]
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
