"""What all figures share: axes, size, colours, showing and saving, as scanpy's plots take them."""

from __future__ import annotations

import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypedDict, TypeVar

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from cycler import Cycler
from matplotlib.axes import Axes
from matplotlib.backends import BackendFilter, backend_registry
from matplotlib.colors import Colormap, LinearSegmentedColormap, ListedColormap, is_color_like
from matplotlib.figure import Figure

from celldit.arguments import text_list
from celldit.errors import FileError, InputError, UnknownNameError
from celldit.pl.style import style

Palette = str | Sequence[Any] | Mapping[str, Any] | Cycler
P = ParamSpec("P")
R = TypeVar("R")

DPI = 200


class FigureOptions(TypedDict, total=False):
    """Options of every figure; :class:`Canvas` says what they are."""

    ax: Axes | Sequence[Axes] | None
    figsize: tuple[float, float] | None
    palette: Palette | None
    show: bool | None
    save: bool | str | os.PathLike[str] | None
    return_fig: bool


#: What a docstring says of each, in place of ``**options``.
_ABOUT = {
    "ax": "Axes to draw on; None for a new figure.",
    "figsize": "Width and height of a new figure in inches.",
    "palette": "Colours of what is drawn, in order or by name, or the name of a colour map.",
    "show": (
        "Whether to show the figure; None shows a new one that is not saved, where matplotlib has "
        "a window. Notebooks show figures by themselves."
    ),
    "save": (
        "True, or text such as ``'_day2.png'``, writes into ``scanpy.settings.figdir``, under the "
        "name of the function with the text behind it; a path, or text with a folder, is the file "
        "itself."
    ),
    "return_fig": "Whether to return the figure instead of its axes.",
}
_RETURNED = """
Returns
-------
matplotlib.axes.Axes, or a list of them where there are several panels
    With ``return_fig`` their matplotlib.figure.Figure.
"""


def figure(draw: Callable[Concatenate[Canvas, P], R]) -> Callable[P, R]:
    """Give the options of every figure to a function that draws on a canvas and returns axes.

    It takes the canvas first, and ``**options`` for those who read its types; they are in the
    canvas. Its docstring has ``**options``, with "See :mod:`celldit.pl`; what the axes are." What
    it returns is said after them, unless its docstring says it.
    """
    name, signature = draw.__name__, inspect.signature(draw)
    _, *kept = (p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD)
    fields = inspect.signature(Canvas).parameters
    added = [fields[n].replace(kind=inspect.Parameter.KEYWORD_ONLY) for n in _ABOUT]
    shown = signature.replace(parameters=[*kept, *added])

    @functools.wraps(draw)
    def drawn(*given: P.args, **named: P.kwargs) -> R:
        for argument in named:
            if argument not in shown.parameters:
                raise TypeError(f"{name}() got an unexpected keyword argument {argument!r}")
        asked: dict[str, Any] = {n: named.pop(n) for n in _ABOUT if n in named}
        canvas = Canvas(name, **asked)
        with style():
            axes = draw(canvas, *given, **named)
        return canvas.finish(axes)

    drawn.__signature__ = shown  # type: ignore[attr-defined]
    types = {n: kind for n, kind in draw.__annotations__.items() if n not in ("canvas", "options")}
    drawn.__annotations__ = {**types, **FigureOptions.__annotations__}
    text = inspect.cleandoc(draw.__doc__ or "")
    found = re.search(r"^\*\*options\n((?:    .*\n?)*)", text, flags=re.MULTILINE)
    if found is not None:
        own = " ".join(found[1].split()).removeprefix("See :mod:`celldit.pl`").strip(";. ")
        returned = "" if "\nReturns\n" in text else _RETURNED
        text = text[: found.start()] + _described(own) + returned + text[found.end() :]
    drawn.__doc__ = text
    return drawn


def _described(own: str) -> str:
    axes = f"{_ABOUT['ax']} {own[:1].upper()}{own[1:]}." if own else _ABOUT["ax"]
    texts = {**_ABOUT, "ax": axes}
    return "".join(f"{name}\n    {text}\n" for name, text in texts.items())


@dataclass(frozen=True)
class Canvas:
    """Where a figure is drawn, in which colours, and what becomes of it.

    `name` is that of the function that draws; files are named by it. The rest are the user's
    options, as :data:`_ABOUT` says. InputError if a size or colour is none, or the ending of a file
    is not a format that matplotlib writes.
    """

    name: str
    ax: Axes | Sequence[Axes] | None = None
    figsize: tuple[float, float] | None = None
    palette: Palette | None = None
    show: bool | None = None
    save: bool | str | os.PathLike[str] | None = None
    return_fig: bool = False

    def __post_init__(self) -> None:
        size = self.figsize
        if size is not None:
            numbers = list(size) if isinstance(size, (tuple, list, np.ndarray)) else []
            if len(numbers) != 2 or not all(isinstance(x, Real) and 0 < x < 1000 for x in numbers):
                raise InputError(
                    f"figsize={size!r} must be a width and a height in inches, as in (6, 4)."
                )
        if self.palette is not None:
            object.__setattr__(self, "palette", _read_palette(self.palette))
        if isinstance(self.save, (str, os.PathLike)):
            file_ending(self.save)

    def panels(self, n: int, *, size: tuple[float, float], columns: int = 4) -> list[Axes]:
        """Begin a figure with n panels, so many side by side at most, or take the user's axes.

        `size` is the width and height of a panel in inches. InputError if the number of the user's
        axes is not the number of panels.
        """
        if self.ax is not None:
            ax = self.ax
            given = [ax] if isinstance(ax, Axes) else list(np.ravel(np.asarray(ax, dtype=object)))
            if len(given) != n or not all(isinstance(a, Axes) for a in given):
                raise InputError(
                    f"ax= must be {n} matplotlib axes, one for each panel, but holds {len(given)}; "
                    "leave it out for a new figure."
                )
            return given
        columns = min(n, columns)
        rows = -(-n // columns)
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=self.figsize or (size[0] * columns, size[1] * rows),
            squeeze=False,
            layout="constrained",
        )
        for unused in axes.ravel()[n:]:
            figure.delaxes(unused)
        return list(axes.ravel()[:n])

    def colors(
        self, names: Sequence[str], default: Sequence[str], others: Sequence[str] = ()
    ) -> list[Any]:
        """Colours of what is drawn, one for each name; the default ones repeat where they are few.

        `others` are names that other panels draw. InputError if the user gave fewer colours than
        there are names, UnknownNameError if to a name that is not drawn.
        """
        palette = self.palette
        usual = [default[i % len(default)] for i in range(len(names))]
        if palette is None:
            return usual
        if isinstance(palette, Mapping):
            for name in palette:
                if name not in {*names, *others}:
                    raise UnknownNameError.among("name in palette", name, [*names, *others])
            return [palette.get(name, color) for name, color in zip(names, usual, strict=True)]
        if isinstance(palette, Colormap):
            few = isinstance(palette, ListedColormap) and palette.N <= 20
            palette = [palette(i) for i in (range(palette.N) if few else
                                            np.linspace(0, 1, len(names)))]  # fmt: skip
        given = list(palette)
        if len(given) < len(names):
            raise InputError(
                f"palette holds {len(given)} colours, but {len(names)} are drawn "
                f"({', '.join(map(str, names))}); give as many, or the name of a colour map, as in "
                "palette='viridis'."
            )
        return given[: len(names)]

    def colormap(self, default: str) -> Colormap:
        """The user's colour map, or one through the colours; InputError if these have names."""
        palette = self.palette
        if palette is None or isinstance(palette, Colormap):
            return palette if palette is not None else mpl.colormaps[default]
        if isinstance(palette, Mapping):
            raise InputError(
                f"palette of {self.name} colours numbers; give the name of a colour map, as in "
                "palette='viridis', or a list of colours."
            )
        given = list(palette)
        return LinearSegmentedColormap.from_list("palette", given * 2 if len(given) == 1 else given)

    def finish(self, drawn: Any) -> Any:
        """Save and show the figure of axes as the options say; FileError if it cannot be written.

        The axes are returned as they came, or their figure.
        """
        first = drawn if isinstance(drawn, Axes) else drawn[0]
        whole = first.get_figure(root=True)
        assert isinstance(whole, Figure)
        path = self._path()
        if path is not None:
            dpi = mpl.rcParams["savefig.dpi"]
            try:
                with style():
                    whole.savefig(path, dpi=DPI if dpi == "figure" else dpi, bbox_inches="tight")
            except OSError as error:
                raise FileError(f"Cannot write the figure to {path}: {error.strerror}.") from error
        show = self.show
        if show is None:
            show = self.ax is None and path is None and _has_window() and _scanpy("autoshow", True)
        if show:
            plt.show()
        return whole if self.return_fig else drawn

    def _path(self) -> Path | None:
        save = _scanpy("autosave", False) if self.save is None else self.save
        if save is False or save is None:
            return None
        if isinstance(save, os.PathLike) or (isinstance(save, str) and os.path.dirname(save)):
            return Path(os.fspath(save))
        import scanpy as sc

        text = "" if save is True else str(save)
        ending = file_ending(text) or str(sc.settings.file_format_figs)
        stem = text.removesuffix(f".{ending}")
        folder = Path(sc.settings.figdir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"Cannot write the figure to {folder}: {error.strerror}.") from error
        path = folder / f"{self.name}{stem}{sc.settings.plot_suffix}.{ending}"
        sc.logging.warning(f"saving figure to file {path}")
        return path


def known_names(
    given: Sequence[str] | str, known: Sequence[Any], argument: str, what: str
) -> list[str]:
    """The names that a user chose; UnknownNameError, which says what they are, if one is none."""
    names = text_list(given, argument)
    for name in names:
        if name not in known:
            raise UnknownNameError.among(what, name, known)
    return names


def one_name(
    given: str | None,
    known: Sequence[Any],
    argument: str,
    where: str,
    usable: Sequence[Any] | None = None,
) -> Any:
    """The name that a user chose of those known, or the only one that is usable, by default any.

    InputError if none is chosen and there are several; UnknownNameError if the one that is chosen
    is not known.
    """
    if given is not None:
        if given not in known:
            raise UnknownNameError.among(f"{argument} in {where.lower()}", given, known)
        return given
    usable = known if usable is None else usable
    if len(usable) != 1:
        raise InputError(
            f"{where} holds {len(usable)} {argument}s; say which, such as {argument}={known[-1]!r}."
        )
    return usable[0]


def color_bar(ax: Axes, drawn: Any, label: str, **place: Any) -> None:
    """Put a bar without a frame beside axes; `place` as matplotlib's ``colorbar`` takes it."""
    bar = ax.figure.colorbar(drawn, ax=ax, **place)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)


def _read_palette(palette: object) -> Any:
    """A colour map, a mapping to colours, or a list of colours.

    InputError if one is no colour, UnknownNameError if there is no colour map of that name.
    """
    if isinstance(palette, Cycler):
        palette = list(palette.by_key().get("color", []))
    if isinstance(palette, Colormap):
        return palette
    if isinstance(palette, str):
        if palette in mpl.colormaps:
            return mpl.colormaps[palette]
        if not is_color_like(palette):
            raise UnknownNameError.among("colour map", palette, list(mpl.colormaps))
        return [palette]
    values: list[Any] = []
    if isinstance(palette, Mapping):
        values = list(palette.values())
    elif isinstance(palette, (list, tuple, np.ndarray)):
        values = list(palette)
    if not values or not all(map(is_color_like, values)):
        raise InputError(
            "palette must be colours, in a list or by name, or the name of a colour map, as in "
            "palette='viridis'."
        )
    return palette if isinstance(palette, Mapping) else values


def file_ending(save: str | os.PathLike[str]) -> str:
    """Ending of a file without its dot, "" where text has none; InputError if nobody writes it."""
    ending = Path(os.fspath(save)).suffix or (str(save) if str(save).startswith(".") else "")
    ending = ending.lstrip(".")
    formats = Figure().canvas.get_supported_filetypes()
    is_file = isinstance(save, os.PathLike) or bool(os.path.dirname(save))
    if ending.lower() not in formats and (is_file or ending.isalpha()):
        raise InputError(
            f"save={str(save)!r} must end in one of {', '.join(sorted(formats))}, such as "
            "'figure.pdf'."
        )
    return ending if ending.lower() in formats else ""


def _has_window() -> bool:
    known = backend_registry.list_builtin(BackendFilter.INTERACTIVE)
    return plt.get_backend().lower() in {name.lower() for name in known}


def _scanpy(setting: str, default: bool) -> bool:
    """A setting of scanpy, which nobody can have changed before it was imported."""
    scanpy = sys.modules.get("scanpy")
    return default if scanpy is None else bool(getattr(scanpy.settings, setting))
