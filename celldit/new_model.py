"""A model before it is trained, from what users say of it, or from one that was."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias, cast, get_args

from celldit.arguments import check_kind
from celldit.conditions import Condition, ConditionTable
from celldit.data.reading import Source, read_set_up
from celldit.data.screens.joined import Screens, is_several, join_screens
from celldit.data.store import CellStore
from celldit.effects.features.features import FeatureTable, read_features, warn_undescribed
from celldit.effects.tables.matching import match_tables
from celldit.effects.tables.reading import TableSource, read_effects
from celldit.flow.anchored import NetworkConfig
from celldit.latent.config import LatentConfig, latent_config
from celldit.nn.dit import size_of
from celldit.pretrained import ModelOrFolder, borrow
from celldit.tokenizers import Tokenizer, default_tokenizer, resolve
from celldit.training.design import Design
from celldit.training.trained import Trained

FeatureTables: TypeAlias = FeatureTable | Sequence[FeatureTable] | Mapping[str, FeatureTable]
EffectTables: TypeAlias = TableSource | Sequence[TableSource] | Mapping[str, TableSource]


class NewModel(NamedTuple):
    """What a model is before it is trained."""

    cells: CellStore | None  # its training cells; None where it was trained elsewhere
    design: Design  # what is to be trained
    frequencies: Mapping[Condition, int]  # cells of each condition

    @property
    def perturbations(self) -> tuple[str, ...]:
        """Single perturbations, alone or in combination."""
        return tuple(sorted({part for c in self.frequencies for part in c.parts}))


def of_data(
    adata: Source | Screens,
    tokenizer: str | Tokenizer | None,
    latent: str | LatentConfig,
    network: NetworkConfig | str | None,
    features: FeatureTables | None,
    effects: EffectTables | None,
    autoencoder: ModelOrFolder | None,
) -> NewModel:
    """Check the arguments of :class:`celldit.CellDiT` and read the cells."""
    shape = latent_config(latent)
    one = join_screens(cast(Screens, adata)) if is_several(adata) else cast(Source, adata)
    cells, fields = read_set_up(one)
    borrowed = borrow(autoencoder)
    if borrowed is not None:
        borrowed.check_arguments(tokenizer, shape)
        matched, _ = borrowed.matched(cells.genes)
        tokenizer, shape = matched.tokenizer, matched.config
    elif tokenizer is None:
        tokenizer = default_tokenizer(cells)
    if network is None or isinstance(network, str):
        network = size_of("celldit-S" if network is None else network)
    kinds = get_args(NetworkConfig)
    check_kind(network, kinds, "dit", "a name such as 'celldit-S', or a DiTConfig")
    own_tokenizer, described = copy.deepcopy(resolve(tokenizer)), read_features(features)
    table = ConditionTable.from_cells(cells, fields.perturbation_sep)
    frequencies = dict(zip(table.conditions, table.counts.tolist(), strict=True))
    design = Design(fields, own_tokenizer, shape, network, described, borrowed)
    model = NewModel(cells, design, frequencies)
    warn_undescribed(described, model.perturbations)
    known, sep = model.perturbations, fields.perturbation_sep
    tables = match_tables(read_effects(effects), cells.genes, known, sep)
    return model._replace(design=replace(design, effects=tables))


def of_trained(trained: Trained, cells: CellStore | None = None) -> NewModel:
    """What another training of a model starts from, on cells of its own if there are any."""
    autoencoder = trained.autoencoder
    parts = autoencoder.tokenizer, autoencoder.config, trained.flow.config, trained.features
    return NewModel(cells, Design(trained.fields, *parts), dict(trained.frequencies))
