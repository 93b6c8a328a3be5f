"""What a knock-out leaves of its own gene is found, and predicted cells have it cell by cell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import binom

import celldit as cd
from celldit.calibration.own_gene.fit import OwnCounts
from celldit.calibration.own_gene.kept import OwnGene, OwnGenes, Target
from celldit.calibration.reference_controls import Change
from celldit.calibration.responses import LOG_FACTORS, Responses
from celldit.conditions import Condition, ConditionTable
from celldit.data.cells import Cells
from celldit.data.fields import Fields

KEPT, LEFT = 0.3, 0.1
MEAN_OF = {"A": 6.0, "B": 3.0, "C": 2.0, "D": 4.0}
N_GENES = 60


def screen_of(
    kept: float, left: float, n_cells: int = 400, seed: int = 0, of: str = "ABC"
) -> ad.AnnData:
    """Knock-outs that do nothing but to their own gene, which some cells keep."""
    rng = np.random.default_rng(seed)
    label = np.repeat(["control", *of], [800, *[n_cells] * len(of)])
    mean_G = np.concatenate([list(MEAN_OF.values()), rng.gamma(2.0, 2.0, N_GENES - 4)])
    counts = rng.poisson(mean_G * rng.gamma(5.0, 0.2, (len(label), N_GENES)))
    for g, part in enumerate(MEAN_OF):
        loses = (label == part) & (rng.random(len(label)) >= kept)
        counts[loses, g] = (
            rng.binomial(counts[loses, g], left) if left <= 1 else counts[loses, g] * int(left)
        )
    counts[:, -1] += 1
    obs = pd.DataFrame({"perturbation": label}, index=[f"cell{i}" for i in range(len(label))])
    adata = ad.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs)
    adata.var_names = [*MEAN_OF, *(f"gene{i}" for i in range(N_GENES - 4))]
    adata.obs["total"] = 500.0
    cd.CellDiT.setup_anndata(adata, perturbation_key="perturbation", size_factor_key="total")
    return adata


def fitted(cells: Any, block: int = 333) -> OwnGenes:
    table = ConditionTable.from_cells(cells, "+")
    curve_PG = np.zeros((len(LOG_FACTORS), cells.n_genes))
    counts, start = OwnCounts(table, cells.genes, Responses({("", None): curve_PG})), 0
    for some in cells.blocks(block):
        counts.add(some, table.index[start : start + some.n_cells])
        start += some.n_cells
    return counts.fit()


def cells_of(adata: ad.AnnData) -> Cells:
    return Cells.from_anndata(adata, Fields.from_anndata(adata))


@pytest.mark.parametrize(("kept", "left"), [(0.3, 0.1), (0.6, 0.2), (0.1, 0.05)])
def test_shares_and_factors_are_found(kept: float, left: float) -> None:
    own = fitted(cells_of(screen_of(kept, left)))
    assert set(own.of) == {"A", "B", "C"}
    for one in own.of.values():
        # Two standard errors of the share, and of what is left, of 400 cells.
        assert one.kept == pytest.approx(kept, abs=0.1)
        all_left = one.kept + (1 - one.kept) * np.exp(one.log_factor)
        assert all_left == pytest.approx(kept + (1 - kept) * left, abs=0.05)
    assert np.mean([one.kept for one in own.of.values()]) == pytest.approx(kept, abs=0.06)
    # Drawn to none as if one more had shown nothing.
    assert own.usual == pytest.approx(0.75 * kept, abs=0.06)


def test_none_keep_a_gene_that_is_only_thinned() -> None:
    own = fitted(cells_of(screen_of(0.0, 0.4)))
    for one in own.of.values():
        assert one.kept < 0.06
        assert one.log_factor == pytest.approx(np.log(0.4), abs=0.15)
    assert own.usual < 0.05


def test_activation_has_no_share() -> None:
    assert fitted(cells_of(screen_of(0.3, 3.0))) == OwnGenes()


def test_few_cells_follow_the_others() -> None:
    many, few = screen_of(0.3, 0.1), screen_of(0.3, 0.1, n_cells=25, seed=3, of="D")
    treated = few[(few.obs["perturbation"] == "D").to_numpy()].copy()
    treated.obs_names = [f"few{i}" for i in range(treated.n_obs)]
    both = ad.concat([many, treated])
    cd.CellDiT.setup_anndata(both, perturbation_key="perturbation", size_factor_key="total")
    own = fitted(cells_of(both))
    assert own.of["D"].kept == pytest.approx(own.usual, abs=0.12)
    alone = fitted(cells_of(few))
    assert alone.usual == 0


def test_blocks_and_disk_do_not_matter(tmp_path: Path) -> None:
    adata = screen_of(0.3, 0.1)
    adata.copy().write_h5ad(tmp_path / "s.h5ad")
    store = cd.open_store(
        tmp_path / "s.h5ad", perturbation_key="perturbation", control="control",
        size_factor_key="total",
    )  # fmt: skip
    assert fitted(store, 97) == fitted(cells_of(adata), 10_000)


def test_cells_of_papalexi_keep_a_gene_or_lose_most_of_it() -> None:
    """Better than that some lose all and the others some, where knock-outs are strong."""
    screen = cd.datasets.papalexi()
    labels = screen.obs["perturbation"].to_numpy()
    for gene, gain in (("STAT1", 50.0), ("JAK2", 5.0)):
        counts = np.minimum(screen[:, gene].X.toarray().ravel().astype(int), 60)
        own, control = (
            np.bincount(counts[labels == label], minlength=61) for label in (gene, "control")
        )
        control = (control + 0.01) / (control + 0.01).sum()
        thinned = {
            p: control @ binom.pmf(np.arange(61), np.arange(61)[:, None], p)
            for p in np.linspace(0.01, 0.99, 50)
        }
        shares = np.linspace(0, 0.98, 50)
        best = [
            max(own @ np.log(u * some + (1 - u) * one + 1e-12) for one in thinned.values()
                for u in shares)
            for some in (control, np.eye(61)[0])
        ]  # fmt: skip
        assert best[0] > best[1] + gain


CURVE = np.log1p(5 * np.exp(LOG_FACTORS)) - np.log1p(5)


def change_of(log_factor: float = 0.0) -> Change:
    return Change(np.zeros(1), np.ones(2), np.stack([CURVE] * 2, 1), np.full(2, log_factor))


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("share", [1.0, 0.8])
def test_a_split_has_the_same_mean(kept: float, share: float) -> None:
    change, offset_G = change_of(-0.4), np.array([-1.2, 0.0])
    split = Target(0, 0, kept, None, True).split(offset_G, change, share)
    if (1 - kept) >= share:
        assert split is None
        return
    assert split is not None
    before = change.at(offset_G)[0][0]
    at = [change.at(np.array([log, 0.0]))[0][0] for log in (split.log_kept, split.log_lost)]
    assert at[0] == pytest.approx(0, abs=1e-9)
    assert split.kept * at[0] + (1 - split.kept) * at[1] == pytest.approx(before, rel=1e-3)
    # Those that do not respond count, too, unless the mean asks for fewer that keep it.
    assert share * (1 - split.kept) >= 1 - kept - 1e-9


def test_what_does_not_fall_is_not_split() -> None:
    target, change = Target(0, 0, 0.5, None, True), change_of()
    assert target.split(np.array([0.7, 0.0]), change, 1.0) is None
    silent = replace(change, curve_PG=0 * change.curve_PG)
    assert target.split(np.array([-1.0, 0.0]), silent, 1.0) is None


def test_a_part_of_a_pair_falls_at_least_as_alone() -> None:
    for found, expected in ((-0.1, -1.0), (-2.0, -2.0)):
        offset_G = np.array([found, 0.3])
        wanted = float(np.interp(-1.0, LOG_FACTORS, CURVE))
        Target(0, 0, 0.0, wanted, alone=False).lower(offset_G, change_of(), 1.0)
        np.testing.assert_allclose(offset_G, [expected, 0.3], atol=1e-6)


def test_doses_and_unmeasured_genes_have_no_target() -> None:
    own = OwnGenes({"A": OwnGene(0.3, -2.0)}, 0.2)
    responses = Responses({None: np.stack([CURVE] * 2, 1)})
    conditions = [
        Condition(("A",)), Condition(("x", "B")), Condition(("A",), doses=(1.0,)), Condition(()),
    ]  # fmt: skip
    found = own.targets(conditions, ["A", "B"], responses)
    assert [[(t.part, t.gene, t.kept) for t in some] for some in found] == [
        [(0, 0, 0.3)], [(condition_part("B"), 1, 0.2)], [], [],
    ]  # fmt: skip
    assert found[0][0].change == pytest.approx(0.7 * np.interp(-2.0, LOG_FACTORS, CURVE))
    assert found[1][0].change is None


def condition_part(name: str) -> int:
    return Condition(("x", "B")).parts.index(name)


@pytest.fixture(scope="module")
def screen() -> ad.AnnData:
    return screen_of(KEPT, LEFT)


@pytest.fixture(scope="module")
def model(screen: ad.AnnData, train_tiny: Any) -> cd.CellDiT:
    return train_tiny(screen, max_epochs=0)


def controls_of(screen: ad.AnnData) -> ad.AnnData:
    return screen[(screen.obs["perturbation"] == "control").to_numpy()].copy()


def with_own_genes(model: cd.CellDiT, own: OwnGenes) -> cd.CellDiT:
    other = cd.CellDiT.__new__(cd.CellDiT)
    other.__dict__.update(model.__dict__)
    means = replace(model.trained.mean_calibration, own_genes=own)
    other._trained = replace(model.trained, mean_calibration=means)
    return other


def test_zeros_and_means_are_those_measured(model: cd.CellDiT, screen: ad.AnnData) -> None:
    predicted = model.predict(controls_of(screen), perturbations=["A", "B", "C"])
    for part in "ABC":
        own = [x[:, part] for x in (screen, predicted)]
        cells = [x[(x.obs["perturbation"] == part).to_numpy()] for x in own]
        measured, drawn = cells[0].X.toarray(), cells[1].layers["counts"].toarray()
        assert (drawn == 0).mean() == pytest.approx((measured == 0).mean(), abs=0.05)
        logs = [np.log1p(x * 20) for x in (drawn, measured)]
        scatter = np.hypot(*(x.std() / np.sqrt(len(x)) for x in logs))
        assert abs(logs[0].mean() - logs[1].mean()) < 2.5 * scatter
        new = model.generate(1_000, perturbation=part)[:, part].layers["counts"].toarray()
        assert (new == 0).mean() == pytest.approx((measured == 0).mean(), abs=0.1)


def test_who_keeps_it_leaves_the_mean(model: cd.CellDiT, screen: ad.AnnData) -> None:
    """To that of the same model in which all cells lose their gene alike."""
    own = model.trained.mean_calibration.own_genes
    alike = {p: OwnGene(0.0, log) for p, (_, log) in own.of.items()}
    controls = controls_of(screen)
    for part, one in own.of.items():
        curve_P = model.trained.mean_calibration.responses.curve(("", None))[:, "ABCD".index(part)]
        wanted = (1 - one.kept) * np.interp(one.log_factor, LOG_FACTORS, curve_P)
        alike[part] = OwnGene(0.0, float(np.interp(wanted, curve_P, LOG_FACTORS)))
    models = model, with_own_genes(model, OwnGenes(alike))
    means = [
        np.log1p(20 * m.predict(controls, perturbations=["A", "B"]).layers["counts"].toarray())
        for m in models
    ]
    unperturbed = np.log1p(20 * controls.X.toarray())
    for q, part in enumerate("AB"):
        rows, g = slice(q * len(unperturbed), (q + 1) * len(unperturbed)), "ABCD".index(part)
        scatter = np.hypot(*(x[rows, g].std() for x in means)) / np.sqrt(len(unperturbed))
        assert abs(means[0][rows, g].mean() - means[1][rows, g].mean()) < 3 * scatter
    expected = [m.predict(controls, perturbations=["A"]).layers["mean"] for m in models]
    np.testing.assert_array_equal(*(x[:, 1:].toarray() for x in expected))


def test_effects_stay_as_they_are(model: cd.CellDiT) -> None:
    none = with_own_genes(model, OwnGenes())
    effects = [m.predict_effects(["A", "B", "C+A"]) for m in (model, none)]
    pd.testing.assert_frame_equal(*effects)


def test_who_keeps_it_belongs_to_the_cell(model: cd.CellDiT, screen: ad.AnnData) -> None:
    controls = controls_of(screen)
    whole = model.predict(controls, perturbations=["A", "B", "A+B"])
    part = model.predict(controls[100:50:-1].copy(), perturbations=["A+B", "A"])
    same = whole[part.obs_names]
    assert (same.layers["counts"] != part.layers["counts"]).nnz == 0
    assert (same.layers["mean"] != part.layers["mean"]).nnz == 0
    other = model.predict(controls, perturbations=["A"], seed=1)
    assert (whole[: other.n_obs, "A"].layers["mean"] != other[:, "A"].layers["mean"]).nnz > 50


def test_cells_keep_the_gene_of_each_part_by_chance(model: cd.CellDiT, screen: ad.AnnData) -> None:
    controls = controls_of(screen)
    both = model.predict(controls, perturbations=["A+B"])
    some = (controls[:, ["A", "B"]].X.toarray() > 0).all(1)
    after = both[:, ["A", "B"]].layers["mean"].toarray()
    keeps = (after > 0.9 * controls[:, ["A", "B"]].X.toarray())[some]
    kept = [model.trained.mean_calibration.own_genes.of[p].kept for p in "AB"]
    np.testing.assert_allclose(keeps.mean(0), kept, atol=0.06)
    assert keeps.all(1).mean() == pytest.approx(np.prod(kept), abs=0.06)


def test_where_nothing_is_known_of_a_knock_out_it_is_the_usual_share(
    model: cd.CellDiT, screen: ad.AnnData
) -> None:
    controls = controls_of(screen)
    unknown = with_own_genes(model, OwnGenes({}, 0.4)).predict(controls, perturbations=["A"])
    alike = with_own_genes(model, OwnGenes()).predict(controls, perturbations=["A"])
    seen = controls[:, "A"].X.toarray().ravel()
    kept, all_ = (x[:, "A"].layers["mean"].toarray().ravel()[seen > 0] for x in (unknown, alike))
    kept, all_ = kept / seen[seen > 0], all_ / seen[seen > 0]
    assert (kept > 0.98).mean() == pytest.approx(0.4, abs=0.05)
    assert kept[kept < 0.98].max() < all_.min() < 0.9


def test_the_ends_of_a_way_are_the_predictions(model: cd.CellDiT, screen: ad.AnnData) -> None:
    controls = controls_of(screen)[:200].copy()
    way = model.interpolate(controls, start="control", end="A", shares=[0, 0.5, 1])
    end = model.predict(controls, perturbations=["A"])
    levels = way[:, "A"].layers["mean"].toarray().reshape(3, -1)
    np.testing.assert_allclose(levels[2], end[:, "A"].layers["mean"].toarray().ravel(), rtol=1e-5)
    np.testing.assert_allclose(levels[0], controls[:, "A"].X.toarray().ravel(), rtol=1e-5)
    assert ((levels[1] <= levels[0] + 1e-4) & (levels[1] >= levels[2] - 1e-4)).all()


def test_it_is_saved_and_older_models_know_nothing(
    model: cd.CellDiT, screen: ad.AnnData, tmp_path: Path
) -> None:
    model.save(tmp_path / "m")
    again = cd.CellDiT.load(tmp_path / "m")
    means = again.trained.mean_calibration
    assert means.own_genes == model.trained.mean_calibration.own_genes
    controls = controls_of(screen)
    pairs = [m.predict(controls, perturbations=["A"]).layers["counts"] for m in (model, again)]
    assert (pairs[0] != pairs[1]).nnz == 0
    config = means.to_config()
    del config["kept"]
    old = type(means).from_config(config, means.arrays(), N_GENES)
    assert old.own_genes == OwnGenes()
    with pytest.raises(ValueError, match="keep their gene"):
        OwnGenes.from_config({"usual": 1.5})


def test_an_earlier_training_is_kept() -> None:
    earlier = OwnGenes({"A": OwnGene(0.3, -2.0), "B": OwnGene(0.1, -1.0)}, 0.2)
    later = OwnGenes({"B": OwnGene(0.2, -1.5)})
    both = later.with_earlier(earlier)
    assert both.of == {"A": OwnGene(0.3, -2.0), "B": OwnGene(0.2, -1.5)}
    assert both.usual == 0.2
