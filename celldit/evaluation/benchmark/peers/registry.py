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
        Short: of its environment's folder, and in ``celldit benchmark --method``.
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
        # cpa-tools pins torch 1.13, which knows neither Python 3.11 nor numpy 2.
        Peer(
            "cpa",
            "CPA 0.8.1",
            "cpa",
            (
                "cpa-tools==0.8.1",
                "numpy<1.25",
                "anndata<0.10",
                "pandas<2.1",
                "scanpy<1.10",
                "setuptools<70",
            ),
            python="3.10",
        ),
    )
}
