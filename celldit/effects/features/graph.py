"""Networks of genes as features of perturbations: edges in, a kernel out.

With Ã the adjacency of a network, weighed by the inverse square roots of the degrees, two genes are
as alike as two steps of a lazy random walk on it say (the p-step random walk kernel with p = 2;
Smola & Kondor 2003),

    K = B Bᵀ,   B = (I + Ã) / 2.

B is as sparse as the network: each gene is a member of its own neighbourhood and of those of its
neighbours, as others are of gene sets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from celldit.errors import InputError


def graph_table(edges: pd.DataFrame) -> dict[str, Any]:
    """Memberships in neighbourhoods, in the form that ``uns`` holds of a sparse table.

    Parameters
    ----------
    edges
        Two columns of names, in either direction, and a weight above 0 where there is a third.

    Raises
    ------
    InputError
        If a weight is missing, not above 0, or there is no edge.
    """
    first, second = (edges.iloc[:, i].astype(str).to_numpy() for i in (0, 1))
    weight = np.ones(len(edges))
    if edges.shape[1] > 2:
        weight = edges.iloc[:, 2].to_numpy(dtype=np.float64)
    if not len(edges) or not np.isfinite(weight).all() or (weight <= 0).any():
        raise InputError(
            "A network needs edges with weights above 0: two columns of names, and a third of "
            "weights or none; drop the edges that have none."
        )
    names, place = np.unique(np.concatenate([first, second]), return_inverse=True)
    row, column = np.split(place, 2)
    apart = row != column
    one_way = sparse.csr_matrix(
        (weight[apart], (row[apart], column[apart])), shape=(len(names), len(names))
    )
    # An edge that is listed both ways is one edge.
    both = one_way.maximum(one_way.T)
    degree = np.asarray(both.sum(axis=1)).ravel()
    scale = sparse.diags(1 / np.sqrt(np.where(degree > 0, degree, 1)))
    walk = 0.5 * (sparse.identity(len(names)) + scale @ both @ scale)
    return {"genes": names.astype(object), "sets": names, "weights": sparse.csr_matrix(walk)}
