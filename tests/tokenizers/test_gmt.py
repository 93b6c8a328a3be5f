from __future__ import annotations

import gzip
import os
import resource
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celldit.datasets import gene_set_file
from celldit.errors import FileError, InputError
from celldit.tokenizers import gmt, read_gmt

NAMES = st.text("ABCdef123-_. ", min_size=1, max_size=6).map(str.strip).filter(bool)


@settings(deadline=None, max_examples=25)
@given(st.dictionaries(NAMES, st.lists(NAMES, min_size=1, unique=True).map(tuple), min_size=1))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, sets: dict[str, tuple[str, ...]]
) -> None:
    text = "".join("\t".join([name, "url", *genes]) + "\n" for name, genes in sets.items())
    folder = tmp_path_factory.mktemp("gmt")
    (folder / "plain.gmt").write_bytes(text.encode())
    # The name does not say that it is gzipped; the content does.
    (folder / "packed.gmt").write_bytes(gzip.compress(text.encode()))
    assert read_gmt(folder / "plain.gmt") == sets
    assert read_gmt(str(folder / "packed.gmt")) == sets


def test_bundled_sets() -> None:
    hallmark = read_gmt(gene_set_file("hallmark"))
    assert len(hallmark) == 50
    assert hallmark["HALLMARK_TNFA_SIGNALING_VIA_NFKB"][:3] == ("JUNB", "CXCL2", "ATF3")


def test_trailing_tabs_doubled_genes_and_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "sets.gmt"
    path.write_bytes(b"\xef\xbb\xbfone\t\tA\tB\tA\t\t\r\n\r\ntwo\tx\tC\r\n")
    assert read_gmt(path) == {"one": ("A", "B"), "two": ("C",)}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"one\tx\tA\n\nonly a name\n", "line 3: found 1 tab-separated field where"),
        (b"one\tx\n", "line 1: found 2 tab-separated fields where"),
        (b"one\tx\tA\n\tx\tA\n", "line 2: the gene set has no name"),
        (b"one\tx\t \t\n", "line 1: the gene set 'one' lists no gene"),
        (b"one\tx\tA\ntwo\tx\tA\none\tx\tB\n", "line 3: .*'one' already stands in line 1"),
        (b"one\tx\tA\ntwo\tx\t\xff\n", "line 2: the text is not UTF-8"),
        (b"", "holds no gene set"),
        (b"\n\n", "holds no gene set"),
    ],
)
def test_malformed_files_name_file_and_line(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "bad.gmt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=text) as caught:
        read_gmt(path)
    assert "bad.gmt" in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no gene set file"):
        read_gmt(tmp_path / "missing.gmt")
    with pytest.raises(FileError, match="no plain file"):
        read_gmt(tmp_path)
    cut = tmp_path / "cut.gmt.gz"
    cut.write_bytes(gzip.compress(b"one\tx\tA\n" * 50)[:-12])
    with pytest.raises(FileError, match="damaged gzip"):
        read_gmt(cut)


@pytest.mark.parametrize("line", [b"A\t" * 30, b"A\t" * 2_000_000])
def test_what_unpacks_to_too_much_is_refused_as_it_is_read(
    tmp_path: Path, line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of a few kilobytes can unpack to gigabytes."""
    monkeypatch.setattr(gmt, "MAX_BYTES", 100_000)
    path = tmp_path / "bomb.gmt.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        for number in range(3000 if len(line) < 100 else 3):
            file.write(b"S%d\tx\t" % number + line + b"\n")
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(InputError, match="unpacked, which no gene set file has"):
        read_gmt(path)
    assert time.process_time() - start < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_what_is_too_large_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file as a whole, and a line by its number."""
    monkeypatch.setattr(gmt, "MAX_BYTES", 1000)
    monkeypatch.setattr(gmt, "MAX_LINE", 300)
    path = tmp_path / "sets.gmt"
    path.write_text("".join(f"S{number}\tx\tA\n" for number in range(200)))
    with pytest.raises(InputError) as caught:
        read_gmt(path)
    assert str(caught.value).startswith(f"{path} has more than")
    path.write_text("one\tx\tA\n\ntwo\tx" + "\tGENE" * 100 + "\n")
    with pytest.raises(InputError, match=r"sets\.gmt, line 3: the line has more than"):
        read_gmt(path)


def test_pipes_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gmt")
    with pytest.raises(FileError, match="no plain file"):
        read_gmt(tmp_path / "pipe.gmt")


def test_every_kind_of_line_end(tmp_path: Path) -> None:
    for end in (b"\n", b"\r\n", b"\r"):
        (tmp_path / "a.gmt").write_bytes(end.join([b"A\tx\tG1", b"", b"B\tx\tG2\tG3", b"C"]))
        with pytest.raises(InputError, match="line 4"):
            read_gmt(tmp_path / "a.gmt")
