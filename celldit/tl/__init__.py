"""Tools, in scanpy's idiom: the AnnData first, results written into it under documented keys.

What belongs to cells is written in place (``copy=True`` gives a changed copy instead). What is a
table is written to ``uns`` and returned as well.
"""

from __future__ import annotations

from celldit.evaluation import (
    ceiling,
    compare,
    detectable,
    dynamic_range,
    evaluate,
    headroom,
    intervals,
    paired,
)
from celldit.report import report
from celldit.tl.counterfactual import counterfactual
from celldit.tl.dose_response import dose_response
from celldit.tl.effects import effects, ranked_genes
from celldit.tl.fate_map import fate_map
from celldit.tl.gene_sets import attention, programs, token_activity
from celldit.tl.interactions import interactions
from celldit.tl.latent import embed, gene_loadings
from celldit.tl.next_perturbations import next_perturbations
from celldit.tl.rank_perturbations import rank_perturbations
from celldit.tl.responders import responders

__all__ = [
    "attention",
    "ceiling",
    "compare",
    "counterfactual",
    "detectable",
    "dose_response",
    "dynamic_range",
    "effects",
    "embed",
    "evaluate",
    "fate_map",
    "gene_loadings",
    "headroom",
    "interactions",
    "intervals",
    "next_perturbations",
    "paired",
    "programs",
    "rank_perturbations",
    "ranked_genes",
    "report",
    "responders",
    "token_activity",
]


def __dir__() -> list[str]:
    return list(__all__)
