"""CellFlow: OT flow matching over 50 principal components, judged while it trains.

Widths are a fraction of its defaults, which are made for a million cells and a GPU. A perturbation
is the one-hot vectors of its parts; a context is the mean of its control cells, so that one never
seen perturbed has a description. Both are those of its tutorials, as far as small data allow.
"""

from __future__ import annotations

import diffrax
import numpy as np
import optax
import pandas as pd
from cellflow.model import CellFlow
from cellflow.training import LoggingCallback
from peer_files import Points, Request, log_expression, read_request
from sklearn.decomposition import PCA

POINTS = (100, 200, 400, 800, 1600, 3200)
# CellFlow compiles the prediction of each perturbation anew: many of them, fewer points.
FEWER_POINTS, MANY = (400, 1600), 5
N_DIMS = 50
# CellFlow's 1e-5 takes minutes for eight perturbations of 600 cells, and changes no score.
CONTROLLER = diffrax.PIDController(rtol=1e-3, atol=1e-3)
NONE = "none"


class _Snapshots(LoggingCallback):
    """Predicts when training reaches one of the points."""

    def __init__(self, wanted: set[int], every: int, take) -> None:
        self.wanted, self.every, self.take, self.step = wanted, every, take, 0

    def on_train_begin(self) -> None: ...

    def on_log_iteration(self, dict_to_log) -> None:
        self.step += self.every
        if self.step in self.wanted:
            self.take(self.step)

    def on_train_end(self, dict_to_log) -> None: ...


def main(request: Request) -> None:
    """Train once, predict at every point."""
    train, controls = request.train, request.controls
    log = log_expression(train).toarray()
    n_dims = min(N_DIMS, *log.shape)
    pca = PCA(n_dims, svd_solver="covariance_eigh", random_state=request.seed).fit(log)
    train.obsm["X_pca"] = pca.transform(log).astype(np.float32)
    # Log expression keeps what 50 components leave out: the control cell's own residual.
    control_log = log_expression(controls).toarray()
    controls.obsm["X_pca"] = pca.transform(control_log).astype(np.float32)
    residual_NG = control_log - pca.inverse_transform(controls.obsm["X_pca"])

    length = max(len(parts) for parts in request.parts.values())
    columns = [f"part_{i + 1}" for i in range(length)]
    for cells in (train, controls):
        for i, column in enumerate(columns):
            cells.obs[column] = [_part(request, p, i) for p in cells.obs["perturbation"]]
    one_hot = dict(zip(request.names, np.eye(len(request.names), dtype=np.float32), strict=True))
    uns = {"parts": {**one_hot, NONE: np.zeros(len(request.names), dtype=np.float32)}}
    uns["contexts"] = _contexts(request)
    for cells in (train, controls):
        cells.uns.update(uns)
        for key in ("context", *columns):
            cells.obs[key] = cells.obs[key].astype("category")

    several = len(request.contexts) > 1
    # CellFlow refuses control cells of a context without perturbed ones.
    perturbed = train.obs["context"][~train.obs["is_control"].to_numpy()]
    model = CellFlow(train[train.obs["context"].isin(set(perturbed))].copy(), solver="otfm")
    model.prepare_data(
        sample_rep="X_pca",
        control_key="is_control",
        perturbation_covariates={"perturbation": tuple(columns)},
        perturbation_covariate_reps={"perturbation": "parts"},
        sample_covariates=["context"] if several else None,
        sample_covariate_reps={"context": "contexts"} if several else None,
        split_covariates=["context"] if several else None,
    )
    model.prepare_model(
        condition_embedding_dim=64,
        pooling="mean",
        cond_output_dropout=0.1,
        time_freqs=64,
        time_encoder_dims=(128, 128),
        hidden_dims=(256, 256),
        decoder_dims=(512, 512),
        probability_path={"constant_noise": 0.1},
        optimizer=optax.adam(1e-3),
        seed=request.seed,
    )
    points = Points(request)

    def predict(label: str) -> np.ndarray:
        shown = pd.DataFrame({"context": sorted(set(controls.obs["context"])), "is_control": False})
        for i, column in enumerate(columns):
            shown[column] = _part(request, label, i)
        predicted_ND = np.empty_like(controls.obsm["X_pca"])
        for context, row in shown.groupby("context"):
            own = (controls.obs["context"] == context).to_numpy()
            found = model.predict(
                controls[own].copy(), row, sample_rep="X_pca", stepsize_controller=CONTROLLER
            )
            (predicted_ND[own],) = (np.asarray(value) for value in found.values())
        return pca.inverse_transform(predicted_ND) + residual_NG

    def take(step: int) -> None:
        model._solver = model.trainer.solver
        model._solver.is_trained = True
        points.save(f"{step:05d}_steps", predict)
        model._solver.is_trained = False

    wanted = sorted({max(2, round(step * request.steps)) for step in points_of(request)})
    every = int(np.gcd.reduce(wanted))
    # CellFlow calls back one step after a multiple of valid_freq, and not at the very first.
    model.train(
        wanted[-1] + 2,
        batch_size=256,
        valid_freq=every,
        callbacks=[_Snapshots(set(wanted), every, take)],
    )


def points_of(request: Request) -> tuple[int, ...]:
    """Steps after which to predict."""
    return POINTS if len(request.asked) < MANY else FEWER_POINTS


def _part(request: Request, label: str, position: int) -> str:
    parts = request.parts.get(label, [])
    return parts[position] if position < len(parts) else NONE


def _contexts(request: Request) -> dict[str, np.ndarray]:
    found = {}
    for cells in (request.train, request.controls):
        for context in sorted(set(cells.obs["context"])):
            own = (cells.obs["context"] == context) & cells.obs["is_control"]
            found[context] = cells.obsm["X_pca"][own.to_numpy()].mean(axis=0)
    return found


if __name__ == "__main__":
    main(read_request())
