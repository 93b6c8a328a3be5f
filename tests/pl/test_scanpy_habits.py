"""Every figure takes scanpy's options, in one way."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

import celldit as cd
from celldit.errors import InputError, UnknownNameError

OPTIONS = ("ax", "figsize", "palette", "show", "save", "return_fig")


@pytest.fixture(scope="module")
def arguments(_tiny_screen: ad.AnnData, train_tiny: Callable[..., cd.CellDiT]) -> dict[str, tuple]:
    """What each function of `cd.pl` draws, by name."""
    adata = _tiny_screen.copy()
    model = train_tiny(adata)
    predicted = model.predict(perturbations=["A"])
    effects = cd.tl.effects(adata, model, ["A", "B"], contexts="d1")
    courses = pd.concat([effects.assign(dose=x, time=x) for x in (1.0, 2.0)])
    attention = pd.DataFrame(
        {
            "perturbation": "A",
            "context": "",
            "reader": np.repeat(["r", "s", "t"], 3),
            "token": ["r", "s", "t"] * 3,
            "attention": np.linspace(0.1, 0.6, 9),
            "difference": np.linspace(-0.2, 0.3, 9) ** 3,
        }
    )
    programs = pd.DataFrame(
        {"perturbation": ["A"], "context": ["d1"], "program": ["p"], "share": [0.5]}
    ).assign(effect_model=0.4, network=0.1)
    measured = adata.copy()
    cd.tl.responders(measured)
    cd.tl.interactions(measured)
    return {
        "attention": (attention,),
        "attention_network": (attention,),
        "calibration": (adata, effects),
        "distributions": (adata, predicted, ["gene1", "gene2"]),
        "dose_response": (courses, ["gene1", "gene2"]),
        "effect": (adata, predicted, "A"),
        "effect_heatmap": (effects, ["gene1", "gene2"]),
        "embedding": (adata, predicted),
        "fate_map": (pd.DataFrame([[0.5, 0.5], [1.0, 0.0]], ["a", "b"], ["a", "b"]),),
        "interactions": (measured,),
        "programs": (programs,),
        "responders": (measured, "A"),
        "scores": (pd.DataFrame({"pearson": [0.5, 0.9]}, index=["celldit", "ceiling"]),),
        "training_curves": (model,),
        "trajectory": (courses, ["gene1", "gene2"]),
        "volcano": (effects, "A"),
    }


@pytest.fixture(autouse=True)
def _scanpy_writes_here(tmp_path: Path) -> Iterator[None]:
    before = sc.settings.figdir
    sc.settings.figdir = tmp_path / "figures"
    yield
    sc.settings.figdir, sc.settings.autosave, sc.settings.plot_suffix = before, False, ""
    plt.close("all")


def listed(drawn: Any) -> list[Axes]:
    return drawn if isinstance(drawn, list) else [drawn]


def pixels(whole: Figure) -> np.ndarray:
    whole.canvas.draw()
    return np.asarray(whole.canvas.buffer_rgba())  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", cd.pl.__all__)
def test_every_figure_takes_the_same_options(name: str) -> None:
    function = getattr(cd.pl, name)
    parameters = inspect.signature(function).parameters
    assert tuple(parameters)[-len(OPTIONS) :] == OPTIONS
    assert "options" not in parameters
    lines = inspect.cleandoc(function.__doc__).splitlines()
    assert set(parameters) <= {part for line in lines for part in line.split(", ")}
    assert parameters["return_fig"].default is False
    with pytest.raises(TypeError, match=rf"{name}\(\) got an unexpected keyword .*'figsiez'"):
        function(figsiez=(3, 2), **{p: None for p in parameters if p not in OPTIONS})


@pytest.mark.parametrize("name", cd.pl.__all__)
def test_axes_size_figure_and_file(name: str, arguments: dict[str, tuple], tmp_path: Path) -> None:
    def draw(**options: Any) -> Any:
        return getattr(cd.pl, name)(*arguments[name], **options)

    drawn = listed(draw())
    assert all(isinstance(ax, Axes) for ax in drawn)
    whole = draw(figsize=(5, 4), return_fig=True, save="_day2.png")
    assert isinstance(whole, Figure)
    assert whole.get_size_inches().tolist() == [5, 4]
    assert [path.name for path in (tmp_path / "figures").iterdir()] == [f"{name}_day2.png"]
    _, own = plt.subplots(1, len(drawn), squeeze=False)
    before = plt.get_fignums()
    assert listed(draw(ax=own.ravel().tolist())) == own.ravel().tolist()
    assert plt.get_fignums() == before
    with pytest.raises(InputError, match=r"figsize=3 must be a width and a height"):
        draw(figsize=3)


def test_files_are_named_as_scanpy_names_them(arguments: dict[str, tuple], tmp_path: Path) -> None:
    def draw(save: Any) -> None:
        cd.pl.scores(*arguments["scores"], save=save)

    folder = tmp_path / "figures"
    draw(True)
    draw("_day2.png")
    assert sorted(path.name for path in folder.iterdir()) == ["scores.pdf", "scores_day2.png"]
    for path in (tmp_path / "own.svg", str(tmp_path / "other.svg")):
        draw(path)
        assert Path(path).stat().st_size > 0
    sc.settings.autosave, sc.settings.plot_suffix = True, "_v2"
    draw(None)
    assert (folder / "scores_v2.pdf").exists()
    draw(False)
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("name", cd.pl.__all__)
def test_palettes_change_the_colours(name: str, arguments: dict[str, tuple]) -> None:
    def draw(palette: Any) -> np.ndarray:
        function = getattr(cd.pl, name)
        return pixels(function(*arguments[name], palette=palette, figsize=(3, 3), return_fig=True))

    usual = draw(None)
    np.testing.assert_array_equal(usual, draw(None))
    for palette in ("plasma", ["#FF00FF"] * 9):
        assert (usual != draw(palette)).any()
    with pytest.raises(UnknownNameError, match=r"colour map 'plasmma'.*'plasma'"):
        draw("plasmma")
    with pytest.raises(InputError, match="palette must be colours"):
        draw(["no colour"])


def test_palettes_by_name_and_of_few_colours(arguments: dict[str, tuple]) -> None:
    axes = cd.pl.distributions(*arguments["distributions"], palette={"measured": "#123456"})
    shown = [mpl.colors.to_hex(body.get_facecolor()[0]) for body in axes[0].collections[::2]]
    assert shown[:2] == ["#999999", "#123456"]
    with pytest.raises(UnknownNameError, match=r"name in palette 'mesured'.*'measured'"):
        cd.pl.distributions(*arguments["distributions"], palette={"mesured": "red"})
    with pytest.raises(InputError, match="2 colours, but 3 are drawn"):
        cd.pl.distributions(*arguments["distributions"], palette=["red", "blue"])
    with pytest.raises(InputError, match="palette of effect_heatmap colours numbers"):
        cd.pl.effect_heatmap(*arguments["effect_heatmap"], palette={"gene1": "red"})
    cycler = plt.cycler(color=["red", "green", "blue"])
    assert cd.pl.dose_response(*arguments["dose_response"], palette=cycler)


def test_files_go_where_they_can(arguments: dict[str, tuple], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must end in one of"):
        cd.pl.effect(*arguments["effect"], save="_day2.docx")
    (tmp_path / "figures").write_text("")
    with pytest.raises(OSError, match=r"Cannot write the figure to .*figures"):
        cd.pl.effect(*arguments["effect"], save=True)


GENES = ("distributions", "dose_response", "effect", "effect_heatmap", "trajectory", "volcano")


@pytest.mark.parametrize("name", GENES)
def test_genes_by_symbol(name: str, arguments: dict[str, tuple]) -> None:
    first, *rest = arguments[name]
    symbols = {f"gene{i}": f"SYM{i}" for i in range(100)}
    function = getattr(cd.pl, name)
    options: dict[str, Any] = {"max_lfsr": 1.0} if name == "volcano" else {}
    drawn = listed(function(first, *rest, gene_symbols=pd.Series(symbols), **options))[0]
    written = {text.get_text() for text in drawn.figure.findobj(Text)}
    assert any(text.startswith("SYM") for text in written)
    assert not any(text.startswith("gene") and text[4:].isdigit() for text in written)
    with pytest.raises(UnknownNameError, match="column of genes 'symbols'"):
        function(first, *rest, gene_symbols="symbols")
    with pytest.raises(InputError, match="gene_symbols must be the name of a column"):
        function(first, *rest, gene_symbols=3)


def test_ensembl_ids_are_written_by_the_symbols_beside_them() -> None:
    ids = [f"ENSG{i:011d}.2" for i in range(5)]
    symbols = ["STAT1", "A_SYMBOL_THAT_NO_AXIS_HOLDS", "TWICE", "TWICE", None]
    effects = pd.DataFrame(
        {"perturbation": "A", "context": "", "gene": ids, "symbol": symbols,
         "log_fold_change": np.log(2.0) * np.arange(5), "sd": 0.1}
    )  # fmt: skip
    ax = cd.pl.effect_heatmap(effects)
    shown = {text.get_text() for text in ax.get_xticklabels()}
    assert shown == {"STAT1", "A_SYMBOL_THAT_NO_…", *ids[2:]}
    chosen = cd.pl.effect_heatmap(effects, ["STAT1", ids[4]])
    np.testing.assert_allclose(chosen.images[0].get_array(), [[0, 4]])
    named = effects.assign(gene=[f"g{i}" for i in range(5)])
    assert "g0" in {text.get_text() for text in cd.pl.effect_heatmap(named).get_xticklabels()}
