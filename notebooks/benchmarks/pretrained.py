"""Does a transformer that was trained on other screens start better on a new one?

    python notebooks/benchmarks/pretrained.py docs/results/pretrained.csv --seeds 0 1 2 \
        --data FOLDER

Tokens are gene sets with names, so a network's body can be carried from screen to screen: blocks,
what time and condition do to them, and the way in of every gene set that both have. The views of
the latent and the read-outs belong to the data and are made anew, read-outs at zero, so that a
carried network is as silent as a new one. For each screen a body is trained on the others, one
after the other; then the network is trained on the screen from it and from a fresh start, for
shares of the usual steps, used in full (``model.weighted(1)``) and scored as in ``scores.py`` on
held-out cells. Populations are mixed, no cell types told: there the network has most to say.
Rows are appended; what has rows is not run again; ``--write`` puts means into the documentation.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, cast

import anndata as ad
import pandas as pd
import torch
from appended import append_missing
from held_out import HeldOut, cases
from pages import put
from scores import Scorer
from torch import Tensor

import celldit as cd
from celldit.flow.anchored import AnchoredFlow
from celldit.latent.autoencoder import Autoencoder
from celldit.nn.views import TokenViews, ViewedDiT
from celldit.training import TrainingConfig, fit

COLUMNS = ["problem", "seed", "start", "steps", "pearson", "nmse", "energy", "date", "machine"]
EPOCHS = (2, 4, 6, 8)
STEPS_OF_EPOCH = 50
N_DRAWS = 2
#: Screens whose mixed cells are the sources, in the order of training; Kang is left out for Kang.
SOURCES = ("norman", "papalexi", "kang")


@dataclass(frozen=True)
class Body:
    """What of a network is not the data's own.

    Attributes
    ----------
    shared
        Weights of the trunk that all tokens share, by name.
    ways_in
        Weight and bias of the way in of each token, by the token's name.
    """

    shared: dict[str, Tensor]
    ways_in: dict[str, tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, model: cd.CellDiT) -> Body:
        """The body of a trained model's network."""
        network = cast(ViewedDiT, model.trained.flow.dit)
        names = model.trained.autoencoder.tokenizer.token_names
        state = network.trunk.state_dict()
        way_in = state["project_in.weight"], state["project_in.bias"]
        tokens = enumerate(network.identity_T.tolist())
        return cls(
            {n: w.clone() for n, w in state.items() if not n.startswith("project_")},
            {names[i]: (way_in[0][t].clone(), way_in[1][t].clone()) for t, i in tokens},
        )

    def put_into(self, network: ViewedDiT, names: tuple[str, ...]) -> int:
        """Give it to an untrained network; returns of how many tokens the way in is known."""
        state = network.trunk.state_dict()
        state.update(self.shared)
        n_known = 0
        for token, identity in enumerate(network.identity_T.tolist()):
            if names[identity] in self.ways_in:
                weight, bias = self.ways_in[names[identity]]
                state["project_in.weight"][token], state["project_in.bias"][token] = weight, bias
                n_known += 1
        network.trunk.load_state_dict(state)
        return n_known


@contextmanager
def starting_from(body: Body | None) -> Iterator[None]:
    """Networks that are made within start from a body."""
    made, viewed = fit.AnchoredFlow, fit.views_for
    names: list[tuple[str, ...]] = []

    def look(network: Any, autoencoder: Autoencoder, *others: Any) -> TokenViews | None:
        names.append(autoencoder.tokenizer.token_names)
        return viewed(network, autoencoder, *others)

    def start(*arguments: Any) -> AnchoredFlow:
        flow = made(*arguments)
        # One is made without weights, for its size alone.
        if body is not None and not next(flow.parameters()).is_meta:
            body.put_into(cast(ViewedDiT, flow.dit), names[-1])
        return flow

    fit.AnchoredFlow, fit.views_for = start, look  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        fit.AnchoredFlow, fit.views_for = made, viewed  # type: ignore[misc]


def trained(adata: ad.AnnData, body: Body | None, epochs: int, seed: int) -> cd.CellDiT:
    """A model whose network was trained on all cells, without trial runs."""
    model = cd.CellDiT(adata, "gene_sets")
    config = TrainingConfig(flow_epochs=epochs, n_trials=0, new_cells=False)
    with starting_from(body):
        model.train(seed=seed, config=config, enable_progress_bar=False)
    return model


def source(name: str) -> ad.AnnData:
    """A bundled screen without cell types told, all of it."""
    adata: ad.AnnData = getattr(cd.datasets, name)()
    key = "condition" if name == "kang" else "perturbation"
    cd.CellDiT.setup_anndata(
        adata, perturbation_key=key, control="control", size_factor_key="total_umis"
    )
    return adata


def body_without(left_out: str, seed: int) -> Body:
    """Trained on all sources but one, one after the other."""
    body = None
    for name in SOURCES:
        if name != left_out:
            body = Body.of(trained(source(name), body, max(EPOCHS), seed))
    assert body is not None
    return body


def run(problem: HeldOut, body: Body, seed: int) -> Iterator[dict[str, Any]]:
    """Scores from both starts, for shares of the usual steps."""
    score = Scorer(problem)
    for start, given in (("fresh", None), ("carried", body)):
        for epochs in EPOCHS:
            model = trained(problem.train, given, epochs, seed).weighted(1)
            asked = problem.controls, problem.perturbations
            drawn = [
                score(model.predict(asked[0], perturbations=asked[1], seed=10 * seed + i))
                for i in range(N_DRAWS)
            ]
            yield {
                "problem": problem.name, "seed": seed, "start": start,
                "steps": epochs * STEPS_OF_EPOCH, **pd.DataFrame(drawn).mean().round(4),
                "date": date.today().isoformat(), "machine": f"{platform.machine()}, one core",
            }  # fmt: skip


def table(rows: pd.DataFrame) -> str:
    """Means over seeds and splits, as Markdown."""
    rows = rows.assign(what=rows["problem"].str.replace(r", split \d", "", regex=True))
    steps = [epochs * STEPS_OF_EPOCH for epochs in EPOCHS]
    said = [
        f"| held out | start | error | {' | '.join(f'{n} steps' for n in steps)} |",
        f"| --- | --- | --- | {' | '.join(['---:'] * len(steps))} |",
    ]
    for what, start in rows[["what", "start"]].drop_duplicates().itertuples(index=False):
        own = rows[(rows["what"] == what) & (rows["start"] == start)]
        means = own.groupby("steps")[["nmse", "energy"]].mean()
        for error in ("nmse", "energy"):
            numbers = " | ".join(f"{means.loc[n, error]:.3f}" for n in steps)
            said.append(f"| {what} | {start} | {error} | {numbers} |")
    seeds = rows.groupby("problem")["seed"].nunique()
    said += [
        "",
        f"{rows['date'].max()}; one core; seeds a problem: {seeds.min()} to {seeds.max()}.",
    ]
    return "\n".join(said)


def main() -> None:
    """Append the rows that are missing, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    if asked.write:
        put("docs/transformer.md", "pretrained", table(pd.read_csv(asked.out)))
        return
    torch.set_num_threads(1)
    known = cases(asked.data)
    problems = {known[name]().name: name for name in known if "mixed" in name}
    body_of = cache(body_without)

    def rows(case: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        name, seed = problems[case["problem"]], case["seed"]
        return run(known[name](), body_of(name.partition("-")[0], seed), seed)

    wanted = ({"problem": title, "seed": seed} for seed in asked.seeds for title in problems)
    append_missing(asked.out, COLUMNS, wanted, rows)


if __name__ == "__main__":
    main()
