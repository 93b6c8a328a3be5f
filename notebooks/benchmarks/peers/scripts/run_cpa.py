"""CPA with its negative binomial decoder, judged at four points of its training.

A combination is ``A+B`` as CPA writes it; contexts are its categorical covariates. CPA can only
predict labels that it was set up with, so copies of the control cells that carry the labels asked
for are set up beside the training cells, as its "ood" part, which is not trained on. Counts are
drawn from the negative binomial around the decoded mean, as for scVI.
"""

from __future__ import annotations

import anndata as ad
import cpa
import numpy as np
import torch
from peer_files import Points, Request, log_of_sampled, read_request
from pytorch_lightning.callbacks import Callback

POINTS = (25, 50, 100, 200)
EPOCHS_OF_WARM_UP = 50


class _Snapshots(Callback):
    """Predicts when training reaches one of the points."""

    def __init__(self, wanted: set[int], take) -> None:
        self.wanted, self.take = wanted, take

    def on_train_epoch_end(self, trainer, module) -> None:
        done = trainer.current_epoch + 1
        if done in self.wanted:
            self.take(done)
            module.train()


def main(request: Request) -> None:
    """Train once, predict at every point."""
    torch.set_num_threads(1)
    torch.manual_seed(request.seed)
    unknown = set(request.names) - {p for label in request.trained for p in _parts(request, label)}
    if unknown:
        raise LookupError(f"{', '.join(sorted(unknown))} was not trained on")
    cells = _together(request)
    # Without SMILES, CPA 0.8.1 fails on a column named None unless it finds this set.
    cpa.CPA.pert_smiles_map = {}
    cpa.CPA.setup_anndata(
        cells,
        perturbation_key="label",
        control_group=request.control,
        dosage_key="dose",
        categorical_covariate_keys=["context"],
        is_count_data=True,
        max_comb_len=max(len(parts) for parts in request.parts.values()),
    )
    model = cpa.CPA(
        cells,
        split_key="part",
        n_latent=64,
        recon_loss="nb",
        doser_type="linear",
        n_hidden_encoder=256,
        n_layers_encoder=2,
        n_hidden_decoder=256,
        n_layers_decoder=2,
        seed=request.seed,
    )
    sizes_N = request.controls.obs["size_factor"].to_numpy()
    asked = {
        label: cells[(cells.obs["asked"] == label).to_numpy()].copy() for label in request.asked
    }
    points = Points(request)

    def take(epochs: int) -> None:
        theta_G = model.module.px_r.exp().detach().numpy()

        def predict(label: str) -> np.ndarray:
            model.predict(asked[label], batch_size=256)
            mean_NG = np.asarray(asked[label].obsm["CPA_pred"])
            return log_of_sampled(mean_NG, theta_G, sizes_N, request.seed)

        points.save(f"{epochs:05d}_epochs", predict)

    wanted = sorted({max(1, round(n * request.steps)) for n in POINTS})
    model.train(
        max_epochs=wanted[-1],
        use_gpu=False,
        batch_size=128,
        plan_kwargs={"n_epochs_pretrain_ae": 10, "n_epochs_adv_warmup": EPOCHS_OF_WARM_UP},
        early_stopping_patience=wanted[-1],
        callbacks=[_Snapshots(set(wanted), take)],
        enable_progress_bar=False,
        logger=False,
        save_path=False,
    )


def _together(request: Request) -> ad.AnnData:
    """Training cells, a tenth of them for validation, and relabelled control cells."""
    train, controls = request.train, request.controls
    train.obs["label"] = [
        "+".join(_parts(request, label)) or request.control for label in train.obs["perturbation"]
    ]
    drawn = np.random.default_rng(request.seed).random(train.n_obs) < 0.1
    train.obs["part"], train.obs["asked"] = np.where(drawn, "test", "train"), ""
    sides = [train]
    for label in request.asked:
        copy = controls.copy()
        copy.obs["label"], copy.obs["part"] = "+".join(_parts(request, label)), "ood"
        copy.obs["asked"] = label
        sides.append(copy)
    cells = ad.concat(sides, index_unique="-")
    cells.X = cells.X.toarray()
    cells.obs["dose"] = ["+".join("1.0" for _ in x.split("+")) for x in cells.obs["label"]]
    return cells


def _parts(request: Request, label: str) -> list[str]:
    return request.parts.get(label, [])


if __name__ == "__main__":
    main(read_request())
