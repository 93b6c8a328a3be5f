"""Simulated genome-scale CRISPR screens whose truth is known.

Cells differ by programs (cell states), by batch and by library size. A third of the perturbations
are active. Active ones are members of complexes: a complex moves a few response programs, and its
members do so each with its own strength and a little of its own beside it; batches answer a little
differently. Every perturbation, active or not, knocks its own target down where that is among the
genes. Counts are negative binomial.

What is done to each cell is laid out before counts are drawn, which are written to a zarr store a
block at a time; the same seed gives the same screen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import zarr
from anndata.io import write_elem
from scipy import sparse

CONTROL = "non-targeting"
KEYS = {"perturbation_key": "perturbation", "control": CONTROL, "covariate_keys": ["batch"]}
N_STATES, N_RESPONSES = 8, 40
ACTIVE = 1 / 3
LARGEST_COMPLEX = 8
BLOCK, CHUNK = 1_000, 1 << 16


@dataclass(frozen=True, eq=False)
class World:
    """What is true of a screen.

    Attributes
    ----------
    genes, perturbations, batches
        Names; perturbations are called by the gene they target.
    log_base_G
        Log rate of each gene in a usual cell.
    states_SG
        Log fold change of each gene along each program that cells differ by.
    batch_BG
        Of each batch.
    effect_PG
        Of each perturbation, without the knock-down of its own target.
    response_BP
        How much of it each batch shows.
    target_P
        Column of each perturbation's target, -1 where it is not among the genes.
    knock_down_P
        Log fold change of the target.
    complex_P
        Number of each perturbation's complex, -1 for those that do nothing.
    theta_G
        Inverse dispersion.
    """

    genes: tuple[str, ...]
    perturbations: tuple[str, ...]
    batches: tuple[str, ...]
    log_base_G: np.ndarray
    states_SG: np.ndarray
    batch_BG: np.ndarray
    effect_PG: np.ndarray
    response_BP: np.ndarray
    target_P: np.ndarray
    knock_down_P: np.ndarray
    complex_P: np.ndarray
    theta_G: np.ndarray

    @property
    def active(self) -> np.ndarray:
        """Perturbations that do something beyond the knock-down."""
        return np.flatnonzero(self.complex_P >= 0)

    def log_change(self, perturbation: int, batch: int) -> np.ndarray:
        """Log fold change of every gene's rate, shape (G,); perturbation -1 is the control."""
        change_G = np.zeros(len(self.genes))
        if perturbation >= 0:
            change_G += self.response_BP[batch, perturbation] * self.effect_PG[perturbation]
            if self.target_P[perturbation] >= 0:
                change_G[self.target_P[perturbation]] += self.knock_down_P[perturbation]
        return change_G

    def memberships(self) -> pd.DataFrame:
        """Which perturbation is in which complex, as features of perturbations."""
        active = self.active
        table = pd.get_dummies(pd.Series(self.complex_P[active], self.active)).astype(float)
        table.index = pd.Index([self.perturbations[i] for i in active])
        return table.add_prefix("complex ")

    def draw(self, perturbation_N: np.ndarray, batch_N: np.ndarray, rng: np.random.Generator
             ) -> sparse.csr_matrix:  # fmt: skip
        """Counts of N cells, float32 CSR of shape (N, G)."""
        n, n_genes = len(perturbation_N), len(self.genes)
        state_NS = rng.normal(size=(n, len(self.states_SG))).astype(np.float32)
        log_NG = state_NS @ self.states_SG.astype(np.float32) + self.log_base_G.astype(np.float32)
        log_NG += self.batch_BG[batch_N].astype(np.float32)
        pairs, at_N = np.unique(np.stack([perturbation_N, batch_N]), axis=1, return_inverse=True)
        change_QG = np.array([self.log_change(*pair) for pair in pairs.T], dtype=np.float32)
        log_NG += change_QG[at_N.ravel()]
        rate_NG = np.exp(log_NG, out=log_NG)
        size_N = rng.lognormal(np.log(2.2 * n_genes**0.9), 0.35, n) * (1 + 0.2 * (batch_N % 3))
        rate_NG *= (size_N / rate_NG.sum(axis=1))[:, None].astype(np.float32)
        rate_NG *= rng.standard_gamma(np.broadcast_to(self.theta_G, (n, n_genes)),
                                      dtype=np.float64) / self.theta_G  # fmt: skip
        return sparse.csr_matrix(rng.poisson(rate_NG).astype(np.float32))


def make_world(n_genes: int, n_perturbations: int, n_batches: int, seed: int = 0) -> World:
    """Draw what is true of a screen."""
    rng = np.random.default_rng([seed, n_genes, n_perturbations, n_batches])
    genes = tuple(f"G{i:05d}" for i in range(n_genes))

    def programs(n: int, share: float, size: float) -> np.ndarray:
        return size * rng.normal(size=(n, n_genes)) * (rng.random((n, n_genes)) < share)

    responses_RG = programs(N_RESPONSES, 0.04, 0.6)
    n_active = round(ACTIVE * n_perturbations)
    complex_P = np.full(n_perturbations, -1)
    active = rng.permutation(n_perturbations)[:n_active]
    begin = n_complexes = 0
    while begin < n_active:
        size = int(rng.integers(1, LARGEST_COMPLEX + 1))
        complex_P[active[begin : begin + size]] = n_complexes
        begin, n_complexes = begin + size, n_complexes + 1
    weights_CR = rng.normal(size=(n_complexes, N_RESPONSES))
    weights_CR *= rng.random(weights_CR.shape) < 3 / N_RESPONSES
    shared_CG = weights_CR @ responses_RG + programs(n_complexes, 0.01, 0.5)
    effect_PG = np.zeros((n_perturbations, n_genes), dtype=np.float32)
    strength = rng.gamma(4.0, 0.25, n_active)
    effect_PG[active] = strength[:, None] * shared_CG[complex_P[active]]
    effect_PG[active] += programs(n_active, 0.005, 0.4)
    # Targets are genes of the panel as far as they reach, then genes that were not measured.
    targets = rng.permutation(n_genes)[:n_perturbations]
    target_P = np.concatenate([targets, np.full(n_perturbations - len(targets), -1)])
    names = [genes[t] if t >= 0 else f"X{i:05d}" for i, t in enumerate(target_P)]
    return World(
        genes,
        tuple(names),
        tuple(f"batch{i + 1}" for i in range(n_batches)),
        1.6 * rng.normal(size=n_genes),
        programs(N_STATES, 0.3, 0.25),
        0.12 * rng.normal(size=(n_batches, n_genes)),
        effect_PG,
        (1 + 0.15 * rng.normal(size=(n_batches, n_perturbations))).clip(0.3),
        target_P,
        np.log(rng.uniform(0.1, 0.5, n_perturbations)),
        complex_P,
        rng.lognormal(np.log(4.0), 0.5, n_genes),
    )


@dataclass(frozen=True, eq=False)
class Layout:
    """Which cell has which perturbation (-1: control) in which batch; sorted by batch."""

    perturbation_N: np.ndarray
    batch_N: np.ndarray

    def __len__(self) -> int:
        return len(self.batch_N)


def lay_out(
    world: World,
    n_cells: int,
    held_out: set[tuple[int, int]],
    controls: float = 0.05,
    seed: int = 0,
) -> Layout:
    """Deal cells to controls, of which there are a share, and to all (perturbation, batch) pairs.

    Numbers of cells vary between perturbations as those of guides do; pairs held out get none.
    """
    rng = np.random.default_rng([seed, n_cells])
    n_batches, n_perturbations = len(world.batches), len(world.perturbations)
    of_perturbation = rng.gamma(4.0, 0.25, n_perturbations)
    share_BP = np.tile(of_perturbation, (n_batches, 1))
    for perturbation, batch in held_out:
        share_BP[batch, perturbation] = 0
    n_control = int(controls * n_cells)
    flat = rng.choice(share_BP.size, n_cells - n_control, p=share_BP.ravel() / share_BP.sum())
    batch_N = np.concatenate([flat // n_perturbations, np.arange(n_control) % n_batches])
    perturbation_N = np.concatenate([flat % n_perturbations, np.full(n_control, -1)])
    order = rng.permutation(n_cells)
    order = order[np.argsort(batch_N[order], kind="stable")]
    return Layout(perturbation_N[order], batch_N[order])


def observations(world: World, layout: Layout) -> pd.DataFrame:
    """``obs`` of the cells."""
    labels = np.array([*world.perturbations, CONTROL])
    return pd.DataFrame(
        {
            "perturbation": pd.Categorical(labels[layout.perturbation_N]),
            "batch": pd.Categorical(np.array(world.batches)[layout.batch_N]),
        },
        index=[f"cell{i}" for i in range(len(layout))],
    )


def write_store(path: Path, world: World, layout: Layout, seed: int = 0) -> None:
    """Draw counts a block at a time and write them as anndata would, as a zarr store."""
    rng = np.random.default_rng([seed, len(layout)])
    root = zarr.open_group(path, mode="w", zarr_format=2)
    group = root.create_group("X")
    shape = [len(layout), len(world.genes)]
    encoding = {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": shape}
    group.attrs.update(encoding)
    arrays = {
        name: group.create_array(name, shape=(0,), chunks=(CHUNK,), dtype=dtype)
        for name, dtype in (("data", "float32"), ("indices", "int32"))
    }
    indptr, waiting = [np.zeros(1, dtype=np.int64)], []

    def flush() -> None:
        counts = sparse.vstack(waiting, format="csr")
        waiting.clear()
        for name, array in arrays.items():
            values, at = getattr(counts, name), array.shape[0]
            array.resize((at + len(values),))
            array[at:] = values
        indptr.append(indptr[-1][-1] + counts.indptr[1:].astype(np.int64))

    for start in range(0, len(layout), BLOCK):
        some = slice(start, start + BLOCK)
        waiting.append(world.draw(layout.perturbation_N[some], layout.batch_N[some], rng))
        if len(waiting) == 10:
            flush()
    if waiting:
        flush()
    write_elem(group, "indptr", np.concatenate(indptr))
    write_elem(root, "obs", observations(world, layout))
    write_elem(root, "var", pd.DataFrame(index=list(world.genes)))
    root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})


def in_memory(world: World, layout: Layout, seed: int = 0) -> ad.AnnData:
    """The same screen as an AnnData."""
    rng = np.random.default_rng([seed, len(layout)])
    blocks = [
        world.draw(layout.perturbation_N[start : start + BLOCK],
                   layout.batch_N[start : start + BLOCK], rng)
        for start in range(0, len(layout), BLOCK)
    ]  # fmt: skip
    counts = sparse.vstack(blocks, format="csr")
    var = pd.DataFrame(index=list(world.genes))
    return ad.AnnData(counts, observations(world, layout), var)
