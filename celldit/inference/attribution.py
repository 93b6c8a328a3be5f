"""How much each gene set carries of a predicted shift.

A predicted shift of the latent is what the effect model expects, and what the network adds to it.

The network's part is a sum over its tokens by construction (:mod:`celldit.flow.attribution`).

The effect model's part e has no tokens, so it is divided among what the tokens see of it: with the
view A_g of token g,

    e = Σ_g M⁻¹ A_g A_gᵀ e + what is left,    M = Σ_g A_g A_gᵀ + ridge,

so that a gene set counts as far as the effect moves its eigengenes, and sets that overlap share.
The ridge leaves to nobody what the tokens hardly see. Both sums are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from celldit.conditions import Condition
from celldit.flow.attribution import contributed
from celldit.inference.batch import ConditionBatch
from celldit.inference.solver import SolverConfig
from celldit.training.trained import Trained

RIDGE = 0.1
"""In units of what tokens see of a direction on average."""


@dataclass(frozen=True, eq=False)
class Attribution:
    """The mean shift of Q groups of cells as a sum over T tokens and a rest.

    All in units of log expression along the latent's F dimensions.
    """

    conditions: tuple[Condition, ...]  # where the cells of each group go
    groups: tuple[str, ...]  # what else they have in common
    names: tuple[str, ...]  # what the T tokens are
    effect_QTF: np.ndarray  # what the effect model moves the cells by through each token
    network_QTF: np.ndarray  # the same of the network at its weight
    rest_QF: np.ndarray  # what no token sees of the effect model's part
    loadings_FG: np.ndarray  # change of a gene's log expectation along each dimension

    @property
    def shift_QF(self) -> np.ndarray:
        """The whole shift."""
        whole: np.ndarray = (self.effect_QTF + self.network_QTF).sum(1) + self.rest_QF
        return whole

    @property
    def parts_QRF(self) -> np.ndarray:
        """The shift by token, the rest last, R = T + 1."""
        return np.concatenate([self.effect_QTF + self.network_QTF, self.rest_QF[:, None]], axis=1)

    @property
    def genes_QRG(self) -> np.ndarray:
        """The same as changes of the genes' log expectations."""
        return self.parts_QRF @ self.loadings_FG


def view_names(trained: Trained) -> tuple[str, ...]:
    """What the tokens of the network are; InputError if it has none."""
    names = trained.autoencoder.tokenizer.token_names
    identities = trained.flow.views.identity_T.tolist()
    return tuple(names[i] if i >= 0 else f"random {k + 1}" for k, i in enumerate(identities))


def attribute(
    trained: Trained,
    z_NKD: torch.Tensor,
    conditions: Sequence[Condition],
    config: SolverConfig,
    groups: Sequence[str] | None = None,
    references: dict[tuple[str, float | None], np.ndarray] | None = None,
    batch_size: int = 256,
) -> Attribution:
    """Divide the mean shift of N control cells among the tokens.

    `conditions` says where each of them goes, `groups` what else to tell cells of one condition
    apart by; `references` are mean latents of controls at hand, for contexts that training did not
    see.
    """
    names = view_names(trained)
    requested = ConditionBatch.of(trained, list(conditions), references)
    groups = [""] * len(z_NKD) if groups is None else groups
    pairs = list(zip(requested.row.tolist(), groups, strict=True))
    place = {pair: q for q, pair in enumerate(dict.fromkeys(pairs))}
    row_N = np.array([place[pair] for pair in pairs], dtype=np.int64)
    condition_Q = np.array([row for row, _ in place], dtype=np.int64)
    n_groups, n_dims = len(place), z_NKD[0].numel()
    unit_F = trained.autoencoder.scale.repeat_interleave(trained.shape[1]).cpu().double().numpy()
    network_QTF = np.zeros((n_groups, len(names), n_dims))
    for start in range(0, len(z_NKD), batch_size):
        rows = slice(start, start + batch_size)
        row_B = requested.row[rows]
        conditioning = requested.embedding.conditioning(row_B, from_noise=False)
        if not bool(requested.weight_Q[torch.from_numpy(row_B)].any()):
            continue
        x0_BKD = z_NKD[rows] + conditioning.effect_BKD
        _, parts_BTF = contributed(trained.flow, x0_BKD, conditioning, config.times, config.solver)
        np.add.at(network_QTF, row_N[rows], parts_BTF.double().numpy())
    n_cells_Q = np.bincount(row_N, minlength=n_groups)
    weight_Q = requested.weight_Q.double().numpy()[condition_Q]
    network_QTF *= unit_F * (weight_Q / n_cells_Q)[:, None, None]
    effect_QF = requested.embedding.effects_QKD.flatten(1).double().numpy()[condition_Q] * unit_F
    effect_QTF, rest_QF = _seen(trained, effect_QF, unit_F)
    loadings_FG = trained.autoencoder.decoder.loadings.detach().double().numpy() / unit_F[:, None]
    return Attribution(
        tuple(requested.conditions[q] for q in condition_Q),
        tuple(str(group) for _, group in place),
        names,
        effect_QTF,
        network_QTF,
        rest_QF,
        loadings_FG,
    )


def _seen(
    trained: Trained, effect_QF: np.ndarray, unit_F: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Effects divided among the tokens that see them, (Q, T, F), and what none sees, (Q, F)."""
    views_TFV = trained.flow.views.views_TFV.cpu().double().numpy() / unit_F[:, None]
    gram_TFF = views_TFV @ views_TFV.transpose(0, 2, 1)
    total_FF = gram_TFF.sum(0)
    ridge_FF = RIDGE * np.trace(total_FF) / len(total_FF) * np.eye(len(total_FF))
    inverse_FF = np.linalg.inv(total_FF + ridge_FF)
    parts_QTF = np.einsum("fg,tgh,qh->qtf", inverse_FF, gram_TFF, effect_QF, optimize=True)
    return parts_QTF, effect_QF - parts_QTF.sum(1)


@torch.no_grad()
def read_by_tokens(
    trained: Trained,
    z_NKD: torch.Tensor,
    condition: Condition,
    config: SolverConfig,
    references: dict[tuple[str, float | None], np.ndarray] | None = None,
) -> np.ndarray:
    """How much each token reads from each on the way to a condition, (T, T); rows sum to 1.

    The mean over N control cells, blocks, heads and the times of the solver's steps.
    """
    requested = ConditionBatch.of(trained, [condition] * len(z_NKD), references)
    conditioning = requested.embedding.conditioning(requested.row, from_noise=False)
    flow = trained.flow.eval()
    n_tokens = flow.views.n_tokens
    total_TT = np.zeros((n_tokens, n_tokens))
    x_BKD = z_NKD + conditioning.effect_BKD
    times = config.times.tolist()
    for time, later in zip(times, [*times[1:], times[-1]], strict=True):
        t_B = torch.full((len(x_BKD),), time)
        total_TT += flow.attention(x_BKD, t_B, conditioning).mean(0).double().numpy()
        x_BKD = x_BKD + (later - time) * flow(x_BKD, t_B, conditioning)
    return total_TT / len(times)
