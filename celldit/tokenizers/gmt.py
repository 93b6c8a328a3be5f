"""Reading gene sets from GMT files (the format of MSigDB, Enrichr and Reactome)."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from celldit.errors import FileError, InputError

__all__ = ["check_sets", "read_gmt"]

_GZIP_MAGIC = b"\x1f\x8b"


def read_gmt(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Read a GMT file, plain or gzipped.

    A line holds the name of a set, a description, and its genes, separated by tabs. Empty lines are
    skipped, white space around names is dropped, and a gene listed twice in a set counts once.

    Parameters
    ----------
    path
        The file. Whether it is gzipped is seen from its first bytes, not from its name.

    Returns
    -------
    dict
        From the name of each set to its genes, both in the order of the file.

    Raises
    ------
    FileError
        If the file does not exist or cannot be read.
    InputError
        If a line is malformed (file and line number are named), a set name comes twice, the text is
        not UTF-8, or there is no set at all.
    """
    path = Path(path)
    sets: dict[str, tuple[str, ...]] = {}
    line_of: dict[str, int] = {}
    for number, line in _lines(path):
        name, genes = _parse(line, path, number)
        if name in sets:
            raise InputError(
                f"{path}, line {number}: the gene set {name!r} already stands in line "
                f"{line_of[name]}; give each set a name of its own."
            )
        sets[name] = genes
        line_of[name] = number
    if not sets:
        raise InputError(
            f"{path} holds no gene set; a GMT line is NAME, description, GENE, GENE, ..."
        )
    return sets


def check_sets(sets: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Copy gene sets that were given as a mapping; a gene listed twice in a set counts once.

    Raises
    ------
    InputError
        If there is no set, or a set is a text instead of a list.
    """
    if not sets:
        raise InputError(
            "There is no gene set; give at least one, or gmt=None for the hallmark sets."
        )
    for name, genes in sets.items():
        if isinstance(genes, str):
            raise InputError(
                f"The gene set {name!r} must be a list of genes, not the text {genes!r}."
            )
    return {str(name): tuple(dict.fromkeys(map(str, genes))) for name, genes in sets.items()}


def _parse(line: str, path: Path, number: int) -> tuple[str, tuple[str, ...]]:
    fields = [field.strip() for field in line.split("\t")]
    if len(fields) < 3:
        raise InputError(
            f"{path}, line {number}: found {len(fields)} tab-separated field"
            f"{'' if len(fields) == 1 else 's'} where a GMT line needs a name, a description and "
            "at least one gene."
        )
    name = fields[0]
    if not name:
        raise InputError(f"{path}, line {number}: the gene set has no name; fill the first field.")
    genes = tuple(dict.fromkeys(gene for gene in fields[2:] if gene))
    if not genes:
        raise InputError(
            f"{path}, line {number}: the gene set {name!r} lists no gene; fill it or drop the line."
        )
    return name, genes


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise FileError(
            f"There is no gene set file {path}; check the path, or see "
            "celldit.datasets.gene_set_file for those that come with the package."
        ) from None
    except OSError as error:
        raise FileError(f"Cannot read the gene set file {path}: {error.strerror}.") from error
    if raw.startswith(_GZIP_MAGIC):
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise FileError(
                f"Cannot unpack the gene set file {path}; it is a damaged gzip file ({error})."
            ) from error
    # Split before decoding, so that an encoding error can name its line; drop a byte-order mark.
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}, line {number}: the text is not UTF-8 "
                f"(byte {error.start + 1} of the line); save the file as UTF-8."
            ) from None
        if text.strip():
            yield number, text
