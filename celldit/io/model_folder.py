"""A trained model to and from the parts of its folder (see :mod:`celldit.io.folders`)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from celldit import __version__
from celldit.arguments import check_path
from celldit.calibration.effects import EffectCalibration
from celldit.calibration.means import MeanCalibration
from celldit.calibration.new_cells.model import NewCellModel
from celldit.calibration.rates.control import from_arrays, to_arrays
from celldit.calibration.temporal_means import TemporalMeans
from celldit.calibration.time_course import TimeCourse
from celldit.conditions import Condition
from celldit.conditions.extrapolation import Extrapolation
from celldit.conditions.population import Population
from celldit.conditions.states import States
from celldit.data.fields import Fields
from celldit.effects.features.features import from_arrays as features_from_arrays
from celldit.effects.features.features import to_arrays as feature_arrays
from celldit.errors import FileError
from celldit.flow.anchored import AnchoredFlow, network_from_dict, network_to_dict
from celldit.flow.time import TimeFlow
from celldit.io.folders import (
    Header,
    read_folder,
    under,
    whole_model,
    write_folder,
)
from celldit.io.model_guard import SizedArray, build, check_arrays, check_finite, check_sizes
from celldit.latent.autoencoder import LARGE, Autoencoder, short
from celldit.latent.config import FORMER, LatentConfig
from celldit.nn.views import TokenViews
from celldit.tokenizers import tokenizer_from_config
from celldit.training.trained import Trained

#: What the names of arrays begin with.
_PARTS = (
    "autoencoder.",
    "flow.",
    "population.",
    "tokenizer.",
    "states.",
    "synthesis.",
    "control_rates.",
    "effect_calibration.",
    "aim.",
    "course.",
    "time.",
    "features.",
    "memberships.",
)  # fmt: skip
#: What is left of settings of the latent and of the network that earlier versions had.
_KEPT_OF_LATENT = {"decoder": "bilinear", "kind": "pca", "likelihood": "nb"}
_KEPT_OF_NETWORK = {"conditioning": "adaln", "context_embedding": False}
Folder = tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray]]


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
    """Twelve hexadecimal digits that name these arrays."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:12]


def named(trained: Trained) -> Trained:
    """The same model with the fingerprint of its arrays as its id."""
    return replace(trained, model_id=fingerprint(arrays_of(trained)))


def arrays_of(trained: Trained) -> dict[str, np.ndarray]:
    """The arrays of the trained parts."""
    weights = {
        name: {key: tensor.cpu().numpy() for key, tensor in module.state_dict().items()}
        for name, module in (("autoencoder", trained.autoencoder), ("flow", trained.flow))
    }
    large = {key: short(weights["autoencoder"][key]) for key in LARGE}
    parts: dict[str, Mapping[str, np.ndarray]] = {
        "autoencoder": weights["autoencoder"] | large,
        "flow": weights["flow"],
        "population": trained.population.arrays(),
        "tokenizer": trained.autoencoder.tokenizer.arrays(),
        "states": trained.states.arrays(),
        "synthesis": trained.new_cell_model.arrays(),
        "control_rates": to_arrays(trained.control_rates),
        "effect_calibration": trained.calibration.arrays(),
        "aim": trained.mean_calibration.arrays(),
        "course": trained.temporal_means.arrays(),
        "time": trained.time_course.arrays(),
    }
    return {f"{part}.{key}": array for part, own in parts.items() for key, array in own.items()}


def to_folder(trained: Trained) -> Folder:
    """Config, vocabulary and arrays of a trained model."""
    config = {
        "celldit": __version__,
        "model": trained.model_id,
        "fields": trained.fields.to_dict(),
        "latent": trained.autoencoder.to_config(),
        "dit": network_to_dict(trained.flow.config),
        "population": trained.population.to_config(),
        "flow_weight": {str(kind): weight for kind, weight in trained.flow_weight.items()},
        "effect_calibration": trained.calibration.to_config(),
        "states": trained.states.to_config(),
        "synthesis": trained.new_cell_model.to_config(),
        "control_rates": [list(key) for key in trained.control_rates],
        "aim": trained.mean_calibration.to_config(),
        "trained_with": dict(trained.trained_with),
        "history": dict(trained.history),
        "frequencies": [[*c.to_list(), n] for c, n in trained.frequencies.items()],
    }
    if trained.temporal_means.means:
        config["course"] = trained.temporal_means.to_config()
    if trained.fields.time_key is not None:
        config["time_course"] = trained.time_course.to_config()
    vocab = {
        "genes": list(trained.genes),
        "perturbations": list(trained.perturbations),
        "contexts": sorted({c.context for c in trained.frequencies}),
        "features": {source: list(names) for source, (names, _) in trained.features.items()},
    }
    arrays = arrays_of(trained)
    arrays.update(feature_arrays(trained.features))
    return config, vocab, arrays


def load_trained(path: str | os.PathLike[str]) -> Trained:
    """Read the folder of a model, headers first.

    FileError if a file is missing, damaged, or of another version, or the parts do not fit
    together.
    """
    folder = read_folder(path, check_header)
    with whole_model(check_path(path)):
        return _from_folder(*folder)


def save_trained(trained: Trained, path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Write the folder of a model; raises as :func:`celldit.io.folders.write_folder`."""
    write_folder(path, *to_folder(trained), overwrite=overwrite)


def check_header(
    config: dict[str, Any], vocab: dict[str, Any], headers: Mapping[str, Header]
) -> None:
    """Compare names, shapes and types of arrays with the configuration before any is read.

    ValueError if an array belongs to no part, or is not one that the configuration makes.
    """
    stray = [name for name in headers if not name.startswith(_PARTS)]
    if stray:
        raise ValueError(f"the array {stray[0]} belongs to no part of a model")
    _check_sizes(config, headers)
    check_arrays(lambda: _flow(config, headers), under("flow", headers), "flow")


def _check_sizes(config: dict[str, Any], arrays: Mapping[str, SizedArray]) -> tuple[int, int]:
    """Latent tokens and their dimensions, if the arrays can have come from them and the network."""
    latent = config["latent"]
    n_tokens, token_dim = latent["n_tokens"], latent["token_dim"]
    sizes = {"n_tokens": n_tokens, "token_dim": token_dim, "tokens x dim": n_tokens * token_dim}
    check_sizes({**latent["config"], **sizes}, arrays, "latent")
    check_sizes(config["dit"], arrays, "dit")
    return n_tokens, token_dim


def _flow(config: dict[str, Any], arrays: Mapping[str, SizedArray]) -> AnchoredFlow:
    """The flow that a configuration describes, with weights and views yet to come."""
    latent, network = config["latent"], network_from_dict(config["dit"])
    _check_kept(config["dit"], _KEPT_OF_NETWORK, "network")
    views = None
    if "flow.dit.views_TFV" in arrays:
        shape = arrays["flow.dit.views_TFV"].shape
        views = TokenViews(torch.zeros(shape), torch.zeros(shape[:1], dtype=torch.int64))
    flow = AnchoredFlow(latent["n_tokens"], latent["token_dim"], network, views)
    if any(name.startswith("flow.from_noise.") for name in arrays):
        flow.part_ways()
    return flow


def _from_folder(
    config: dict[str, Any], vocab: dict[str, Any], arrays: dict[str, np.ndarray]
) -> Trained:
    prefixes = ("features.", "memberships.")
    own = {name: array for name, array in arrays.items() if not name.startswith(prefixes)}
    if fingerprint(own) != config["model"]:
        raise ValueError("its weights are not those that config.json describes")
    check_finite(arrays)
    latent, genes = config["latent"], tuple(vocab["genes"])
    if not all(isinstance(gene, str) for gene in genes) or len(set(genes)) < len(genes):
        raise ValueError("its genes are not distinct names")
    n_tokens, token_dim = _check_sizes(config, arrays)
    shape = _latent_config(latent["config"])
    tokenizer = tokenizer_from_config(latent["tokenizer"], under("tokenizer", arrays))
    # Earlier versions added a perceptron to the log-linear decoder.
    first = arrays.get("autoencoder.decoder.residual.0.weight")
    residual = 0 if first is None else len(first)
    autoencoder = build(
        lambda: Autoencoder(tokenizer, genes, n_tokens, token_dim, shape, residual),
        _whole(under("autoencoder", arrays)),
        "autoencoder",
    )
    autoencoder.explained = latent["explained"]
    flow = build(lambda: _flow(config, arrays), under("flow", arrays), "flow")
    identity_T = arrays.get("flow.dit.identity_T", np.zeros(0, dtype=np.int64))
    if len(identity_T) and not -1 <= identity_T.min() <= identity_T.max() < tokenizer.n_identities:
        raise ValueError("its network attends to tokens that its tokenizer does not make")
    return Trained(
        Fields.from_dict(config["fields"]),
        genes,
        autoencoder,
        Population.from_config(config["population"], under("population", arrays)),
        flow,
        _flow_weight(config),
        {Condition.from_list(e[:-1]): int(e[-1]) for e in config["frequencies"]},
        features_from_arrays(vocab["features"], arrays),
        config["trained_with"],
        config["history"],
        EffectCalibration.from_config(
            config["effect_calibration"], under("effect_calibration", arrays), len(genes)
        ),
        States.from_config(config["states"], under("states", arrays)),
        NewCellModel.from_config(config["synthesis"], under("synthesis", arrays)),
        from_arrays(config.get("control_rates", []), under("control_rates", arrays), len(genes)),
        MeanCalibration.from_config(config.get("aim", {}), under("aim", arrays), len(genes)),
        TemporalMeans.from_config(config.get("course", []), under("course", arrays), len(genes)),
        _time_course(config, under("time.network", arrays), n_tokens * token_dim),
        config["model"],
    )


def _whole(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights that are stored in 16 bits, in the 32 that they are computed with."""
    halves = {n: state[n] for n in LARGE if n in state and state[n].dtype == np.float16}
    return {**state, **{name: array.astype(np.float32) for name, array in halves.items()}}


def _time_course(
    config: dict[str, Any], arrays: Mapping[str, np.ndarray], n_dims: int
) -> TimeCourse:
    """How cells get from one time to another.

    ValueError if its network is not one of this latent.
    """
    stored = config.get("time_course", {})
    times = sorted({float(e[3]) for e in config["frequencies"] if e[3] is not None})
    span = (times[0], times[-1]) if times else None
    shape, flow = stored.get("network"), None
    if shape is not None:
        if shape[0] != n_dims or not all(type(n) is int and 0 <= n < 1 << 20 for n in shape):
            raise ValueError("its network of time does not fit its latent")
        flow = build(lambda: TimeFlow(*shape), arrays, "time.network")
    return TimeCourse.from_config(stored, flow, span)


def _latent_config(stored: dict[str, Any]) -> LatentConfig:
    """The latent's settings, of this version or an earlier one."""
    _check_kept(stored, _KEPT_OF_LATENT, "latent")
    return LatentConfig(**{n: value for n, value in stored.items() if n not in FORMER})


def _check_kept(stored: Mapping[str, Any], kept: Mapping[str, Any], part: str) -> None:
    """Refuse an earlier model with what this version does not have; FileError says what to do."""
    for name, left in kept.items():
        if stored.get(name, left) != left:
            raise FileError(
                f"This model is of an earlier celldit, and the {name} {stored[name]!r} of its "
                f"{part} has left; train it again, or predict with celldit 0.1."
            )


def _flow_weight(config: dict[str, Any]) -> dict[Extrapolation, float]:
    """The stored weights of the network.

    FileError if the model is an earlier one, that had two weights for each kind, which differ.
    ValueError if a weight is no number between 0 and 1.
    """
    if "flow_weight" in config:
        stored = config["flow_weight"].items()
        if not all(type(w) in (int, float) and 0 <= w <= 1 for _, w in stored):
            raise ValueError("a weight of its network is no number between 0 and 1")
        return {Extrapolation(kind): float(weight) for kind, weight in stored}
    earlier = {kind: set(shares.values()) for kind, shares in config["trust"].items()}
    if any(len(values) > 1 for values in earlier.values()):
        raise FileError(
            "This model is of celldit 0.1, whose network moved conditions and single cells by "
            "separate shares, which this version no longer does; train it again, or predict with "
            "celldit 0.1."
        )
    return {Extrapolation(kind): float(values.pop()) for kind, values in earlier.items()}
