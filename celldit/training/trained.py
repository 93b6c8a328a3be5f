"""What training produces, and what every question to a model starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import anndata as ad

from celldit import __version__
from celldit.calibration.effects import EffectCalibration
from celldit.calibration.means import MeanCalibration
from celldit.calibration.new_cells.model import NewCellModel
from celldit.calibration.rates.fold_change import ControlRates
from celldit.calibration.reference_controls import ReferenceControls
from celldit.calibration.temporal_means import TemporalMeans
from celldit.calibration.time_course import TimeCourse
from celldit.conditions import Condition
from celldit.conditions.extrapolation import Extrapolation, Known
from celldit.conditions.population import Population
from celldit.conditions.ranges import Ranges
from celldit.conditions.states import States
from celldit.data.fields import Fields
from celldit.data.genes import match_genes
from celldit.data.imputation import Imputed, impute
from celldit.data.query import query_fields
from celldit.data.reading import read_any
from celldit.data.store import CellStore
from celldit.effects.features.features import Features, described
from celldit.effects.tables.elsewhere import Elsewhere
from celldit.errors import InputError
from celldit.flow.anchored import AnchoredFlow
from celldit.latent.autoencoder import Autoencoder


@dataclass(frozen=True, eq=False)
class Trained:
    """The trained parts, and what was in training."""

    fields: Fields  # meaning of the columns
    genes: tuple[str, ...]  # names of the G genes
    autoencoder: Autoencoder
    population: Population
    flow: AnchoredFlow
    flow_weight: Mapping[Extrapolation, float]  # share of the network's displacement to use
    frequencies: Mapping[Condition, int]  # cells of each condition of training
    features: Features  # features of perturbations by source
    trained_with: Mapping[str, Any]  # arguments of training
    history: Mapping[str, list[dict[str, float]]]  # its course
    calibration: EffectCalibration  # how far log fold changes are off
    states: States  # that cells of each context may be in, from which new cells start
    new_cell_model: NewCellModel  # how new cells are drawn from their latents
    control_rates: ControlRates  # counts per 10,000 that log fold changes are counted from
    mean_calibration: MeanCalibration  # brings mean log expression where it should be
    temporal_means: TemporalMeans  # the same for cells at other times
    time_course: TimeCourse  # how cells get there
    model_id: str  # fingerprint of the weights

    @cached_property
    def reference_controls(self) -> ReferenceControls:
        """What stands in for the control cells of each context and time."""
        means = self.mean_calibration
        states = None if means.variance_G is None else self.states
        return ReferenceControls(
            self.autoencoder, self.population, means.responses, states, self.new_cell_model.sizes
        )

    @property
    def of_effects(self) -> Trained:
        """The same parts, estimating effects rather than shifts from measured controls."""
        population = replace(self.population, prior=self.population.prior.of_effects)
        other = replace(self, population=population)
        other.__dict__["reference_controls"] = self.reference_controls
        return other

    @property
    def shape(self) -> tuple[int, int]:
        """Latent tokens K and their dimensions D."""
        return self.autoencoder.n_tokens, self.autoencoder.token_dim

    @property
    def perturbations(self) -> tuple[str, ...]:
        """Single perturbations of training, alone or in combination."""
        return tuple(sorted({part for c in self.frequencies for part in c.parts}))

    @property
    def featured(self) -> frozenset[str]:
        """Perturbations that at least one source of features knows."""
        return described(self.features)

    @cached_property
    def known(self) -> Known:
        """What kinds of extrapolation conditions are, by those of training."""
        return Known(self.frequencies, self.featured, self.elsewhere)

    @cached_property
    def ranges(self) -> Ranges:
        """Doses and times of training."""
        return Ranges.of(self.frequencies)

    @property
    def elsewhere(self) -> Elsewhere:
        """Effects measured elsewhere."""
        return self.population.prior.elsewhere

    def weight_of(self, kind: Extrapolation) -> float:
        """Share of the network's displacement for a kind; older models know none of time."""
        return self.flow_weight.get(kind, self.flow_weight[Extrapolation.SEEN])

    def check_draws_new_cells(self) -> None:
        """InputError where training left out how to draw new cells."""
        if not self.new_cell_model.learned:
            raise InputError(
                "This model, or the one it was tuned from, was trained with new_cells=False, for "
                "predictions only, so it cannot draw new cells; train with new_cells=True, the "
                "default."
            )

    def read(self, adata: Any, counts_layer: str | None = None) -> CellStore:
        """Read cells with the model's genes; see :func:`celldit.data.query.query_fields`.

        An AnnData in memory is read into memory; a backed one, a path, or what
        :func:`celldit.open_store` opened is left on disk.
        """
        return read_any(adata, query_fields(adata, self.fields, counts_layer), self.genes)

    def read_imputed(
        self, adata: Any, counts_layer: str | None, seed: int
    ) -> tuple[CellStore, Imputed | None]:
        """Read cells that lack some of the model's genes, which are filled in.

        InputError if the query lacks too many; as :meth:`read` otherwise.
        """
        fields = query_fields(adata, self.fields, counts_layer)
        if isinstance(adata, ad.AnnData):
            at_hand = set(adata.var_names.astype(str))
        else:
            at_hand = set(read_any(adata, fields).genes)
        measured = [gene for gene in self.genes if gene in at_hand]
        if len(measured) == len(self.genes):
            return self.read(adata, counts_layer), None
        if not measured:
            match_genes(sorted(at_hand), self.genes)  # says why none is there
        cells = read_any(adata, fields, measured).take(slice(None))
        whole = fields.size_factor_key is not None
        return impute(cells, self.genes, self.control_rates, seed, whole_cells=whole)

    def made_by(self, **how: Any) -> dict[str, Any]:
        """What made a prediction, for ``uns["celldit"]``; its fields read the prediction itself."""
        own = replace(self.fields, counts_layer="counts", size_factor_key="size_factor")
        elsewhere = self.elsewhere
        # Where measured cells have what a prediction has under names of its own.
        names = {n: getattr(self.fields, n) for n in ("counts_layer", "size_factor_key")}
        trained_on = {name: value for name, value in names.items() if value is not None}
        return {
            "setup": own.to_dict(),
            **({"trained_on": trained_on} if trained_on else {}),
            "made_by": {"model": self.model_id, "version": __version__, **how},
            "flow_weight": {str(kind): weight for kind, weight in self.flow_weight.items()},
            **({"effects": elsewhere.provenance} if elsewhere.used else {}),
        }
