"""Run the code of docs/gallery.md and draw its pictures: ``python notebooks/gallery.py``."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
import scanpy as sc

mpl.use("Agg")

from matplotlib import pyplot as plt

DOCS = Path(__file__).resolve().parents[1] / "docs"
PART = re.compile(r"```python\n(.*?)```(?:\n\n!\[[^\]]*\]\(([^)]+)\))?", re.DOTALL)


def main() -> None:
    (DOCS / "images" / "gallery").mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    sc.settings.verbosity = 0
    names: dict[str, Any] = {}
    for code, picture in PART.findall((DOCS / "gallery.md").read_text(encoding="utf-8")):
        exec(code, names)
        if picture:
            plt.gcf().savefig(DOCS / picture, dpi=90, bbox_inches="tight")
            plt.close("all")
            print(picture, flush=True)


if __name__ == "__main__":
    main()
