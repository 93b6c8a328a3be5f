"""The page: a frame, its style and script, plotly and the content, in one file.

A matrix is written as base64 of integers in little-endian order, with the step that one stands for;
rows of genes are of one length, so nothing else is needed. Log fold changes keep three digits
(steps of 1/2048), probabilities two and a half (steps of 1/255). Local false sign rates and
standard deviations are kept as logarithms, to within 2%.
"""

from __future__ import annotations

import base64
import json
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

from celldit import __version__
from celldit.report.page import CSS

#: Log fold changes are cut at ±16 at this step.
STEP = 1 / 2048
#: Positive numbers from the largest down to 10 to the minus this of it.
DECADES = 4.0
MISSING = -32768


def render(content: dict[str, Any], title: str) -> bytes:
    """Write what :func:`celldit.report.explore.content.content` found as a page, in UTF-8."""
    from plotly.offline import get_plotlyjs

    frame, style, script = (
        files("celldit.report.explore").joinpath(f"page.{kind}").read_text(encoding="utf-8")
        for kind in ("html", "css", "js")
    )
    # Within a script element nothing ends it but its own closing tag.
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    data = data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    page = Template(frame).substitute(
        title=escape(title),
        style=CSS + style,
        version=escape(__version__),
        content=data,
        plotly=get_plotlyjs(),
        script=script,
    )
    return page.encode("utf-8")


def packed(values: np.ndarray) -> dict[str, Any]:
    """Log fold changes or positions in 16 bits; what is not finite is missing."""
    scaled = np.round(np.nan_to_num(values, nan=0.0) / STEP).clip(-32767, 32767)
    whole = np.where(np.isfinite(values), scaled, MISSING).astype("<i2")
    return {"kind": "i2", "step": STEP, "data": _text(whole)}


def packed_shares(values: np.ndarray) -> dict[str, Any]:
    """Probabilities in 8 bits."""
    return {"kind": "u1", "step": 1 / 255, "data": _text(np.round(values * 255).astype("u1"))}


def packed_rates(values: np.ndarray, largest: float = 1.0) -> dict[str, Any]:
    """Positive numbers up to the largest, in 8 bits of their logarithm."""
    decades = -np.log10(np.clip(values / largest, 10**-DECADES, 1.0))
    step, text = DECADES / 255, _text(np.round(decades / (DECADES / 255)).astype("u1"))
    return {"kind": "log", "step": step, "largest": largest, "data": text}


def _text(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
