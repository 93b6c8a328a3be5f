"""``python -m celldit``, the same as ``celldit``."""

from __future__ import annotations

from celldit.cli import app

if __name__ == "__main__":
    app(prog_name="celldit")
