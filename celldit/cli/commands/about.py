"""Commands that say what is in a model: info, summary."""

from __future__ import annotations

from typing import Any

import celldit as cd
from celldit.cli.command import Answer, command
from celldit.cli.options import ModelFolder

LISTED = 30
# What training learned of a table of effects.
_LEARNED = ("amplitude", "reliability")


@command(shared=("as_json", "debug"))
def summary(model: ModelFolder) -> Answer:
    """Say in four sentences what a model learned, what to trust, and what would help.

    Example: celldit summary model
    """
    sentences = cd.CellDiT.load(model).summary().splitlines()
    return Answer({"model": str(model), "summary": sentences}, sentences)


@command(shared=("as_json", "debug"))
def info(model: ModelFolder) -> Answer:
    """Say what is in a model: genes, perturbations, contexts, training and scores."""
    from celldit.io.folders import read_folder, whole_model

    config, vocab, _ = read_folder(model)
    with whole_model(model):
        facts = _facts(config, vocab)
    width = max(map(len, facts))
    return Answer(facts, [f"{name:<{width}}  {_show(value)}" for name, value in facts.items()])


def _facts(config: dict[str, Any], vocab: dict[str, Any]) -> dict[str, Any]:
    from celldit.conditions.strata import names_of
    from celldit.io.folders import best_of

    trained = config["trained_with"]
    borrowed = config["population"]["prior"].get("borrowed", [])
    best = best_of(config["history"].get("flow", []))
    return {
        "model": config["model"],
        "celldit": config["celldit"],
        "setup": config["fields"],
        "cells": sum(int(entry[-1]) for entry in config["frequencies"]),
        "conditions": len(config["frequencies"]),
        "n_genes": len(vocab["genes"]),
        "genes": list(vocab["genes"]),
        "perturbations": vocab["perturbations"],
        "contexts": [context for context in vocab["contexts"] if context],
        # Those whose effects are measured from controls of others, for want of their own.
        "without_controls": list(names_of((where, time) for where, time, *_ in borrowed)),
        "features": sorted(vocab.get("features", {})),
        "effects": {
            table["name"]: {**table["provenance"], **{n: table[n] for n in _LEARNED}}
            for table in config["population"]["prior"].get("elsewhere", [])
        },
        "latent": {
            "tokens": config["latent"]["n_tokens"],
            "dimensions": config["latent"]["token_dim"],
        },
        # Those that stand for several are said in ``setup``.
        "times": sorted({float(e[3]) for e in config["frequencies"] if e[3] is not None}),
        "time_course": config.get("time_course", {}).get("verdict", "nothing learned"),
        "flow_weight": config.get("flow_weight", config.get("trust")),
        "scores": {"error_over_prior": best} if best else {},
        "draws_new_cells": config["synthesis"].get("learned", True),
        "seed": trained["seed"],
        "max_epochs": trained["max_epochs"],
    }


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        entries = {
            n: f"({_show(v)})" if isinstance(v, dict) else _show(v) for n, v in value.items()
        }
        return ", ".join(f"{name} {entry}" for name, entry in entries.items()) or "none"
    if isinstance(value, list):
        more = f" and {len(value) - LISTED} more" if len(value) > LISTED else ""
        return (", ".join(map(str, value[:LISTED])) + more) or "none"
    return "by the data" if value is None else str(value)
