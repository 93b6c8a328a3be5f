"""One modality of a MuData, known by what it has: the package itself is not needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import anndata as ad

from celldit.arguments import check_known
from celldit.errors import InputError


def modalities(data: Any) -> dict[str, ad.AnnData]:
    """Modalities of a MuData by name; none of anything else."""
    mod = getattr(data, "mod", None)
    if isinstance(data, ad.AnnData) or not isinstance(mod, Mapping):
        return {}
    return {str(name): part for name, part in mod.items() if isinstance(part, ad.AnnData)}


@contextmanager
def modality_in_use(data: Any, mod: str | None, columns: Sequence[str]) -> Iterator[ad.AnnData]:
    """Give the modality `mod` of a MuData, with the columns of ``data.obs`` that it lacks.

    An AnnData is given as it is. `columns` are those that are needed. If what is done within fails,
    they are taken back.

    InputError if `mod` is missing, or given with an AnnData. UnknownNameError if there is no such
    modality.
    """
    parts = modalities(data)
    if not parts:
        if mod is not None and isinstance(data, ad.AnnData):
            raise InputError("adata is an AnnData without modalities, so leave mod= out.")
        yield data
        return
    if mod is None:
        raise InputError(
            f"adata is a MuData with {', '.join(map(repr, parts))}; say which of them holds counts "
            f"of genes, such as mod={'rna' if 'rna' in parts else next(iter(parts))!r}."
        )
    check_known([mod], parts, "modality of adata")
    part = parts[mod]
    lacking = [name for name in columns if isinstance(name, str) and name not in part.obs.columns
               and name in data.obs.columns]  # fmt: skip
    for name in lacking:
        part.obs[name] = data.obs[name].reindex(part.obs_names)
    try:
        yield part
    except BaseException:
        part.obs.drop(columns=lacking, inplace=True)
        raise


def set_up_modality(data: Any) -> Any:
    """The modality of a MuData that was set up; anything else as it is.

    InputError if none was, or several were.
    """
    parts = modalities(data)
    if not parts:
        return data
    ready = [part for part in parts.values() if "celldit" in part.uns]
    if len(ready) != 1:
        first = "rna" if "rna" in parts else next(iter(parts))
        raise InputError(
            f"{len(ready)} of the modalities of this MuData ({', '.join(map(repr, parts))}) were "
            f"set up; call CellDiT.setup_anndata(mdata, mod={first!r}, ...), and pass "
            f"mdata.mod[{first!r}] where several are."
        )
    return ready[0]
