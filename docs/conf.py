"""Sphinx: the pages of this folder, the notebooks, and the docstrings."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from celldit import __version__

# Sphinx reads only what lies in its own folder.
(HERE / "notebooks").mkdir(exist_ok=True)
for old in (HERE / "notebooks").glob("*.ipynb"):
    old.unlink()
for notebook in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
    shutil.copy(notebook, HERE / "notebooks" / notebook.name)

# Pages of functions that are no more would stay.
shutil.rmtree(HERE / "api" / "generated", ignore_errors=True)

project = "celldit"
author = "the celldit authors"
copyright = "2026, the celldit authors"
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
# Types link to their own documentation where a network is there: CELLDIT_DOCS_LINKS=1 make docs.
if os.environ.get("CELLDIT_DOCS_LINKS"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "pandas": ("https://pandas.pydata.org/docs", None),
        "matplotlib": ("https://matplotlib.org/stable", None),
        "anndata": ("https://anndata.readthedocs.io/en/stable", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable", None),
    }
# The first is what pages of functions are written in.
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}
exclude_patterns = ["_build", "results", "templates"]
templates_path = ["templates"]
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["phone.css"]
pygments_dark_style = "github-dark"
html_title = f"celldit {version}"
html_show_sourcelink = False

# Notebooks carry their outputs; make test runs them.
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_class_signature = "mixed"
# Names of other packages in full, so that they can be linked.
autodoc_type_aliases = {
    "ad.AnnData": "anndata.AnnData",
    "pd.DataFrame": "pandas.DataFrame",
    "np.ndarray": "numpy.ndarray",
    "CellDiT": "celldit.CellDiT",
}
# One page for each function of pp, tl, pl and datasets, written anew by every build.
autosummary_generate = True
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_use_rtype = False
napoleon_use_ivar = True
