"""The page: a frame, its style and script, plotly and the content, in one file."""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files
from typing import Any

from celldit import __version__
from celldit.report.style import CSS

__all__ = ["render"]

_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline';
 style-src 'unsafe-inline'; img-src data: blob:; font-src data:">
<title>{title}</title>
<style>{style}</style>
</head>
"""

_BODY = """<body>
<main>
<header>
<h1>{title}</h1>
<button id="theme" type="button" aria-label="switch between light and dark">light / dark</button>
</header>
<div class="choose">
<label>Perturbation <input id="perturbation" list="perturbations" autocomplete="off"></label>
<datalist id="perturbations"></datalist>
<label>Context <select id="context"></select></label>
<span id="kind" class="kind" role="status"></span>
</div>
<p id="headline" class="verdict"></p>
<div class="two">
<section aria-label="volcano plot">
<h2>Change and certainty</h2>
<p class="soft">Each point is a gene. Above the dashed line the local false sign rate is below 5%:
of genes called changed there, at most one in twenty should have the wrong sign or none.</p>
<div id="volcano" class="plot"></div>
</section>
<section aria-label="table of genes">
<h2>Genes</h2>
<div class="tools">
<input id="search" type="search" placeholder="search genes, several with a space"
 aria-label="search genes">
<label class="tick"><input id="sure" type="checkbox"> changed only</label>
<button id="download" type="button">download CSV</button>
</div>
<div class="scroll tall" tabindex="0"><table id="genes"><thead></thead><tbody></tbody></table></div>
<p id="count" class="soft"></p>
</section>
<section aria-label="cells before and after">
<h2>Cells before and after</h2>
<p class="soft">The same control cells as they are and as predicted, in the plane of all measured
cells (principal components of the latent).</p>
<div id="plane" class="plot"></div>
</section>
<section id="programs-section" aria-label="programmes">
<h2>Programmes that carry the shift</h2>
<p class="soft">Share of the predicted shift that each gene set carries; shares of all sets and of
what no set sees add up to 100%.</p>
<div id="programs" class="plot"></div>
</section>
<section class="wide" aria-label="ranking of perturbations">
<h2>Which perturbation brings these cells to a state?</h2>
<p class="soft">Share of the squared distance to the target that each perturbation removes, over
genes weighted by expression: 1 is arrival, 0 no approach, below 0 away from it. Click a bar to look
at it.</p>
<div class="tools"><label>Target <select id="target"></select></label></div>
<div id="ranking" class="plot"></div>
</section>
</div>
<h2>What the model learned</h2>
<ul id="summary"></ul>
<p class="soft">Written by celldit {version}. Everything is in this file; nothing is fetched or
sent. Changes are ratios of mean rates to those of control cells of the same context, to the base 2;
± is the root mean square error to expect. <em>p changed</em> is the probability of a change by more
than <span id="changed"></span> in size.</p>
</main>
"""


def render(content: dict[str, Any], title: str) -> bytes:
    """Write the page, as UTF-8.

    Parameters
    ----------
    content
        What :func:`celldit.report.explore.content.content` found.
    title
        Of the page.
    """
    from plotly.offline import get_plotlyjs

    own = files("celldit.report.explore")
    style = CSS + own.joinpath("page.css").read_text(encoding="utf-8")
    script = own.joinpath("page.js").read_text(encoding="utf-8")
    # Within a script element nothing ends it but its own closing tag.
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    data = data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    parts = [
        _HEAD.format(title=escape(title), style=style),
        _BODY.format(title=escape(title), version=escape(__version__)),
        f'<script id="content" type="application/json">{data}</script>\n',
        f"<script>{get_plotlyjs()}</script>\n",
        f"<script>{script}</script>\n</body>\n</html>\n",
    ]
    return "".join(parts).encode("utf-8")
