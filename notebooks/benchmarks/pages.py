"""Tables in README and documentation, between marks such as ``<!-- peers:begin -->``."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def block(page: str, name: str) -> str:
    """What stands between the marks of a name, on a page named from the root."""
    return _parts(page, name)[1].strip()


def put(page: str, name: str, text: str) -> None:
    """Put a text between the marks of a name."""
    head, _, rest = _parts(page, name)
    (ROOT / page).write_text(f"{head}\n{text.strip()}\n{rest}", encoding="utf-8")


def _parts(page: str, name: str) -> tuple[str, str, str]:
    """The page up to the first mark, between the marks, and from the last."""
    start, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    head, _, after = (ROOT / page).read_text(encoding="utf-8").partition(start)
    inside, found, rest = after.partition(end)
    if not found:
        raise ValueError(f"{page} has no {start} with an {end} after it.")
    return head + start, inside, end + rest
