"""Methods of the benchmark: from training cells and controls to predicted cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import anndata as ad
import numpy as np
from scipy import sparse
from sklearn.decomposition import TruncatedSVD

from celldit.data.fields import Fields
from celldit.data.labels.labels import parts
from celldit.datasets import gene_set_file
from celldit.errors import UnknownNameError
from celldit.evaluation.baselines import SIMPLE, FeatureRidge, predict_baseline
from celldit.evaluation.benchmark.problems import Posed
from celldit.tokenizers.gmt import read_gmt

#: Learns from ``posed.train``, predicts ``posed.perturbations`` of ``posed.controls``; the second
#: argument is the seed. It never sees ``posed.truth``: that is taken out before the call.
Method = Callable[[Posed, int], ad.AnnData]


def baseline_methods() -> dict[str, Method]:
    """The simple predictors, by the names used in tables."""
    methods: dict[str, Method] = {name: partial(_simple, name) for name in SIMPLE}
    return {**methods, "feature ridge": _feature_ridge}


def _simple(name: str, posed: Posed, seed: int) -> ad.AnnData:
    return predict_baseline(name, posed.train, posed.controls, posed.perturbations, seed=seed)


def _feature_ridge(posed: Posed, seed: int) -> ad.AnnData:
    fields = Fields.from_anndata(posed.train)
    sep, control = fields.perturbation_sep, fields.control
    written = posed.train.obs[fields.perturbation_key].astype(str)
    features = pathway_features(seed=seed)
    requested = {part for label in posed.perturbations for part in parts(label, sep, control)}
    missing = sorted(requested - set(features))
    if missing:
        raise UnknownNameError(
            f"{len(missing)} of {len(requested)} perturbations to predict are in no Reactome "
            f"pathway ({', '.join(missing[:4])}), so they have no features."
        )
    # It learns from the training perturbations that pathways describe.
    described = {label: set(parts(label, sep, control)) <= set(features) for label in set(written)}
    train = posed.train[written.map(described).to_numpy(dtype=bool)].copy()
    make = partial(FeatureRidge, features)
    return predict_baseline(make, train, posed.controls, posed.perturbations, seed=seed)


def pathway_features(*, seed: int = 0) -> Mapping[str, np.ndarray]:
    """Features of genes, 32 numbers each: principal directions of their Reactome pathways.

    A gene in no pathway is not there; zeros in its place would look like knowledge.
    """
    sets = read_gmt(gene_set_file("reactome"))
    genes = sorted({gene for members in sets.values() for gene in members})
    position = {gene: i for i, gene in enumerate(genes)}
    rows = [position[gene] for members in sets.values() for gene in members]
    columns = [i for i, members in enumerate(sets.values()) for _ in members]
    member = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(genes), len(sets)))
    # A pathway of a thousand genes says less about one of them than a pathway of ten.
    member = member @ sparse.diags(1.0 / np.sqrt(np.asarray(member.sum(axis=0)).ravel()))
    table = TruncatedSVD(32, random_state=seed).fit_transform(member)
    return dict(zip(genes, table, strict=True))
