"""Reading gene sets from GMT files (the format of MSigDB, Enrichr and Reactome)."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from celldit.arguments import check_path, check_plain
from celldit.errors import FileError, InputError

_GZIP_MAGIC = b"\x1f\x8b"
#: MSigDB as a whole, 35,000 sets, takes 30 MB.
MAX_BYTES, MAX_LINE = 100_000_000, 4_000_000


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
    path = check_path(path)
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

    InputError if there is no set, or a set is a text instead of a list.
    """
    if not sets:
        raise InputError(
            "There is no gene set; give at least one, or gmt=None for the hallmark sets."
        )
    for name, genes in sets.items():
        if isinstance(genes, str) or not isinstance(genes, Iterable):
            raise InputError(f"The gene set {name!r} must be a list of genes, not {genes!r}.")
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
    """The lines that are not blank, with their numbers."""
    if not path.exists():
        raise FileError(
            f"There is no gene set file {path}; check the path, or see "
            "celldit.datasets.gene_set_file for those that come with the package."
        )
    check_plain(path)
    try:
        with path.open("rb") as file:
            packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        with gzip.open(path, "rb") if packed else path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise FileError(f"Cannot read the gene set file {path}: {error.strerror}.") from error
        raise FileError(
            f"Cannot unpack the gene set file {path}; it is a damaged gzip file ({error})."
        ) from error
    if len(raw) > MAX_BYTES:
        raise InputError(
            f"{path} has more than {MAX_BYTES / 1e6:.0f} MB, unpacked, which no gene set file has; "
            "check what it is, or split it."
        )
    whole = io.BytesIO(raw.removeprefix(b"\xef\xbb\xbf"))  # without a byte-order mark
    lines = (line for part in whole for line in part.splitlines())
    for number, line in enumerate(lines, start=1):
        if len(line) > MAX_LINE:
            raise InputError(
                f"{path}, line {number}: the line has more than {MAX_LINE / 1e6:.0f} MB, unpacked, "
                "which no gene set file has; check what it is, or split it."
            )
        # Decoded one by one, so that an encoding error can name its line.
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}, line {number}: the text is not UTF-8 "
                f"(byte {error.start + 1} of the line); save the file as UTF-8."
            ) from None
        if text.strip():
            yield number, text
