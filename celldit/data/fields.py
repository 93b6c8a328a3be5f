"""Fields: what the columns of an AnnData mean, said once and kept in ``adata.uns``."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

from celldit.data.checks import check_anndata, check_setup
from celldit.data.labels.columns import number_column
from celldit.data.labels.labels import as_text
from celldit.data.labels.times import find_bins, warn_times
from celldit.data.screens.modality import modality_in_use
from celldit.errors import InputError

#: Fields that are several names.
_LISTS = ("covariate_keys", "other_controls", "time_bins")
_ASK_FOR_SETUP = "call celldit.CellDiT.setup_anndata(adata, perturbation_key=..., ...) first"


@dataclass(frozen=True)
class Fields:
    """What the columns of an AnnData mean.

    Parameters
    ----------
    perturbation_key, control, covariate_keys, size_factor_key, counts_layer, dose_key, time_key, \
perturbation_sep
        As in :func:`setup_anndata`; of several controls the first.
    other_controls
        Labels that mean the control, too.
    time_bins
        Times that were joined, as text (:mod:`celldit.data.labels.times`).
    """

    perturbation_key: str | None = None
    control: str = "control"
    covariate_keys: tuple[str, ...] = ()
    size_factor_key: str | None = None
    counts_layer: str | None = None
    dose_key: str | None = None
    time_key: str | None = None
    perturbation_sep: str = "+"
    other_controls: tuple[str, ...] = ()
    time_bins: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Write the fields that are set as text and lists of text, as ``.h5ad`` and JSON keep."""
        entries = {k: list(v) if k in _LISTS else v for k, v in asdict(self).items()}
        return {key: value for key, value in entries.items() if value is not None and value != []}

    @property
    def columns(self) -> list[tuple[str, str]]:
        """The columns of ``obs`` that are named, each behind the argument that names it."""
        single = ("perturbation_key", "size_factor_key", "dose_key", "time_key")
        named = [(role, getattr(self, role)) for role in single]
        named = [(role, key) for role, key in named if key is not None]
        return [*named, *(("covariate_keys", key) for key in self.covariate_keys)]

    def arguments(self) -> dict[str, Any]:
        """The fields that are set, as arguments of :func:`setup_anndata`."""
        entries = self.to_dict()
        entries.pop("time_bins", None)
        entries["control"] = [self.control, *entries.pop("other_controls", [])]
        return entries

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Fields:
        """Read what :meth:`to_dict` wrote; a file turns lists into arrays.

        Raises
        ------
        InputError
            If an entry is not a field.
        """
        unknown = sorted(set(entries) - set(cls.__dataclass_fields__))
        if unknown:
            raise InputError(f"The stored setup has entries that celldit does not know: {unknown}.")
        read: dict[str, Any] = {key: str(v) for key, v in entries.items() if key not in _LISTS}
        for name in _LISTS:
            keys = entries.get(name, ())
            read[name] = (keys,) if isinstance(keys, str) else tuple(str(k) for k in keys)
        return cls(**read)

    @classmethod
    def from_anndata(cls, adata: ad.AnnData) -> Fields:
        """Read the fields that :func:`setup_anndata` stored.

        Raises
        ------
        InputError
            If ``adata`` was not set up, or is no AnnData.
        """
        check_anndata(adata)
        setup = stored_setup(adata.uns)
        if setup is None:
            raise InputError(f"This AnnData was not set up for celldit; {_ASK_FOR_SETUP}.")
        return cls.from_dict(setup)


def stored_setup(uns: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What :func:`setup_anndata` stored of the columns; None where it has not run."""
    stored = uns.get("celldit")
    setup = stored.get("setup") if isinstance(stored, Mapping) else None
    return setup if isinstance(setup, Mapping) else None


def is_set_up(adata: ad.AnnData) -> bool:
    """Whether :func:`setup_anndata` stored what the columns mean."""
    return stored_setup(adata.uns) is not None


def setup_anndata(
    adata: ad.AnnData,
    *,
    perturbation_key: str | None = None,
    control: object = "control",
    covariate_keys: Sequence[str] = (),
    size_factor_key: str | None = None,
    counts_layer: str | None = None,
    dose_key: str | None = None,
    time_key: str | None = None,
    perturbation_sep: str = "+",
    mod: str | None = None,
) -> Fields:
    """Say what the columns of an AnnData mean, and check that the data can be used.

    The fields are stored in ``adata.uns["celldit"]["setup"]`` and survive writing to a file.
    Nothing else is changed, and nothing at all if a check fails.

    Parameters
    ----------
    adata
        N cells x G genes of raw counts; in memory, a view, or backed. Or a MuData, with `mod`.
    perturbation_key
        Column of ``obs`` with the perturbation of each cell, ``"A+B"`` for a combination. None when
        no cell is perturbed (data for generation only).
    control
        The label of unperturbed cells in that column; of several, ``["NT", "safe"]``, the first is
        what they are all called.
    covariate_keys
        Columns of ``obs`` that make up a cell's context (cell type, donor, replicate, ...).
    size_factor_key
        Column of ``obs`` with the library size (total counts) of each cell. Needed when the genes
        are a small subset of those measured; None for the sum over the genes present.
    counts_layer
        Layer with raw counts; None for ``X``.
    dose_key
        Column of ``obs`` with doses: a number, or one for each part of a combination (``"1+0.5"``).
    time_key
        Column of ``obs`` with times, as numbers; very many with few cells each are joined, with a
        warning (:mod:`celldit.data.labels.times`).
    perturbation_sep
        What stands between two perturbations of one cell.
    mod
        Modality of a MuData that holds counts of genes. It is set up as an AnnData is; columns of
        the MuData's own ``obs`` that it lacks are copied to it.

    Returns
    -------
    Fields

    Raises
    ------
    InputError
        If the matrix does not hold raw counts, cells are empty, genes are named twice, the control
        label does not occur, or a column has values that cannot be used.
    UnknownNameError
        If a column or a layer does not exist; names the closest.
    """
    fields = fields_of(
        perturbation_key=perturbation_key,
        control=control,
        covariate_keys=covariate_keys,
        size_factor_key=size_factor_key,
        counts_layer=counts_layer,
        dose_key=dose_key,
        time_key=time_key,
        perturbation_sep=perturbation_sep,
    )
    with modality_in_use(adata, mod, [key for _, key in fields.columns]) as cells:
        check_setup(cells, fields)
        if time_key is not None:
            times_N = number_column(cells, time_key, "time_key")
            fields = replace(fields, time_bins=find_bins(times_N))
            warn_times(times_N, fields.time_bins, time_key)
        _store(cells, fields)
    return fields


def fields_of(*, control: object, covariate_keys: object, **named: Any) -> Fields:
    """Make fields of what the user gave; see :func:`setup_anndata` for the arguments."""
    first, others = _controls(control)
    return Fields(
        control=first, other_controls=others, covariate_keys=_keys(covariate_keys), **named
    )


def _controls(control: object) -> tuple[str, tuple[str, ...]]:
    """The control's label, and other labels that mean the same."""
    given: Iterable[object] = [control]
    if isinstance(control, (list, tuple, set, np.ndarray, pd.Index, pd.Series)):
        given = control
    names = list(dict.fromkeys(as_text(name) for name in given))
    if not names:
        raise InputError("control=[] names no label; give that of unperturbed cells.")
    return names[0], tuple(names[1:])


def _keys(covariate_keys: object) -> tuple[str, ...]:
    """One name, or several; what is no text among them is refused with all other columns."""
    if covariate_keys is None or isinstance(covariate_keys, str):
        return () if covariate_keys is None else (covariate_keys,)
    if not isinstance(covariate_keys, Iterable):
        raise InputError(
            "covariate_keys takes names of columns, such as ['donor'], not "
            f"{type(covariate_keys).__name__}."
        )
    return tuple(covariate_keys)


def _store(adata: ad.AnnData, fields: Fields) -> None:
    if adata.is_view and adata.isbacked:
        raise InputError(
            "A view of a backed AnnData cannot be set up; bring it into memory first, with "
            "adata = adata.to_memory()."
        )
    stored = adata.uns.get("celldit")
    others = dict(stored) if isinstance(stored, Mapping) else {}
    with warnings.catch_warnings():
        # Writing to a view makes it an AnnData of its own, which is what the caller asks for here.
        warnings.simplefilter("ignore", ad.ImplicitModificationWarning)
        adata.uns["celldit"] = {**others, "setup": fields.to_dict()}
