"""Effects measured elsewhere, as part of what an effect model expects of a condition.

A table s holds, in the latent, the effects m_s of its perturbations, and what these have in common,
μ_s. An effect here is then

    f(c) = Σ_s a_s (m_s(c) - μ_s) + g(c),

g the Gaussian process of :mod:`celldit.effects.prior`, in which perturbations that a table holds
have a part of their own that is smaller by the factor τ_s. What perturbations here have in common
is left to g, since μ_s holds the noise of the other screen's controls, too. The amplitudes a_s,
their standard errors, and τ_s are learned by leaving perturbations out
(:mod:`celldit.effects.tables.fit`); a table that does not help has the amplitude 0.

Where no perturbation was measured here, there is nothing to learn from: then amplitudes and doubts
are those of :data:`UNLEARNED`, and μ_s counts as the rest does.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from celldit.conditions.condition import Condition
from celldit.effects.tables.residuals import TableResiduals
from celldit.errors import examples, outside

Key = tuple[str, ...]
# Amplitude, its standard error, and what is left open, of a table that could not be tried.
UNLEARNED = (0.7, 0.35, 0.7)
#: So few perturbations have so few orders that tables of noise are hard to tell.
FEW = 3
#: What is stored of a table as it is, and of which kind it must be.
_ENTRIES: dict[str, Callable[[Any], Any]] = {
    "name": str,
    "amplitude": float,
    "sd": float,
    "share": float,
    "reliability": float,
    "with_common": bool,
}


@dataclass(frozen=True, eq=False)
class TableEffects:
    """One table in the latent, and how far it is believed."""

    name: str
    keys: tuple[Key, ...]  # its P perturbations, each by the sorted names of its parts
    means_PF: np.ndarray  # m, in the latent
    common_F: np.ndarray  # μ
    shared_F: np.ndarray  # μ as far as it is more than the noise of that screen's controls
    amplitude: float = 0.0  # a
    sd: float = 0.0  # standard error of a
    share: float = 1.0  # τ: what is left of the variance that a perturbation has of its own
    # Probability that its effects belong to the perturbations that it names, rather than having
    # been dealt out at random.
    reliability: float = 0.0
    shared: tuple[Key, ...] = ()  # perturbations on which this was learned
    # Slope of what was measured here on the table where it is below zero beyond doubt, else 0.
    contradicts: float = 0.0
    with_common: bool = False  # whether μ counts, too, as far as `shared_F` says
    residuals: TableResiduals | None = None  # what the table says of single genes beyond the latent
    # Source, licence, species, contexts, and the share of genes matched.
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_used(self) -> bool:
        """Whether predictions rest on it."""
        return self.amplitude != 0

    @cached_property
    def row(self) -> dict[Key, int]:
        """Row of each perturbation."""
        return {key: i for i, key in enumerate(self.keys)}

    def __contains__(self, key: Key) -> bool:
        return key in self.row

    @cached_property
    def parts(self) -> frozenset[str]:
        """Perturbations that it holds alone."""
        return frozenset(key[0] for key in self.keys if len(key) == 1)

    def holds(self, parts: Sequence[str]) -> bool:
        """Whether it holds a combination, or each of its parts."""
        return tuple(sorted(parts)) in self.row or set(parts) <= self.parts

    def means(
        self, conditions: Sequence[Condition], amounts_Q: Sequence[Sequence[float]]
    ) -> np.ndarray:
        """m - μ of Q conditions, each part by its amount from 0 to 1, in the latent, (Q, F)."""
        means_QF = np.zeros((len(conditions), len(self.common_F)))
        base_F = self.common_F - (self.shared_F if self.with_common else 0.0)
        for row, (condition, amounts) in enumerate(zip(conditions, amounts_Q, strict=True)):
            whole = self.row.get(condition.parts)
            if whole is not None and len(condition.parts) > 1:
                means_QF[row] = min(amounts) * (self.means_PF[whole] - len(amounts) * base_F)
                continue
            for part, amount in zip(condition.parts, amounts, strict=True):
                at = self.row.get((part,))
                own_F = self.common_F if at is None else self.means_PF[at]
                means_QF[row] += amount * (own_F - base_F)
        return means_QF

    def rows(self, parts: Sequence[str]) -> list[int]:
        """Rows of a combination, or of those of its parts that it holds."""
        whole = self.row.get(tuple(sorted(parts)))
        if whole is not None:
            return [whole]
        return [self.row[part,] for part in parts if (part,) in self.row]


class Further(NamedTuple):
    """Changes of log rates beyond the latent, their standard errors, and where they are known."""

    log_factor_G: np.ndarray
    sd_G: np.ndarray
    known_G: np.ndarray


@dataclass(frozen=True, eq=False)
class Elsewhere:
    """All tables of a model."""

    tables: tuple[TableEffects, ...] = ()

    def further(self, parts: Sequence[str], genes: Sequence[str]) -> Further:
        """What perturbations do to single genes beyond the latent, as tables in use have it."""
        log_factor_G, variance_G = np.zeros((2, len(genes)))
        known_G = np.zeros(len(genes), dtype=bool)
        for table in self.used if parts else ():
            if table.residuals is None:
                continue
            for row in table.rows(parts):
                values_G, stored_G = table.residuals.of(row, genes)
                log_factor_G += table.amplitude * values_G
                variance_G += (table.sd * values_G) ** 2
                known_G |= stored_G
        return Further(log_factor_G, np.sqrt(variance_G), known_G)

    @property
    def used(self) -> tuple[TableEffects, ...]:
        """Those on which predictions rest."""
        return tuple(table for table in self.tables if table.is_used)

    @cached_property
    def parts(self) -> frozenset[str]:
        """Perturbations that tables in use hold alone."""
        return frozenset(part for table in self.used for part in table.parts)

    def __bool__(self) -> bool:
        return bool(self.used)

    def __contains__(self, parts: object) -> bool:
        """Whether a table in use holds a combination of these perturbations, or each of them."""
        return isinstance(parts, tuple) and any(table.holds(parts) for table in self.used)

    @property
    def provenance(self) -> dict[str, dict[str, Any]]:
        """What predictions say of the tables that they rest on, by name."""
        return {
            table.name: {
                **table.provenance,
                "amplitude": table.amplitude,
                "reliability": table.reliability,
                "n_shared": len(table.shared),
            }
            for table in self.used
        }

    @cached_property
    def part_shares(self) -> dict[str, float]:
        """τ of each perturbation that a table in use holds."""
        shares: dict[str, float] = {}
        for table in self.used:
            for part in table.parts:
                shares[part] = min(table.share, shares.get(part, 1.0))
        return shares

    def to_config(self) -> list[dict[str, Any]]:
        """Everything but the arrays, for JSON."""
        return [
            {
                **{entry: getattr(table, entry) for entry in _ENTRIES},
                "keys": [list(key) for key in table.keys],
                "shared": [list(key) for key in table.shared],
                "genes": [] if table.residuals is None else list(table.residuals.genes),
                "provenance": dict(table.provenance),
            }
            for table in self.tables
        ]

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays, for safetensors."""
        found = {}
        for i, table in enumerate(self.tables):
            # Not rounded: a loaded model predicts what the saved one did, to the byte.
            found[f"table_{i}.means"] = table.means_PF
            found[f"table_{i}.common"] = table.common_F
            found[f"table_{i}.shared"] = table.shared_F
            if table.residuals is not None:
                found[f"table_{i}.beyond"] = table.residuals.arrays()
        return found

    @classmethod
    def from_config(
        cls, config: Sequence[Mapping[str, Any]], arrays: Mapping[str, np.ndarray]
    ) -> Elsewhere:
        """Rebuild what :meth:`to_config` and :meth:`arrays` wrote; ValueError if unfit."""
        tables = []
        for i, said in enumerate(config):
            means_PF = arrays[f"table_{i}.means"].astype(np.float64)
            common_F = arrays[f"table_{i}.common"].astype(np.float64)
            keys = tuple(tuple(str(part) for part in key) for key in said["keys"])
            if means_PF.shape != (len(keys), len(common_F)):
                raise ValueError("its table of effects fits neither its names nor its latent")
            residuals = None
            if f"table_{i}.beyond" in arrays:
                entries = arrays[f"table_{i}.beyond"]
                residuals = TableResiduals.from_arrays(said["genes"], len(keys), entries)
            tables.append(
                TableEffects(
                    **{entry: kind(said[entry]) for entry, kind in _ENTRIES.items()},
                    keys=keys,
                    means_PF=means_PF,
                    common_F=common_F,
                    shared_F=arrays[f"table_{i}.shared"].astype(np.float64),
                    shared=tuple(tuple(key) for key in said["shared"]),
                    residuals=residuals,
                    provenance=dict(said["provenance"]),
                )
            )
        return cls(tuple(tables))


def warn_of_tables(elsewhere: Elsewhere) -> None:
    """Name the tables that are not used, and those whose use nothing has shown."""
    for table in elsewhere.tables:
        text = ""
        if table.contradicts:
            text = (
                f"contradicts the data: perturbations that both have ({len(table.shared)}) go the "
                f"other way (slope {table.contradicts:.2f}). Compare directions, such as "
                "activation and knock-out, and which group is the control. It is not used"
            )
        elif not table.is_used:
            text = (
                f"does not help: {len(table.shared)} perturbations that the data have, too, were "
                "not seen to be predicted better with it than with its rows dealt out at random "
                f"(probability that they belong where they are: {table.reliability:.2f}). It is "
                "not used"
            )
        elif 0 < len(table.shared) <= FEW:
            text = (
                f"was tried on {len(table.shared)} perturbations that the data have, too "
                f"({examples('+'.join(key) for key in table.shared)}), which is few: the "
                f"probability that its rows belong where they are is {table.reliability:.2f}, and "
                "by that much of their size its effects are used; measure more of its "
                "perturbations to be surer"
            )
        elif not table.shared:
            amplitude, sd, _ = UNLEARNED
            text = (
                "shares no perturbation with the data, so nothing tells how far it holds here. "
                f"Its effects are used at {amplitude} of their size, give or take {sd}, and "
                "intervals hold that doubt; measure a few of its perturbations to learn it"
            )
        if text:
            said = f"The table of effects {table.name!r} {text}."
            warnings.warn(said, UserWarning, stacklevel=outside())
