"""The peers: published methods that the benchmark compares with, and what they need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["PEERS", "Peer"]

_SCRIPTS = Path(__file__).parent / "scripts"


@dataclass(frozen=True)
class Peer:
    """A published method.

    Parameters
    ----------
    name
        Short: of its environment's folder, and in ``side_by_side.py --peer``.
    title
        As in tables, with the version.
    module
        What is imported to see whether the environment works.
    packages
        Requirements for pip.
    python
        Version of Python that these have wheels for.
    """

    name: str
    title: str
    module: str
    packages: tuple[str, ...]
    python: str = "3.11"

    @property
    def script(self) -> Path:
        """What runs it; imports the peer and nothing of celldit."""
        return _SCRIPTS / f"run_{self.name}.py"

    @property
    def pins(self) -> str:
        """The requirements, one a line."""
        return "\n".join(self.packages) + "\n"


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        # requests is imported by CellFlow, and not among its requirements.
        Peer(
            "cellflow",
            "CellFlow 0.0.9",
            "cellflow",
            ("cellflow-tools==0.0.9", "requests>=2.32", "scikit-learn>=1.5"),
        ),
        # pertpy imports what statsmodels 0.15 no longer has.
        Peer(
            "scgen",
            "scGen (pertpy 1.0.3)",
            "pertpy",
            ("pertpy[jax]==1.0.3", "scvi-tools==1.4.2", "statsmodels<0.15"),
        ),
        Peer("scvi", "scVI 1.4.2", "scvi", ("scvi-tools==1.4.2",)),
        # cpa-tools wants torch below 2, which knows neither Python 3.11 nor numpy 2. What else it
        # wants it does not pin, and pip tries for hours; these were released beside each other.
        Peer(
            "cpa",
            "CPA 0.8.1",
            "cpa",
            (
                "cpa-tools==0.8.1",
                "scvi-tools==0.20.3",
                "torch==1.13.1",
                "pytorch-lightning==1.9.5",
                "torchmetrics==0.11.4",
                "numpy==1.23.5",
                "scipy==1.11.4",
                "pandas==2.0.3",
                "numba==0.57.1",
                "scikit-learn==1.3.2",
                "anndata==0.9.2",
                "mudata==0.2.3",
                "scanpy==1.9.8",
                "matplotlib<3.8",
                "adjustText==0.8",
                "jax==0.4.13",
                "jaxlib==0.4.13",
                "ml-dtypes==0.2.0",
                "flax==0.7.2",
                "chex==0.1.7",
                "optax==0.1.7",
                "orbax-checkpoint==0.2.7",
                "numpyro==0.12.1",
                "pyro-ppl==1.8.6",
                "setuptools<70",
            ),
            python="3.10",
        ),
    )
}
