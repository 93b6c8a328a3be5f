"""CellDiT: the one class a user needs. It checks arguments, and asks one room for the answer."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import anndata as ad
import numpy as np
import pandas as pd

from celldit import new_model
from celldit.arguments import check_number
from celldit.compute import check_device, threads
from celldit.conditions import Condition
from celldit.conditions.strata import names_of
from celldit.data.fields import Fields, setup_anndata
from celldit.data.imputation import check_missing
from celldit.data.reading import Source, read_set_up
from celldit.data.screens.joined import Screens
from celldit.data.store import CellStore
from celldit.errors import InputError, NotTrainedError
from celldit.flow.anchored import NetworkConfig
from celldit.inference import counterfactual, generation, interpolation, request
from celldit.inference.effects.file import predict_effects
from celldit.inference.effects.summary import summary
from celldit.inference.maps.edit import EditConfig
from celldit.inference.maps.transport import Sampler
from celldit.inference.solver import SamplingOptions, SolverConfig
from celldit.inference.time.trajectory import check_times, trajectory
from celldit.io.model_folder import load_trained, named, save_trained
from celldit.io.rehearsal import rehearse
from celldit.io.shards import Output
from celldit.io.stream import check_out
from celldit.latent.config import LatentConfig
from celldit.pretrained import ModelOrFolder
from celldit.progress import speaks
from celldit.tokenizers import Tokenizer
from celldit.training.trained import Trained

if TYPE_CHECKING:
    import torch

    from celldit.training.config import TrainingConfig


class CellDiT:
    """Predict what cells would do if they were perturbed, and generate cells that never were.

    Parameters
    ----------
    adata
        Training data, set up with :meth:`setup_anndata`; N cells x G genes of raw counts. It is not
        changed. The counts of a backed AnnData stay on disk, as do those of a path (``.h5ad``,
        ``.zarr``, a folder of shards) or of what :func:`celldit.open_store` gives.
        Several screens, in a list or by name, are one over the genes that all have, with the
        screen as a covariate, ``obs["screen"]``; each is compared with its own controls. Or what
        another model's :attr:`trained` is, for a model without cells.
    tokenizer
        ``"gene_sets"``, ``"modules"``, ``"genes"``, ``"ranks"``, or a tokenizer object. None takes
        gene sets (the Hallmark collection, whatever the case of the names), and data-driven modules
        with a warning where the genes are not in them.
    latent
        ``"pca"``, or a :class:`~celldit.latent.LatentConfig` for its size.
    features
        What is known of perturbations, for those never seen: a table with one row per perturbation,
        or several, in a list or by source, ``{"reactome": table, ...}``. Tables, embeddings and
        edges of networks are read from files, too (``docs/features.md``). Training chooses the
        weight of each; a perturbation never seen needs a row in one of them.
    effects
        Effects that others measured: what :func:`celldit.pp.effect_table` gives, files of it, or
        several, in a list or by source. Training believes each as far as it predicts perturbations
        that `adata` has, too, and perturbations that only a table has are ``known elsewhere``; see
        ``docs/effects_elsewhere.md``. With controls alone in `adata` all is known elsewhere.
    dit
        Size of the transformer: ``"S"`` (the default), ``"B"``, ``"L"``, ``"XL"`` (see
        ``docs/scaling.md``), or a :class:`~celldit.nn.dit.DiTConfig`; or another network, a
        :class:`~celldit.nn.comparators.MLPConfig` or :class:`~celldit.nn.comparators.UNetConfig`.
    autoencoder
        Another trained model, or the folder of one, whose autoencoder is taken over, in
        place of `tokenizer` and `latent`. Genes are matched by name; at least half of its genes
        must be among those of `adata`, unless :class:`celldit.Pretrained` says otherwise.

    Raises
    ------
    InputError
        If the data were not set up or cannot be used, or share too few genes with `autoencoder`.

    Examples
    --------
    >>> import celldit as cd
    >>> adata = cd.datasets.papalexi()
    >>> cd.CellDiT.setup_anndata(adata, perturbation_key="perturbation", control="control",
    ...                          covariate_keys=["replicate"], size_factor_key="total_umis")
    >>> model = cd.CellDiT(adata)
    >>> model.train()                                      # doctest: +SKIP
    >>> predicted = model.predict(perturbations=["STAT1"])  # doctest: +SKIP
    """

    def __init__(
        self,
        adata: Source | Screens | Trained,
        tokenizer: str | Tokenizer | None = None,
        latent: Literal["pca"] | LatentConfig = "pca",
        *,
        features: new_model.FeatureTables | None = None,
        effects: new_model.EffectTables | None = None,
        dit: NetworkConfig | str | None = None,
        autoencoder: ModelOrFolder | None = None,
    ) -> None:
        self._trained: Trained | None = adata if isinstance(adata, Trained) else None
        self._model = (
            new_model.of_trained(adata)
            if isinstance(adata, Trained)
            else new_model.of_data(adata, tokenizer, latent, dit, features, effects, autoencoder)
        )

    @staticmethod
    @functools.wraps(setup_anndata)
    def setup_anndata(*arguments: Any, **options: Any) -> None:
        setup_anndata(*arguments, **options)

    # --- what the model knows ------------------------------------------------------------------

    @property
    def fields(self) -> Fields:
        """What the columns of the training data mean."""
        return self._model.design.fields

    @property
    def genes(self) -> tuple[str, ...]:
        """Names of the genes that it predicts."""
        cells = self._model.cells
        return self.trained.genes if cells is None else cells.genes

    @property
    def perturbations(self) -> tuple[str, ...]:
        """Single perturbations that were in training, alone or in combination."""
        return self._model.perturbations

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Conditions that were in training, controls included."""
        return tuple(self._model.frequencies)

    @property
    def without_controls(self) -> tuple[str, ...]:
        """Contexts whose effects are measured from controls of others, for want of their own."""
        return names_of(self.trained.population.prior.baselines.borrowed)

    @property
    def is_trained(self) -> bool:
        """Whether :meth:`train` has run, or the model was loaded."""
        return self._trained is not None

    @property
    def trained(self) -> Trained:
        """The trained parts, for samplers and the curious."""
        if self._trained is None:
            raise NotTrainedError("The model is not trained yet; call model.train() first.")
        return self._trained

    @property
    def flow_weight(self) -> dict[str, float]:
        """Share of the network's displacement used for each kind of extrapolation.

        Cross-validation chose it. 0 is the effect model alone: the network did not improve on it.
        """
        return {str(kind): weight for kind, weight in self.trained.flow_weight.items()}

    @property
    def time_course(self) -> str:
        """What holds between the times of training, and how well it did on times left out."""
        return self.trained.time_course.verdict

    trust = flow_weight
    """Its name in celldit 0.1."""

    def weighted(self, weight: float) -> CellDiT:
        """The same model with a share of its network between 0, the effect model alone, and 1."""
        check_number(weight, "weight", 1)
        other = copy.copy(self)
        every_kind = {kind: float(weight) for kind in self.trained.flow_weight}
        other._trained = named(replace(self.trained, flow_weight=every_kind))
        return other

    @property
    def history(self) -> dict[str, list[dict[str, float]]]:
        """Course of each stage of training: held-out numbers after each epoch."""
        return dict(self.trained.history)

    def summary(self) -> str:
        """Say in four sentences what was learned, what to trust, and what would help.

        How far each kind of question can be trusted is measured on conditions of training, each
        predicted without its own cells. :meth:`train` prints it at its end.
        """
        return summary(self.trained)

    def __repr__(self) -> str:
        state = "trained" if self.is_trained else "not trained"
        return (
            f"CellDiT({len(self.genes)} genes, {len(self.perturbations)} perturbations, "
            f"{len(self.conditions)} conditions, {state})"
        )

    def to(self, device: str | torch.device) -> CellDiT:
        """Move the velocity network to ``"cuda"``, ``"cuda:1"`` or ``"cpu"``; the same model.

        For large networks: at the default size a GPU waits most of the time. Decoding stays on the
        CPU, where models are loaded.

        Raises
        ------
        InputError
            If there is no such device.
        """
        self.trained.flow.to(check_device(device))
        return self

    # --- training ------------------------------------------------------------------------------

    def train(
        self,
        max_epochs: int | None = None,
        *,
        seed: int = 0,
        config: TrainingConfig | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        checkpoint_minutes: float = 10.0,
        **trainer_arguments: Any,
    ) -> None:
        """Train: the latent and the effect model in closed form, then the flow on what these lack.

        Parameters
        ----------
        max_epochs
            Bound on the epochs of the flow, and of that from noise. 0 trains no network: the model
            then predicts by the effect model alone, in seconds.
        seed
            Of everything random.
        config
            Settings of training.
        checkpoint_dir
            Folder for checkpoints. The same call goes on from the last one, after an interruption
            of any kind, and ends at the same weights; see ``docs/scaling.md``.
        checkpoint_minutes
            Time between two checkpoints; each stage ends with one, too.
        **trainer_arguments
            Arguments of :class:`lightning.pytorch.Trainer`, such as ``accelerator="gpu"``,
            ``devices=2`` or ``enable_progress_bar=False``, which leaves out the summary, too.

        Raises
        ------
        InputError
            If an argument is not known, a number cannot be used, there are fewer devices than
            asked for, or the checkpoints in `checkpoint_dir` are of another training.
        FileError
            If `checkpoint_dir` cannot be used, or another process trains into it.
        """
        from celldit.training.config import TrainingConfig
        from celldit.training.design import Run
        from celldit.training.fit import train
        from celldit.training.saving.checkpoints import is_main_process

        config = TrainingConfig() if config is None else config
        run = Run(max_epochs, seed, config, trainer_arguments, checkpoint_dir, checkpoint_minutes)
        cells = self._read("train")
        self._trained = named(train(cells, self._model.design, run))
        # Fine-tuning adds the conditions of its cells; a new training knows its own alone.
        self._model = self._model._replace(frequencies=dict(self._trained.frequencies))
        if trainer_arguments.get("enable_progress_bar", speaks()) and is_main_process():
            print(self.summary())

    def fine_tune(
        self,
        adata: ad.AnnData,
        *,
        max_epochs: int | None = None,
        seed: int = 0,
        min_overlap: float = 0.5,
        config: TrainingConfig | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        checkpoint_minutes: float = 10.0,
        **trainer_arguments: Any,
    ) -> CellDiT:
        """Go on with other data: other genes, new perturbations, new contexts.

        Genes are matched by name. The latent space stays, the decoder and the flow learn from where
        they are, and the effect model takes the new effects beside those that it knows, so that old
        perturbations can be predicted in the new contexts.

        Parameters
        ----------
        adata
            New data, set up with :meth:`setup_anndata`, with as many covariates as before.
        max_epochs
            As in :meth:`train`; 0 trains nothing: genes are matched and effects joined.
        seed
            Of everything random.
        min_overlap
            Least share of the model's genes that must be among those of `adata`.
        config
            Settings of training; the default has smaller learning rates than that of :meth:`train`.
        checkpoint_dir, checkpoint_minutes, **trainer_arguments
            As in :meth:`train`.

        Returns
        -------
        CellDiT
            This model, which is now that of the new data.

        Raises
        ------
        NotTrainedError
            If this model was neither trained nor loaded.
        InputError
            If too few genes are shared, or the data cannot be used.

        Examples
        --------
        >>> model = CellDiT.load("model/").fine_tune(adata)     # doctest: +SKIP
        """
        from celldit.training.design import Run
        from celldit.training.fine_tune import GENTLE, fine_tune

        trained = self.trained
        config = GENTLE if config is None else config
        run = Run(max_epochs, seed, config, trainer_arguments, checkpoint_dir, checkpoint_minutes)
        cells, fields = read_set_up(adata)
        self._trained = named(fine_tune(trained, cells, fields, run, min_overlap))
        self._model = new_model.of_trained(self._trained, cells)
        return self

    # --- prediction ----------------------------------------------------------------------------

    def predict(
        self,
        adata: Source | None = None,
        *,
        perturbations: Sequence[str] | str,
        dose: object = None,
        time: float | None = None,
        sampler: Literal["transport", "inversion", "edit"] = "transport",
        solver: str | None = None,
        n_steps: int = 8,
        grid: Literal["uniform", "quadratic", "cosine"] = "uniform",
        guidance: float = 1.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        edit: EditConfig | None = None,
        seed: int = 0,
        batch_size: int = 512,
        out: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        shard: str | tuple[int, int] | None = None,
        counts_layer: str | None = None,
        missing: Literal["refuse", "impute"] = "refuse",
    ) -> ad.AnnData:
        """Predict each control cell as if it had been perturbed.

        What is drawn belongs to the seed, the cell's name and its condition: a cell is the same to
        the byte whichever other cells and perturbations are asked for, in one call or several. Only
        contexts that training did not see start at the mean of the controls given.

        Parameters
        ----------
        adata
            Cells to perturb: its control cells, or all where it has no perturbation column.
            Contexts never seen perturbed, or never seen at all, are allowed. None takes the
            training controls.
        perturbations
            Labels such as ``"STAT1"`` or ``"IRF1+JAK2"``; unseen combinations are allowed.
        dose, time
            Dose (a number, or ``"1+0.5"``) and time of the perturbation, where the data have them.
        sampler
            How the flow moves a cell; under its own condition each gives the cell back.
            ``"transport"``: the flow starts at the cell moved by the estimated effect.
            ``"inversion"``: through the noise that explains the cell. ``"edit"``: along the
            difference of two flows, without inversion.
        solver, n_steps, grid
            How the flow is integrated: ``"heun"`` (default), ``"euler"`` (default and only choice
            of ``"edit"``), or ``"rk4"``.
        guidance, guidance_interval
            Scale of classifier-free guidance, and the flow times within which it acts.
        edit
            Averages and start of ``sampler="edit"``.
        seed
            Of the drawn counts, and the noise of ``"edit"``.
        batch_size
            Cells at a time; the result does not depend on it.
        out
            Path ending in ``.h5ad`` or ``.zarr``: cells go there batch by batch, and what is
            returned reads its X and layers from there. The file appears when it is whole.
        overwrite
            Whether `out` may replace a file.
        shard
            Which part of the cells to make, ``"2/8"`` or ``(2, 8)`` for the second of eight; `out`
            is then a folder. A shard that exists is opened, not made again, so that processes can
            share the work and go on after any stop.
        counts_layer
            Layer of `adata` with raw counts; None for what its own :meth:`setup_anndata` says, else
            that of training, else ``X``.
        missing
            What to do about genes that `adata` lacks: ``"refuse"``, or ``"impute"`` them at the
            rates of the model's control cells (``obs["imputed_share"]``,
            ``uns["celldit"]["imputed"]``). Half of the genes must have been measured.

        Returns
        -------
        AnnData
            One cell for each control cell and perturbation, ordered by perturbation: ``X`` is log(1
            + expected counts per 10,000); ``layers["counts"]``, ``layers["mean"]`` at the cell's
            ``obs["size_factor"]``; ``obsm["X_celldit"]``, the latent; ``obs["control_cell"]``,
            which cell it was; ``obs["extrapolation"]``, how far from training it is;
            ``obs["flow_weight"]``, ``obs["effect_sd"]``, ``obs["responds"]``, False for cells that
            stay as they are, as some of that perturbation did in training; with doses or times
            ``obs["beyond_range"]``, whether one lies outside those of training.

        Raises
        ------
        UnknownNameError
            If nothing is known of a perturbation; names the closest.
        InputError
            If genes are missing, there are no control cells, or a number cannot be used.
        FileError
            If `out` exists (unless `overwrite`) or cannot be written; before any work starts.
        """
        trained = self.trained
        how = Sampler.of(
            sampler, solver, edit, n_steps=n_steps, guidance=guidance,
            guidance_interval=guidance_interval, grid=grid,
        )  # fmt: skip
        options = SamplingOptions(how.config, seed, batch_size).usable_by(trained)
        output = Output.of(out, overwrite, shard)
        requested = request.Counterfactuals.of(trained, perturbations, dose, time)
        check_missing(missing)
        if adata is None or missing == "refuse":
            cells, imputed = self._read("predict", adata, counts_layer), None
        else:
            cells, imputed = trained.read_imputed(adata, counts_layer, seed)
        with threads():
            return counterfactual.predict(trained, cells, requested, how, options, output, imputed)

    def generate(
        self,
        n_cells: int,
        *,
        perturbation: str | None = None,
        covariates: Mapping[str, str] | None = None,
        like: Source | None = None,
        dose: object = None,
        time: float | None = None,
        solver: str = "heun",
        n_steps: int = 8,
        grid: Literal["uniform", "quadratic", "cosine"] = "uniform",
        guidance: float = 1.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        seed: int = 0,
        batch_size: int = 512,
        out: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        counts_layer: str | None = None,
    ) -> ad.AnnData:
        """Generate new cells.

        Parameters
        ----------
        n_cells
            How many.
        perturbation
            Their perturbation; None for all, in the proportions of the training data.
        covariates
            Values of some covariates, such as ``{"cell_type": "B"}``; the rest as in training.
        like
            Data whose composition and library sizes to follow (cells are drawn from its rows);
            excludes `perturbation`, `covariates`, `dose` and `time`.
        dose, time
            Where the data have them; a dose needs `perturbation`. Cells at a time between two of
            training are new cells of either, sent on as by :meth:`trajectory`.
        solver, n_steps, grid, guidance, guidance_interval, batch_size, out, overwrite
            As for :meth:`predict`; ``solver="sde"`` adds noise on the way.
        seed
            Of everything drawn; cell 17 of a condition is the same whether 20 or 20,000 are drawn.
        counts_layer
            Layer of `like` with raw counts, as for :meth:`predict`.

        Returns
        -------
        AnnData
            The fields of :meth:`predict`. Drawn counts are brought, gene by gene, to the
            distribution of measured ones, and expectations follow by what that changes on average.

        Raises
        ------
        UnknownNameError, InputError, FileError
            If a perturbation or covariate is not known; as :meth:`predict`.
        """
        trained = self.trained
        config = SolverConfig(solver, n_steps, guidance, guidance_interval, grid)
        options = SamplingOptions(config, seed, batch_size).usable_by(trained)
        output = Output.of(out, overwrite)
        requested = generation.NewCellRequest(n_cells, perturbation, covariates, dose, time)
        requested.check_like(like)
        cells = None if like is None else self._read("generate", like, counts_layer)
        with threads():
            return generation.generate(trained, requested, cells, options, output)

    def trajectory(
        self,
        adata: Source | None = None,
        *,
        times: Sequence[float],
        seed: int = 0,
        batch_size: int = 512,
        out: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
    ) -> ad.AnnData:
        """Show each cell at other times, those between the trained ones included.

        Each goes along the mean course of its controls, and its deviation from that along a
        velocity learned from cells of consecutive times; what was done to it is done to it at the
        other time, too. At a trained time cells have the mean log expression of the controls
        measured then. :attr:`time_course` says what leaving times out found.

        Parameters
        ----------
        adata
            Cells of any condition, at times of their own; None takes the training cells.
        times
            Where to show them. Outside the trained range the nearest trained time is used, and a
            warning says so.
        seed, batch_size, out, overwrite
            As for :meth:`predict`.

        Returns
        -------
        AnnData
            One cell for each cell and time, ordered by time; ``obs["source_cell"]`` and
            ``obs["source_time"]`` say which cell it was, and when.

        Raises
        ------
        InputError
            If the model knows no time, or a number cannot be used.
        """
        options = SamplingOptions(seed=seed, batch_size=batch_size)
        numbers, output = check_times(times, self.trained), Output.of(out, overwrite)
        cells = self._read("trajectory", adata)
        with threads():
            return trajectory(self.trained, cells, numbers, options, output)

    def interpolate(
        self,
        adata: Source | None = None,
        *,
        start: str,
        end: str,
        dose: object = None,
        shares: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
        seed: int = 0,
        batch_size: int = 512,
        out: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
    ) -> ad.AnnData:
        """Show each control cell on the way from one condition to another.

        Parameters
        ----------
        adata
            As for :meth:`predict`.
        start, end
            Labels of the two conditions; the control label is allowed.
        dose
            Of both, as for :meth:`predict`; required where the training data have doses.
        shares
            How far along the way, in [0, 1]; 0 and 1 are what :meth:`predict` gives.
        seed, batch_size, out, overwrite
            As for :meth:`predict`.

        Returns
        -------
        AnnData
            One cell for each share and control cell; ``obs["share"]``, ``obs["control_cell"]``.
        """
        trained, numbers = self.trained, interpolation.check_shares(shares)
        options = SamplingOptions(seed=seed, batch_size=batch_size)
        labels = [
            request.one_label(trained, start, "start"),
            request.one_label(trained, end, "end"),
        ]
        ends = request.Counterfactuals(labels, dose)
        output = Output.of(out, overwrite)
        cells = self._read("interpolate", adata)
        with threads():
            return interpolation.interpolate(trained, cells, ends, numbers, options, output)

    def interpolate_cells(
        self,
        adata: Source | None = None,
        *,
        start: Sequence[str] | str,
        end: Sequence[str] | str,
        shares: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
        seed: int = 0,
        batch_size: int = 512,
        out: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
    ) -> ad.AnnData:
        """Show the cells on the straight way in the latent from one observed cell to another.

        It claims no time course. Every cell on it is an edit of the end it is nearer to, with that
        cell's library size; shares 0 and 1 are the observed cells themselves, to the count.

        Parameters
        ----------
        adata
            Where the cells are; those of training by default.
        start, end
            Names of cells (``adata.obs_names``) in pairs; one name may face several.
        shares, seed, batch_size, out, overwrite
            As for :meth:`interpolate`.

        Returns
        -------
        AnnData
            One cell for each share and pair; ``obs["start_cell"]``, ``obs["end_cell"]``,
            ``obs["share"]``.

        Raises
        ------
        UnknownNameError
            If a cell is not there.
        InputError
            If the names do not pair up.
        """
        trained, numbers = self.trained, interpolation.check_shares(shares)
        pairs, output = interpolation.check_pairs(start, end), Output.of(out, overwrite)
        options = SamplingOptions(seed=seed, batch_size=batch_size)
        cells = self._read("interpolate_cells", adata)
        with threads():
            return interpolation.interpolate_cells(trained, cells, pairs, numbers, options, output)

    def predict_effects(
        self,
        perturbations: Sequence[str] | str,
        *,
        dose: object = None,
        time: float | None = None,
        out: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
    ) -> pd.DataFrame | ad.AnnData:
        """Predict the log fold change of every gene, with its uncertainty.

        Parameters
        ----------
        perturbations
            Labels, as for :meth:`predict`.
        dose, time
            Where the data have them.
        out
            A path that ends in ``.h5ad`` or ``.zarr``: effects of thousands of perturbations go
            there, some in memory at a time.
        overwrite
            Whether `out` may be replaced.

        Returns
        -------
        DataFrame, or AnnData with `out`
            The AnnData has one row per perturbation and context, log fold changes as ``X`` and
            standard deviations as ``layers["sd"]``, both left on disk. The table has one row per
            perturbation, context and gene: ``perturbation``, ``context``, ``gene``,
            ``log_fold_change`` (natural logarithm of the mean rate, after over before, counted from
            the rates measured in the context's controls), ``sd`` (its standard deviation, as wide
            as training conditions predicted likewise were off), ``extrapolation``; with doses or
            times also ``beyond_range``, whether one lies outside those of training.

        Raises
        ------
        OutOfMemoryError
            If the table would not fit into memory; says how large it is.
        FileError
            As :meth:`predict`, or if there is no room for `out`.
        """
        target = check_out(out, overwrite)
        requested = request.Counterfactuals.of(self.trained, perturbations, dose, time)
        with threads():
            return predict_effects(self.trained, requested, target)

    def get_latent_representation(
        self, adata: Source | None = None, *, unit_scale: bool = False
    ) -> np.ndarray:
        """Latent of cells, for neighbours, clusters and embeddings.

        Parameters
        ----------
        adata
            Any AnnData with the same genes; None for the training cells.
        unit_scale
            False: distances are those of log expression, as between principal components and in
            ``obsm["X_celldit"]``. True: latent tokens as the flow sees them, of about unit root
            mean square each, so that distances count weak tokens as much as strong ones.

        Returns
        -------
        ndarray
            Float32, shape (N, K·D).
        """
        autoencoder = self.trained.autoencoder
        with threads():
            z_NKD = autoencoder.encode(self._read("get_latent_representation", adata))
        return z_NKD.flatten(1).numpy() if unit_scale else autoencoder.at_own_size(z_NKD)

    def _read(
        self, what: str, adata: Source | None = None, counts_layer: str | None = None
    ) -> CellStore:
        """Cells at hand with the model's genes; those of training where there are none."""
        if adata is not None:
            return self.trained.read(adata, counts_layer)
        if self._model.cells is None:
            raise InputError(
                f"This model was loaded from a folder, which holds no cells, and {what}() needs "
                f"some: {'set up a new CellDiT(adata)' if what == 'train' else 'pass adata'}."
            )
        return self._model.cells

    # --- storage -------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the model to a folder that a person can read; cells are not stored.

        Raises
        ------
        FileError
            If the folder exists (unless `overwrite`) or cannot be written.
        """
        save_trained(self.trained, path, overwrite=overwrite)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        licence: str = "",
        data: str = "",
        private: bool = True,
        token: str | None = None,
    ) -> str:
        """Upload the model and a card to the Hugging Face hub; cells are not uploaded.

        Needs ``pip install "celldit[hub]"``.

        Parameters
        ----------
        repo_id
            ``"owner/name"``; made where there is none.
        licence
            Of the model, as the hub writes it, such as ``"cc-by-4.0"``.
        data
            A sentence for the card on what the model was trained on.
        private
            Whether a new repository is for its owner alone.
        token
            Of the hub; None for that of ``huggingface-cli login``.

        Returns
        -------
        str
            Its address.

        Raises
        ------
        InputError, FileError
            If `repo_id` is none; if the hub cannot be reached or refuses.
        """
        from celldit.io.hub import push

        return push(self.trained, repo_id, licence=licence, data=data, private=private, token=token)

    @classmethod
    def from_hub(
        cls, repo_id: str, *, revision: str | None = None, token: str | None = None
    ) -> CellDiT:
        """Read a model from the Hugging Face hub. Nothing in it is executed.

        Needs ``pip install "celldit[hub]"``.

        Parameters
        ----------
        repo_id, token
            As for :meth:`push_to_hub`.
        revision
            A branch, tag or commit; None for the newest.

        Raises
        ------
        InputError, FileError
            If `repo_id` is none; if the hub cannot be reached, or holds no model there.
        """
        from celldit.io.hub import pulled

        with pulled(repo_id, revision=revision, token=token) as folder:
            return cls.load(folder)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CellDiT:
        """Read a model that :meth:`save` wrote. Nothing in the folder is executed.

        Raises
        ------
        FileError
            If a file is missing, damaged, or of another version.
        """
        model = cls(load_trained(path))
        rehearse(model, str(path))
        return model
