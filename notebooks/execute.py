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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from jupyter_client.manager import KernelManager, start_new_kernel
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent
SECONDS_PER_CELL = 900


def notebooks(asked: list[str] | None = None) -> list[Path]:
    """The numbered notebooks, or those whose names begin with what is asked for."""
    found = sorted(FOLDER.glob("[0-9]*.ipynb"))
    return [p for p in found if not asked or any(p.name.startswith(a) for a in asked)]


#: What `quick_kernel` runs first: trainings, networks and screens become small; genes in NAMED are
#: kept.
QUICK = """
import contextlib, subprocess
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
import numpy as np
import scanpy as sc
from typer.testing import CliRunner
import celldit as cd
from celldit.cli import app
from celldit.nn import dit
from celldit.training import TrainingConfig

dit.SIZES["celldit-S"] = dit.DiTConfig(width=16, depth=1, n_heads=2)

train = cd.CellDiT.train
def quick(self, max_epochs=1, *, config=None, **more):
    config = replace(config or TrainingConfig(), flow_steps_per_epoch=5, n_trials=1)
    return train(self, min(max_epochs, 1), config=config, **more)
cd.CellDiT.train = quick

def plane(adata, **more):
    adata.obsm["X_umap"] = sc.pp.pca(adata, n_comps=2, copy=True).obsm["X_pca"]
sc.tl.umap = plane  # which takes ten seconds to compile itself, as do weights of neighbours
sc.pp.neighbors = partial(sc.pp.neighbors, method="gauss")

def in_this_process(command, *, cwd, **more):
    with contextlib.chdir(cwd):
        done = CliRunner().invoke(app, command[command.index("celldit") + 1 :])
    return SimpleNamespace(stdout=done.stdout, stderr=done.stderr, returncode=done.exit_code)
subprocess.run = in_this_process  # another interpreter would import everything again

labels = {"perturbation", "condition", "cell_type", "replicate"}
for name, every in {"baron": 8, "kang": 4, "norman": 2, "papalexi": 2}.items():
    def some(load=getattr(cd.datasets, name), every=every):
        adata = load()
        groups = adata.obs.groupby([c for c in adata.obs if c in labels], observed=True)
        genes = (np.arange(adata.n_vars) % every == 0) | adata.var_names.isin(NAMED)
        return adata[groups.head(25).index, genes].copy()
    setattr(cd.datasets, name, some)
"""

#: The kernel's advice on transport is not about the notebook, and tqdm, which other libraries load,
#: misses widgets that nobody sees here.
KERNEL = {
    "extra_arguments": ["--log-level=ERROR"],
    "env": {**os.environ, "PYTHONWARNINGS": "ignore:IProgress not found"},
}


@contextmanager
def quick_kernel() -> Iterator[KernelManager]:
    """A kernel for one notebook after another whose code shall be seen to work, not its figures.

    Every training has one short epoch of each stage at most, on a part of the screens.
    """
    code = "".join(cell.source for path in notebooks() for cell in nbformat.read(path, 4).cells)
    named = sorted(set(re.findall(r"\w+", code)))
    kernel, client = start_new_kernel(kernel_name="python3", cwd=FOLDER, **KERNEL)
    try:
        # Names of its own, which are not those of the notebooks.
        client.execute_interactive(f"exec({QUICK!r}, {{'NAMED': {named}}})", timeout=120)
        yield kernel
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


def run(
    path: Path, seconds: int = SECONDS_PER_CELL, kernel: KernelManager | None = None
) -> nbformat.NotebookNode:
    """Execute a notebook with this interpreter, in its own folder, and return it with outputs.

    It has a kernel of its own, or the namespace of a given one, emptied.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    if kernel is not None:
        notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
    client = NotebookClient(
        notebook,
        km=kernel,
        timeout=seconds,
        kernel_name="python3",
        resources={"metadata": {"path": str(FOLDER)}},
        record_timing=False,
        extra_arguments=KERNEL["extra_arguments"],
    )
    client.execute(env=KERNEL["env"])
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
