"""Learn where counterfactual cells should end up, from training conditions.

Each is predicted from all the others, as a new context, a new combination or a perturbation never
seen, whatever it is to them. The weights of :class:`celldit.calibration.means.MeanCalibration` are
the least squares over genes and conditions of each such kind,

    measured ≈ a D + b L + c R,   a, b >= 0,   a + b <= 1.2,   0 <= c <= 1,

with a tie to :data:`celldit.calibration.means.START_WEIGHTS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import nnls

from celldit.calibration.fit_residual_genes import fit_residual_genes
from celldit.calibration.left_out import left_out
from celldit.calibration.means import START_WEIGHTS, MeanCalibration, Weights
from celldit.calibration.network_share import NetworkShare
from celldit.calibration.own_gene.fit import OwnCounts
from celldit.calibration.own_gene.on_target import fit_on_target
from celldit.calibration.reference_controls import ReferenceControls
from celldit.conditions import Condition, ConditionTable
from celldit.conditions.extrapolation import Extrapolation
from celldit.conditions.latents import membership
from celldit.data.store import CellStore
from celldit.effects.residual_genes import ResidualGenes
from celldit.latent.anchor import anchor_rows
from celldit.latent.autoencoder import Autoencoder
from celldit.latent.decoder import RidgeMoments

BLOCK = 4_096
MAX_CONDITIONS = 200
# How many conditions of mean strength the weights at the start count as.
START_CONDITIONS = 1.0
# Reading a shift loses up to about this share of it. Where left-out effects are larger still, as
# Norman's combinations are, it was the shift that was too small, which is no matter of reading.
MOST_TOTAL = 1.2
# Of log expression, for genes that never vary.
LEAST_SCATTER = 1e-3


@torch.no_grad()
def fit_means(
    cells: CellStore,
    table: ConditionTable,
    references: ReferenceControls,
    seed: int,
    network: NetworkShare,
) -> MeanCalibration:
    """Learn the line and the weights from training cells.

    Parameters
    ----------
    cells, table
        Training cells and their conditions.
    references
        What stands in for controls, with the trained parts.
    seed
        Of the choice of cells and conditions where there are very many.
    network
        What predictions hold of the network.
    """
    prior, autoencoder = references.population.prior, references.autoencoder
    untried = all(c.is_control for c in table.conditions)
    responses = references.responses
    if (untried and not prior.elsewhere) or not responses.curves:
        return MeanCalibration.none(cells.n_genes, responses)
    slopes_FG, share_G = _line(cells, table, autoencoder, seed)
    if untried:
        # What tables say of perturbations is read with the weights before anything is known.
        none = ResidualGenes.none(cells.n_genes)
        return MeanCalibration(slopes_FG, responses, none, np.zeros(cells.n_genes, np.float32))
    own_counts = OwnCounts(table, autoencoder.genes, responses)
    mean_CG, sd_G = log_expression(cells, table, own_counts)
    scatter_G = sd_G * np.sqrt(share_G) + LEAST_SCATTER
    residual_genes = fit_residual_genes(table, prior, slopes_FG, mean_CG, scatter_G)
    on_target = fit_on_target(table, autoencoder.genes, mean_CG, sd_G, responses)
    variance_G = (sd_G**2).astype(np.float16).astype(np.float32)
    mean_calibration = MeanCalibration(slopes_FG, responses, residual_genes, variance_G, on_target)
    weights = _weights(mean_calibration, table, references, mean_CG, seed, network)
    return replace(mean_calibration, weights=weights, own_genes=own_counts.fit())


def seen_offsets(
    mean_calibration: MeanCalibration,
    references: ReferenceControls,
    network: NetworkShare,
    conditions: Sequence[Condition],
) -> np.ndarray:
    """What new cells of conditions of training add to the log rate of each gene, (C, G).

    New cells of two conditions are to differ as measured ones do, noise included: what is drawn
    towards decoded rates is nearer to the truth, and attenuates differences.

    Parameters
    ----------
    mean_calibration, references, network
        The trained parts.
    conditions
        C conditions of training.
    """
    prior, genes = references.population.prior, references.autoencoder.genes
    offset_CG = np.zeros((len(conditions), len(genes)), dtype=np.float32)
    treated = [i for i, c in enumerate(conditions) if not c.is_control]
    if mean_calibration.is_none or not treated:
        return offset_CG
    some = [conditions[i] for i in treated]
    estimate, every = prior.estimate(some), mean_calibration.residual_effects(prior, genes, some)
    for q, (i, residual) in enumerate(zip(treated, every, strict=True)):
        own, effect_F = references.of(some[q].stratum), estimate.mean[q]
        moved_NKD = network.moved(own.z_NKD, effect_F, float(estimate.sd[q]), Extrapolation.SEEN)
        offset_CG[i] = mean_calibration.offset(
            Extrapolation.SEEN, own.change(moved_NKD), effect_F, residual._replace(noise=0.0)
        )
    return offset_CG


def _line(
    cells: CellStore, table: ConditionTable, autoencoder: Autoencoder, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Log expression on the latent, over a bounded sample of cells.

    Returns
    -------
    slopes_FG, share_G
        Ridge slopes, and the share of each gene's variance within conditions that they leave over;
        a gene that does not vary there in the sample has all of it.
    """
    rows = anchor_rows(cells.n_cells, seed)
    sample = cells if rows is None else cells.take(rows)
    condition_N = table.index if rows is None else table.index[rows]
    n_latents = autoencoder.n_tokens * autoencoder.token_dim
    moments = RidgeMoments(n_latents, cells.n_genes)
    sum_CF, sum_CG = np.zeros((len(table), n_latents)), np.zeros((len(table), cells.n_genes))
    square_G, start = np.zeros(cells.n_genes), 0
    for batch in sample.blocks(autoencoder.batch_size):
        in_condition_CB = membership(condition_N[start : start + batch.n_cells], len(table))
        start += batch.n_cells
        log_BG, latent_BF = batch.log_normalized(), autoencoder.encode(batch).flatten(1)
        sum_CF += in_condition_CB @ latent_BF.double().numpy()
        sum_CG += (in_condition_CB @ log_BG).toarray()
        square_G += np.ravel(log_BG.multiply(log_BG).sum(axis=0))
        moments.add(
            latent_BF,
            torch.from_numpy(log_BG.toarray()),
            torch.from_numpy(batch.counts.toarray()),
            torch.from_numpy(batch.size_factors),
        )
    # As it is stored; the effect that it carries is known to some percent.
    slopes_FG = moments.slopes().numpy().astype(np.float16).astype(np.float32)
    # That the latent tells conditions apart says nothing of the cells of one.
    n_C = np.bincount(condition_N, minlength=len(table)).clip(1)
    mean_FC = sum_CF.T / n_C
    scatter_FF = moments.zz.numpy() - mean_FC @ sum_CF
    cross_FG = moments.zy.numpy() - mean_FC @ sum_CG
    whole_G = (square_G - (sum_CG**2 / n_C[:, None]).sum(axis=0)).clip(0)
    left_G = whole_G + (slopes_FG * (scatter_FF @ slopes_FG - 2 * cross_FG)).sum(axis=0)
    share_G = np.divide(left_G, whole_G, out=np.ones_like(whole_G), where=whole_G > 0)
    return slopes_FG, share_G.clip(0, 1)


def log_expression(
    cells: CellStore, table: ConditionTable, own_counts: OwnCounts | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Its mean in each condition, (C, G), and its standard deviation within conditions, (G,).

    The counts of perturbed genes are looked at on the way, where they are asked for.
    """
    n_conditions = len(table.conditions)
    sum_CG = np.zeros((n_conditions, cells.n_genes))
    square_G = np.zeros(cells.n_genes)
    start = 0
    for block in cells.blocks(BLOCK):
        of_cell = table.index[start : start + block.n_cells]
        start += block.n_cells
        if own_counts is not None:
            own_counts.add(block, of_cell)
        log_BG = block.log_normalized()
        sum_CG += (membership(of_cell, n_conditions) @ log_BG).toarray()
        square_G += np.ravel(log_BG.multiply(log_BG).sum(axis=0))
    mean_CG = sum_CG / np.maximum(table.counts, 1)[:, None]
    square_G -= (sum_CG * mean_CG).sum(axis=0)
    degrees = max(cells.n_cells - np.count_nonzero(table.counts), 1)
    return mean_CG, np.sqrt(square_G.clip(0) / degrees)


def _weights(
    mean_calibration: MeanCalibration,
    table: ConditionTable,
    references: ReferenceControls,
    mean_CG: np.ndarray,
    seed: int,
    network: NetworkShare,
) -> dict[Extrapolation | None, Weights]:
    """a, b and c of each kind of extrapolation that training conditions can be tried for."""
    prior, genes = references.population.prior, references.autoencoder.genes
    tried, without = left_out(table, prior, MAX_CONDITIONS, seed), prior.leave_one_out()
    rest = mean_calibration.left_out_residual_effects(
        prior, genes, [one.condition for one in tried]
    )
    products: dict[Extrapolation | None, list[np.ndarray]] = {}
    for residual, one in zip(rest, tried, strict=True):
        # Another dose or time of the same is left: as good as seen to `classify`, but left out.
        reach = None if one.kind is Extrapolation.SEEN else one.kind
        own, effect_F = references.of(one.condition.stratum), without.mean[one.row]
        moved_NKD = network.moved(own.z_NKD, effect_F, float(without.sd[one.row]), reach)
        change = own.change(moved_NKD)
        straight_G = change.shift_F @ mean_calibration.slopes_FG
        measured_G = mean_CG[one.treated] - mean_CG[one.control]
        each_4G = np.stack([change.decoded_G, straight_G, residual.residual_G, measured_G])
        product_44 = each_4G @ each_4G.T
        if reach in (Extrapolation.CONTEXT, Extrapolation.COMBINATION):
            products.setdefault(None, []).append(product_44)
        # What was never seen may turn out strong or weak, and nothing tells which: there a
        # condition counts by the size of its effect. By its square, which plain squares come
        # to, the strongest alone would decide how far the weak ones are believed.
        if reach is Extrapolation.UNSEEN:
            product_44 = product_44 / max(float(np.linalg.norm(measured_G)), 1e-6)
        products.setdefault(reach, []).append(product_44)
    return {kind: _least_squares(found) for kind, found in products.items()}


def _least_squares(products: Sequence[np.ndarray]) -> Weights:
    """a, b and c from the products of decoded, straight, further and measured changes.

    c is what the further change earns where the other two leave something.
    """
    total_44 = np.sum(products, axis=0)
    start = np.array(START_WEIGHTS[:2])
    # As many more conditions, of mean strength, in which the start would be exact.
    share = START_CONDITIONS / len(products)
    tie = share * np.trace(total_44[:2, :2]) / 2 + 1e-12
    gram_22 = total_44[:2, :2] + tie * np.eye(2)
    root_22 = np.linalg.cholesky(gram_22)
    found, _ = nnls(root_22.T, np.linalg.solve(root_22, total_44[:2, 3] + tie * start))
    found *= min(1.0, MOST_TOTAL / max(found.sum(), 1e-12))
    size = total_44[2, 2]
    left = total_44[2, 3] - found @ total_44[:2, 2]
    further = (left + share * size * START_WEIGHTS[2]) / ((1 + share) * size + 1e-12)
    return float(found[0]), float(found[1]), float(np.clip(further, 0, 1))
