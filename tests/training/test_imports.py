"""The networks and the loops that train them need torch, numpy, scipy and lightning alone."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys

for name in ("anndata", "scanpy", "pandas", "sklearn", "safetensors", "h5py", "typer"):
    sys.modules[name] = None  # as if it were not installed

import celldit.flow
import celldit.latent.autoencoder
import celldit.nn.dit
import celldit.training.flow_stage
import celldit.training.saving.resume
"""


def test_training_loops_need_no_anndata() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_packages_list_and_refuse_as_if_they_were_whole() -> None:
    import celldit.conditions
    import celldit.latent
    import celldit.tokenizers

    for package in (celldit.conditions, celldit.latent, celldit.tokenizers, celldit.data):
        assert set(package.__all__) <= set(dir(package))
        assert all(getattr(package, name) is not None for name in package.__all__)
        assert not hasattr(package, "nothing_of_this_name")
