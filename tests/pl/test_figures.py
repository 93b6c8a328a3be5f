"""Figures: what is drawn is what the data say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.path import Path
from matplotlib.text import Text

import celldit as cd
from celldit.errors import InputError, UnknownNameError
from celldit.evaluation.metrics import pearson_shift
from celldit.pl.labels import place_labels
from celldit.pl.style import style


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture
def predicted(tiny_screen: ad.AnnData, tiny_model: Any) -> ad.AnnData:
    return tiny_model.predict(tiny_screen, perturbations=["A", "A+B"])


def offsets(ax: Axes) -> np.ndarray:
    return np.asarray(ax.collections[0].get_offsets())


def test_genes_surer_than_the_scale_stand_above_it_in_order() -> None:
    rng = np.random.default_rng(0)
    change = np.r_[np.sort(rng.uniform(2, 6, 14)), -3.0, rng.normal(0, 0.3, 80)]
    table = pd.DataFrame(
        {
            "perturbation": "A",
            "context": "",
            "gene": [f"GENE{i}" for i in range(len(change))],
            "log_fold_change": change * np.log(2),
            "sd": 0.1,
            "log2_fold_change": change,
            "lfsr": np.where(np.abs(change) > 1.5, 1e-9, 0.5),
        }
    )
    ax = cd.pl.volcano(table, n_genes=12, show=False)
    figure = ax.get_figure()
    figure.canvas.draw()
    assert ax.get_yticklabels()[-1].get_text() == "≥4"
    named = [text for text in ax.texts if text.get_text()]
    assert len(named) == 12
    points = np.array([ax.transData.transform(text.xy) for text in named])
    boxes = [Text.get_window_extent(text) for text in named]
    inside = ax.get_window_extent()
    for one, box in enumerate(boxes):
        assert inside.x0 <= box.x0 < box.x1 <= inside.x1
        assert points[one, 1] < box.y0 < box.y1 <= inside.y1
        assert not any(box.overlaps(other) for other in boxes[:one])
    # Lines from one row to another cross where the orders differ.
    middles = [(box.x0 + box.x1) / 2 for box in boxes]
    np.testing.assert_array_equal(np.argsort(points[:, 0]), np.argsort(middles))


def test_effect_draws_mean_shifts(tiny_screen: ad.AnnData, predicted: ad.AnnData) -> None:
    ax = cd.pl.effect(tiny_screen, predicted, "A")
    assert isinstance(ax, Axes)
    xy = offsets(ax)
    assert xy.shape == (tiny_screen.n_vars, 2)
    assert ax.get_title(loc="left").startswith("A (3 contexts), r = ")
    assert f"{pearson_shift(xy[:, 1], xy[:, 0]):.2f}" in ax.get_title(loc="left")
    names = {t.get_text() for t in ax.texts}
    assert tiny_screen.var_names[np.abs(xy).max(1).argmax()] in names


def test_effect_in_one_context_agrees_with_evaluate(
    tiny_screen: ad.AnnData, predicted: ad.AnnData
) -> None:
    chosen = (tiny_screen.obs["donor"] == "d1") & tiny_screen.obs["perturbation"].isin(
        ["control", "A", "A+B"]
    )
    one = tiny_screen[chosen].copy()
    part = predicted[predicted.obs["donor"] == "d1"].copy()
    xy = offsets(cd.pl.effect(one, part, "A"))
    table = cd.tl.evaluate(part, one, one, metrics=["pearson"])
    value = table.query("perturbation == 'A' and metric == 'pearson'")["value"].iloc[0]
    assert pearson_shift(xy[:, 1], xy[:, 0]) == pytest.approx(value, abs=1e-6)


def test_effect_makes_a_panel_for_each_perturbation(
    tiny_screen: ad.AnnData, predicted: ad.AnnData
) -> None:
    axes = cd.pl.effect(tiny_screen, predicted)
    assert isinstance(axes, list)
    assert [ax.get_title(loc="left").split(" ")[0] for ax in axes] == ["A", "A+B"]
    with pytest.raises(InputError, match="2 matplotlib axes"):
        cd.pl.effect(tiny_screen, predicted, ax=axes[0])
    with pytest.raises(UnknownNameError, match="'C'"):
        cd.pl.effect(tiny_screen, predicted, "C")


def test_labels_never_cover_each_other() -> None:
    _, ax = plt.subplots(figsize=(4, 4))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 15)) * 0.1
    ax.scatter(x, y)
    ax.set(xlim=(-1, 1), ylim=(-1, 1))
    written = place_labels(ax, x, y, [f"GENE{i}" for i in range(15)])
    assert len(written) >= 12
    ax.figure.canvas.draw()
    renderer = ax.figure.canvas.get_renderer()
    boxes = [Text.get_window_extent(text, renderer) for text in ax.texts]
    # Nor do two read as one word.
    overlaps = [a.padded(3, 0).overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i]]
    assert not any(overlaps)


@pytest.mark.parametrize("seed", range(3))
def test_lines_to_labels_cross_neither_each_other_nor_a_label(seed: int) -> None:
    _, ax = plt.subplots(figsize=(3.8, 3.4), dpi=100)
    rng = np.random.default_rng(seed)
    x = rng.standard_t(3, 600).clip(-7, 7)
    y = np.abs(x) * rng.uniform(0.3, 1.0, 600)
    ax.scatter(x, y)
    ax.set(xlim=(-8, 8), ylim=(0, 8))
    top = np.argsort(-np.abs(x) - y)[:25]
    names = [f"GENE{i}" if i % 3 else f"ENSG{i:011d}" for i in top]
    written = place_labels(ax, x[top], y[top], names, avoid=np.column_stack([x, y]))
    assert len(written) >= 15
    ax.figure.canvas.draw()
    renderer = ax.figure.canvas.get_renderer()
    boxes = [Text.get_window_extent(text, renderer) for text in ax.texts]
    lines = [text.arrow_patch.get_path() for text in ax.texts]
    lines = [Path(line.vertices[[0, -1]]) for line in lines]
    for i, (box, line) in enumerate(zip(boxes, lines, strict=True)):
        others = [j for j in range(len(boxes)) if j != i]
        assert not any(box.overlaps(boxes[j]) for j in others)
        assert not any(line.intersects_path(lines[j]) for j in others)
        assert not any(line.intersects_bbox(boxes[j].padded(-0.5)) for j in others)


def test_embedding_draws_every_cell_once(
    tiny_screen: ad.AnnData, predicted: ad.AnnData, tiny_model: Any
) -> None:
    generated = tiny_model.generate(30)
    ax = cd.pl.embedding(tiny_screen, predicted, generated, "A")
    n_controls = int((tiny_screen.obs["perturbation"] == "control").sum())
    n_measured = int((tiny_screen.obs["perturbation"] == "A").sum())
    assert len(offsets(ax)) == 2 * n_controls + n_measured + 30
    assert len(ax.get_legend().get_texts()) == 4
    with pytest.raises(UnknownNameError, match="basis"):
        cd.pl.embedding(tiny_screen, predicted, basis="tsne")  # type: ignore[arg-type]


def test_embedding_along_the_effect_has_the_means_at_zero_and_one(
    tiny_screen: ad.AnnData, predicted: ad.AnnData
) -> None:
    ax = cd.pl.embedding(tiny_screen, predicted, perturbation="A", basis="effect")
    lines = [line.get_xdata()[0] for line in ax.get_lines()]
    assert lines[0] == pytest.approx(0.0, abs=1e-6)
    assert lines[1] == pytest.approx(1.0, abs=1e-6)
    assert len(lines) == 3
    assert [t.get_text() for t in ax.get_xticklabels()] == ["control", "perturbed"]


def test_embedding_plane_does_not_depend_on_the_prediction(
    tiny_screen: ad.AnnData, predicted: ad.AnnData
) -> None:
    def measured_points(cells: ad.AnnData) -> np.ndarray:
        ax = cd.pl.embedding(tiny_screen, cells, perturbation="A")
        xy, color = offsets(ax), ax.collections[0].get_facecolors()
        grey = np.isclose(color[:, 0], color[:, 1])
        return np.sort(xy[grey], axis=0)

    worse = predicted.copy()
    # Counts of other cells; only whole multiples would not pass for counts.
    worse.layers["counts"] = worse.layers["counts"].tocsr()[::-1]
    np.testing.assert_allclose(measured_points(predicted), measured_points(worse), atol=1e-5)


def test_distributions(tiny_screen: ad.AnnData, predicted: ad.AnnData) -> None:
    genes = list(tiny_screen.var_names[:3])
    axes = cd.pl.distributions(tiny_screen, predicted, genes, "A")
    assert [ax.get_title(loc="left") for ax in axes] == genes
    with pytest.raises(InputError, match="say which"):
        cd.pl.distributions(tiny_screen, predicted, genes)
    with pytest.raises(UnknownNameError, match="gene"):
        cd.pl.distributions(tiny_screen, predicted, "NOPE", "A")


def test_scores_puts_the_best_on_top_and_marks_the_ceiling() -> None:
    table = pd.DataFrame(
        {"pearson": [0.2, 0.9, 0.5, 0.95], "nmse": [1.0, 0.2, np.nan, 0.1]},
        index=["no change", "celldit", "ridge", "ceiling"],
    )
    axes = cd.pl.scores(table)
    assert isinstance(axes, list)
    assert [t.get_text() for t in axes[0].get_yticklabels()] == ["no change", "ridge", "celldit"]
    assert axes[0].lines[0].get_xdata()[0] == pytest.approx(0.95)
    assert any(t.get_text() == "no value" for t in axes[1].texts)
    assert isinstance(cd.pl.scores(table, "nmse"), Axes)
    with pytest.raises(UnknownNameError, match="energy"):
        cd.pl.scores(table, ["energy"])
    with pytest.raises(InputError):
        cd.pl.scores(table.loc[["ceiling"]])


def test_training_curves(tiny_model: Any, tiny_screen: ad.AnnData, train_tiny: Any) -> None:
    axes = cd.pl.training_curves(tiny_model)
    assert len(axes) == sum(bool(rows) for rows in tiny_model.history.values())
    first = tiny_model.history["flow"]
    drawn = axes[0].lines[0]
    kind = next(name for name in first[0] if name != "epoch")
    np.testing.assert_allclose(drawn.get_ydata(), [row[kind] for row in first])
    assert drawn.get_xdata()[0] == 1
    assert axes[0].get_ylim()[0] == 0
    for weight, said in ((0.0, "the effect model predicts alone"), (0.5, "weight is 0.5")):
        shown = cd.pl.training_curves(tiny_model.weighted(weight), palette={"trained": "red"})
        assert said in shown[0].get_title(loc="left")
    # The flow from noise beside the dashed line that it starts at, and what it gained.
    noise = tiny_model.history["noise"]
    course, start = axes[1].lines
    np.testing.assert_allclose(course.get_ydata(), [row["held_out_error"] for row in noise])
    assert start.get_ydata()[0] == noise[0]["before"]
    for error, said in ((0.9, "10.0% below its start"), (1.1, "no gain")):
        rows = [{"epoch": 1.0, "held_out_error": error, "before": 1.0}]
        (alone,) = cd.pl.training_curves(SimpleNamespace(history={"noise": rows}))
        assert said in alone.get_title(loc="left")
    with pytest.raises(InputError, match="0 epochs"):
        cd.pl.training_curves(train_tiny(tiny_screen, max_epochs=0))


def test_effect_heatmap_and_calibration(tiny_screen: ad.AnnData, tiny_model: Any) -> None:
    effects = cd.tl.effects(tiny_screen, tiny_model, ["A", "B", "C"])
    ax = cd.pl.effect_heatmap(effects, n_genes=7)
    assert ax.images[0].get_array().shape == (9, 7)
    ax = cd.pl.effect_heatmap(effects, genes=["gene3", "gene1"])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["gene3", "gene1"]
    for few in (effects[effects["perturbation"] == "A"].iloc[:40], effects):
        ax = cd.pl.effect_heatmap(few, n_genes=7)
        ax.figure.draw_without_rendering()
        (bar,) = (other for other in ax.figure.axes if other is not ax)
        box = bar.get_tightbbox()
        # Beside one row the bar's numbers lay on each other, and it was eight points high.
        assert max(bar.get_position().bounds[2:]) * min(ax.figure.get_size_inches()) > 0.5
        assert ax.figure.bbox.contains(*box.min)
        assert ax.figure.bbox.contains(*box.max)
    ax = cd.pl.calibration(tiny_screen, effects)
    covered = np.asarray(ax.lines[1].get_ydata())
    assert (np.diff(covered) >= 0).all()
    assert 0 <= covered[0] <= covered[-1] <= 1
    with pytest.raises(InputError, match="sd"):
        cd.pl.effect_heatmap(effects.drop(columns="sd"))


def test_calibration_of_a_perfect_statement_lies_on_the_diagonal(
    simulate_screen: Callable[..., ad.AnnData],
) -> None:
    adata = simulate_screen(n_cells=2000, n_genes=400, labels=("control", "A"), donors=("d1",))
    # Labels are shuffled, so that no gene differs and all error is sampling.
    adata.obs["perturbation"] = np.random.default_rng(0).permutation(adata.obs["perturbation"])
    cd.CellDiT.setup_anndata(adata, perturbation_key="perturbation", control="control")
    effects = pd.DataFrame(
        {
            "perturbation": "A",
            "context": "",
            "gene": adata.var_names,
            "log_fold_change": 0.0,
            "sd": 0.0,
        }
    )
    line = cd.pl.calibration(adata, effects).lines[1]
    np.testing.assert_allclose(line.get_ydata(), line.get_xdata(), atol=0.1)


def test_courses_need_several_values(tiny_screen: ad.AnnData, tiny_model: Any) -> None:
    effects = cd.tl.effects(tiny_screen, tiny_model, "A")
    with pytest.raises(InputError, match="dose=\\["):
        cd.pl.dose_response(effects)
    doses = pd.concat([effects.assign(dose=d) for d in (0.1, 1.0, 10.0)])
    ax = cd.pl.dose_response(doses, ["gene2"])
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [0.1, 1, 10])
    assert ax.get_xscale() == "log"
    assert isinstance(cd.pl.trajectory(doses.rename(columns={"dose": "time"})), Axes)
    with pytest.raises(InputError, match="dose_response"):
        cd.pl.effect_heatmap(doses)


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_effect_heatmap_shows_the_largest_changes_even_where_none_is_sure(scale: float) -> None:
    """Genes that do not move have small deviations, and were shown instead."""
    effects = pd.DataFrame(
        {
            "perturbation": "A",
            "context": "",
            "gene": ["still", "larger, unsure", "large", "quiet"],
            "log_fold_change": np.array([1e-6, 2.0, 1.5, 1e-6]),
            "sd": np.array([0.05, 1.9, 0.5, 0.06]) / scale,
        }
    )
    ax = cd.pl.effect_heatmap(effects, n_genes=2)
    shown = {t.get_text() for t in ax.get_xticklabels()}
    assert shown == {"large", "larger, unsure"}


def test_attention_heat_map() -> None:
    table = pd.DataFrame(
        {
            "perturbation": ["A"] * 4 + ["control"] * 4,
            "context": "",
            "reader": ["HALLMARK_HYPOXIA", "HALLMARK_HYPOXIA", "other", "other"] * 2,
            "token": ["HALLMARK_HYPOXIA", "other"] * 4,
            "attention": [0.7, 0.3, 0.2, 0.8, 0.5, 0.5, 0.5, 0.5],
            "difference": [0.2, -0.2, -0.3, 0.3, 0, 0, 0, 0],
        }
    )
    ax = cd.pl.attention(table)
    assert {t.get_text() for t in ax.get_yticklabels()} == {"HYPOXIA", "other"}
    assert np.abs(ax.images[0].get_array()).max() == pytest.approx(0.3)
    with pytest.raises(InputError, match="say which"):
        cd.pl.attention(table, difference=False)
    with pytest.raises(UnknownNameError, match="'B'"):
        cd.pl.attention(table, "B")


def programs_table() -> pd.DataFrame:
    rows = [
        ("A", where, program, effect + network, effect, network)
        for where in ("d1", "d2")
        for program, effect, network in (
            ("HALLMARK_HYPOXIA", 0.5, 0.2),
            ("other", 0.2, -0.1),
            ("outside the tokens", 0.2, 0.0),
        )
    ]
    names = ["perturbation", "context", "program", "share", "effect_model", "network"]
    return pd.DataFrame(rows, columns=names)


def test_programs_draw_both_parts_of_the_shift() -> None:
    ax = cd.pl.programs(programs_table())
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names == ["other", "outside the tokens", "HYPOXIA"]
    widths = sorted(round(bar.get_width(), 6) for bar in ax.patches)
    assert widths == [-10, 0, 20, 20, 20, 50]
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [10, 20, 70])
    assert "2 contexts" in ax.get_title(loc="left")
    assert "d1" in cd.pl.programs(programs_table(), context="d1").get_title(loc="left")
    assert len(cd.pl.programs(programs_table(), n_programs=1).patches) == 2
    grouped = pd.concat([programs_table().assign(kind=kind) for kind in "xyz"])
    title = cd.pl.programs(grouped, context="d1").get_title(loc="left")
    assert title.endswith("d1, mean of 3 groups")


def test_programs_refuse_other_tables() -> None:
    with pytest.raises(InputError, match=r"what cd\.tl\.programs returns"):
        cd.pl.programs(pd.DataFrame({"perturbation": ["A"]}))
    two = pd.concat([programs_table(), programs_table().assign(perturbation="B")])
    with pytest.raises(InputError, match="holds 2 perturbations; say which"):
        cd.pl.programs(two)
    with pytest.raises(UnknownNameError, match="'C'"):
        cd.pl.programs(two, "C")
    with pytest.raises(UnknownNameError, match="'d3'"):
        cd.pl.programs(two, "B", context="d3")
    with pytest.raises(InputError, match="n_programs=0 must be a whole number of at least 1"):
        cd.pl.programs(programs_table(), n_programs=0)


def attention_table(n_tokens: int = 9, n_slots: int = 3) -> pd.DataFrame:
    """Tokens 0 to 2 gain attention of one reader, 3 to 5 of another; the others change little."""
    rng = np.random.default_rng(0)
    difference = 0.001 * rng.random((n_slots, n_tokens))
    difference[0, :3] += 0.1
    difference[1, 3:6] += 0.1
    rows = [
        (
            "A",
            "",
            f"reader {slot}",
            f"SET_{token}",
            0.1 + difference[slot, token],
            difference[slot, token],
        )
        for slot in range(n_slots)
        for token in range(n_tokens)
    ]
    names = ["perturbation", "context", "reader", "token", "attention", "difference"]
    return pd.DataFrame(rows, columns=names)


def test_attention_network_joins_what_is_read_together() -> None:
    ax = cd.pl.attention_network(attention_table(), n_edges=6)
    names = [text.get_text() for text in ax.texts]
    assert sorted(names) == [f"SET {i}" for i in range(9)]
    at = np.asarray(ax.collections[0].get_offsets())
    groups = []
    for patch in ax.patches:
        ends = np.asarray(patch.get_path().vertices)[[0, 2]]
        tokens = [names[np.linalg.norm(at - end, axis=1).argmin()] for end in ends]
        groups.append({int(name.split()[1]) // 3 for name in tokens})
    assert sorted(map(sorted, groups)) == [[0]] * 3 + [[1]] * 3
    whole = cd.pl.attention_network(attention_table(), difference=False)
    assert len(whole.texts) == 9
    with pytest.raises(InputError, match="at least 3 tokens"):
        cd.pl.attention_network(attention_table(n_tokens=2))
    with pytest.raises(InputError, match="n_tokens"):
        cd.pl.attention_network(attention_table(), n_tokens=2)


def test_network_names_never_cover_each_other() -> None:
    table = attention_table(n_tokens=20)
    table["token"] = "HALLMARK_A_GENE_SET_OF_A_LONG_" + table["token"]
    ax = cd.pl.attention_network(table)
    ax.figure.canvas.draw()
    inside = ax.get_window_extent()
    for text in ax.texts:
        box = text.get_window_extent()
        assert inside.x0 <= box.x0
        assert box.x1 <= inside.x1
        assert inside.y0 <= box.y0
        assert box.y1 <= inside.y1
    at = np.asarray(ax.collections[0].get_offsets())
    # Names run outward from points that are farther apart than the letters are high.
    gap = np.linalg.norm(np.diff(ax.transData.transform(1.13 * at), axis=0), axis=1).min()
    assert gap > 6.5 * ax.figure.dpi / 72


def test_trajectory_of_cells_passes_through_their_means(
    simulate_screen: Callable[..., ad.AnnData], train_tiny: Callable[..., Any]
) -> None:
    adata = simulate_screen(n_cells=240, labels=("control",), donors=("d1",))
    adata.obs["day"] = np.arange(240) % 2 + 10.0
    cd.CellDiT.setup_anndata(adata, time_key="day")
    model = train_tiny(adata)
    path = model.trajectory(adata[adata.obs["day"] == 10], times=[10, 10.5, 11])
    ax = cd.pl.trajectory(path, ["gene1", "gene2"], measured=adata)
    assert isinstance(ax, Axes)
    line = ax.lines[0]
    np.testing.assert_array_equal(line.get_xdata(), [10, 10.5, 11])
    assert line.get_label() == "gene1"
    first = path[path.obs["day"] == 10]
    counts = first.layers["counts"][:, 1].toarray().ravel() / first.obs["size_factor"] * 1e4
    assert line.get_ydata()[0] == pytest.approx(np.log1p(counts).mean(), rel=1e-4)
    assert len(ax.lines[1].get_xdata()) == 2
    assert len(cd.pl.trajectory(path, n_genes=3).lines) == 3
    with pytest.raises(UnknownNameError, match="NOPE"):
        cd.pl.trajectory(path, "NOPE")
    with pytest.raises(InputError, match="two times"):
        cd.pl.trajectory(first)
    with pytest.raises(InputError, match="time_key"):
        cd.pl.trajectory(model.generate(5), measured=simulated_without_time(adata))


def simulated_without_time(adata: ad.AnnData) -> ad.AnnData:
    other = adata.copy()
    other.uns.clear()
    cd.CellDiT.setup_anndata(other)
    return other


def test_save_show_and_ax(tmp_path: Any) -> None:
    table = pd.DataFrame({"pearson": [0.2, 0.5]}, index=["no change", "ridge"])
    _, mine = plt.subplots()
    before = dict(mpl.rcParams)
    assert cd.pl.scores(table, ax=mine, save=tmp_path / "scores.pdf") is mine
    assert (tmp_path / "scores.pdf").stat().st_size > 0
    assert dict(mpl.rcParams) == before
    with pytest.raises(InputError, match="must end in"):
        cd.pl.scores(table, save=tmp_path / "scores.docx")
    with pytest.raises(OSError, match="Cannot write"):
        cd.pl.scores(table, save=tmp_path / "missing" / "scores.pdf")


def test_a_backend_loaded_by_the_first_figure_stays_interactive() -> None:
    before = dict(mpl.rcParams)
    with style():
        assert mpl.rcParams["axes.titlelocation"] == "left"
        plt.ion()  # as the backend of notebooks does when it is loaded
    assert mpl.is_interactive()
    plt.ioff()
    assert dict(mpl.rcParams) == before


def test_scores_of_the_challenge_have_intervals() -> None:
    table = pd.DataFrame(
        {"pds": [0.4, 1.2, 1.0], "composite": [0.3, 0.9, 1.0], "low": [0.1, 0.7, np.nan],
         "high": [0.5, 1.1, np.nan]},
        index=["nearest", "celldit", "ceiling"],
    )  # fmt: skip
    axes = cd.pl.scores(table, show=False)
    assert len(axes) == 2
    widths = [
        path.vertices[:, 0].tolist()
        for collection in axes[1].collections
        for path in getattr(collection, "get_paths", list)()
    ]
    assert [0.7, 1.1] in widths
    assert [0.1, 0.5] in widths
