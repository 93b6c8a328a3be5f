"""Run the notebooks, and say whether they still work.

    python notebooks/execute.py                 # run all, change nothing
    python notebooks/execute.py 02 --write      # run one and keep its outputs

A notebook fails if a cell fails or writes to standard error, so no warning goes unseen. Outputs
are kept without times of execution and without paths of the machine.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent
SECONDS_PER_CELL = 900


def notebooks(asked: list[str] | None = None) -> list[Path]:
    """The numbered notebooks, or those whose names begin with what is asked for."""
    found = sorted(FOLDER.glob("[0-9]*.ipynb"))
    return [p for p in found if not asked or any(p.name.startswith(a) for a in asked)]


#: Run before a notebook whose code shall be seen to work, not its figures. The genes that it names
#: are kept.
QUICK = """
from dataclasses import replace as _replace
import numpy as _np
import scanpy as _sc
import celldit as _cd
from celldit.training import TrainingConfig as _Config

_train = _cd.CellDiT.train
def _quick(self, max_epochs=1, *, config=None, **more):
    config = _replace(config or _Config(), flow_steps_per_epoch=5, n_trials=1)
    return _train(self, min(max_epochs, 1), config=config, **more)
_cd.CellDiT.train = _quick

def _plane(adata, **more):
    adata.obsm["X_umap"] = _sc.pp.pca(adata, n_comps=2, copy=True).obsm["X_pca"]
_sc.tl.umap = _plane  # which takes ten seconds to compile itself

_labels = {"perturbation", "condition", "cell_type", "replicate"}
for _name, _every in {"baron": 4, "kang": 2, "norman": 1, "papalexi": 1}.items():
    def _some(_load=getattr(_cd.datasets, _name), _every=_every):
        adata = _load()
        groups = adata.obs.groupby([c for c in adata.obs if c in _labels], observed=True)
        genes = (_np.arange(adata.n_vars) % _every == 0) | adata.var_names.isin(NAMED)
        return adata[groups.head(60).index, genes].copy()
    setattr(_cd.datasets, _name, _some)
"""


def run(
    path: Path, seconds: int = SECONDS_PER_CELL, *, quick: bool = False
) -> nbformat.NotebookNode:
    """Execute a notebook with this interpreter, in its own folder, and return it with outputs.

    With `quick` every training has one short epoch of each stage at most, on a part of the screens.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    if quick:
        named = sorted(
            {word for cell in notebook.cells for word in re.findall(r"\w+", cell.source)}
        )
        notebook.cells.insert(0, nbformat.v4.new_code_cell(f"NAMED = {named}\n{QUICK}"))
    client = NotebookClient(
        notebook,
        timeout=seconds,
        kernel_name="python3",
        resources={"metadata": {"path": str(FOLDER)}},
        record_timing=False,
        # The kernel's advice on transport is not about the notebook.
        extra_arguments=["--log-level=ERROR"],
    )
    # tqdm, which other libraries load, misses widgets that nobody sees here.
    client.execute(env={**os.environ, "PYTHONWARNINGS": "ignore:IProgress not found"})
    return notebook


def complaints(notebook: nbformat.NotebookNode) -> list[str]:
    """What code cells wrote to standard error: warnings, above all."""
    return [
        output["text"].strip()
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output["output_type"] == "stream" and output["name"] == "stderr"
    ]


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The same without what differs from run to run or from machine to machine."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}
        for output in cell.get("outputs", ()):
            output.pop("metadata", None)
            if "data" in output:
                output["metadata"] = {}
                for kind, content in output["data"].items():
                    if kind.startswith("text/"):
                        output["data"][kind] = _without_addresses(content)
            if "text" in output:
                output["text"] = _without_addresses(output["text"])
    return notebook


def _without_addresses(text: str) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="beginnings of names, such as 02; all by default")
    parser.add_argument("--write", action="store_true", help="keep the outputs")
    options = parser.parse_args()
    failed = False
    for path in notebooks(options.names):
        started = time.perf_counter()
        notebook = run(path)
        found = complaints(notebook)
        failed |= bool(found)
        print(f"{path.name}: {time.perf_counter() - started:.0f} s", *found, sep="\n", flush=True)
        if options.write:
            nbformat.write(clean(notebook), path)
    sys.exit(failed)


if __name__ == "__main__":
    main()
