"""One symbol for what mouse and human, symbols and Ensembl ids call differently.

Of most genes the symbol of mouse is that of human in another case; of some 800 one-to-one
orthologs it is another word (``Trp53`` and ``TP53``), and Ensembl ids say nothing to gene sets of
symbols. The bundled table holds one-to-one orthologs of high confidence of Ensembl's BioMart
(GRCh38.p13 and GRCm39), and further human genes of the bundled gene sets (``data/README.md``).
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from celldit.data.genes import without_version
from celldit.datasets import bundled_file


@dataclass(frozen=True)
class Orthologs:
    """Human symbols by Ensembl id, of human or mouse, and by mouse symbol in capitals.

    `of_mouse` has those that are other words in human, and `to_mouse` leads back.
    """

    of_id: dict[str, str]
    of_mouse: dict[str, str]
    to_mouse: dict[str, str]


@cache
def orthologs() -> Orthologs:
    """The bundled table."""
    found = Orthologs({}, {}, {})
    with gzip.open(bundled_file("orthologs.tsv.gz"), "rt", encoding="utf-8") as file:
        next(file)
        for line in file:
            human, human_id, mouse, mouse_id = line.rstrip("\n").split("\t")
            found.of_id[f"ENSG{int(human_id):011d}"] = human
            if mouse_id:
                found.of_id[f"ENSMUSG{int(mouse_id):011d}"] = human
            if mouse:
                found.of_mouse[mouse.upper()] = human.upper()
                found.to_mouse[human.upper()] = mouse
    return found


def human_symbols(names: Sequence[str]) -> list[str]:
    """The human symbol of each gene, in capitals.

    Ensembl ids of either species lose their version and become symbols. Among names that are
    spelled like those of mouse, what is another word in human is translated. What is not in the
    table stays as it is, in capitals.
    """
    table, of_mouse = orthologs(), is_mouse(names)
    found = []
    for name in names:
        bare = without_version(name.strip().upper())
        words = table.of_mouse if of_mouse and bare not in table.of_id else table.of_id
        found.append(words.get(bare, bare).upper())
    return found


def columns_of(targets: Iterable[str], genes: Sequence[str]) -> dict[str, int]:
    """Which column is the gene of each target, of those that are measured.

    By name, else by symbol where one gene alone has it, so that knocking out ``STAT1`` is known to
    do something to ``ENSG00000115415``.
    """
    by_name = {gene: g for g, gene in enumerate(genes)}
    wanted = list(dict.fromkeys(targets))
    if all(target in by_name for target in wanted):
        return {target: by_name[target] for target in wanted}
    columns: dict[str, list[int]] = {}
    for g, symbol in enumerate(_symbols_of(tuple(genes))):
        columns.setdefault(symbol, []).append(g)
    found = {}
    for target, symbol in zip(wanted, human_symbols(wanted), strict=True):
        own = [by_name[target]] if target in by_name else columns.get(symbol, [])
        if len(own) == 1:
            found[target] = own[0]
    return found


@lru_cache(maxsize=4)
def _symbols_of(genes: tuple[str, ...]) -> list[str]:
    """Of all genes of a model, which are asked about again and again."""
    return human_symbols(genes)


def shown_symbol(name: str) -> str:
    """How an Ensembl id of human or mouse is written in its species; any other name as it is."""
    bare = without_version(name.strip().upper())
    human = orthologs().of_id.get(bare)
    if human is None:
        return name
    return mouse_symbol(human) if is_mouse([bare]) else human


def mouse_symbol(human: str) -> str:
    """How mouse spells a human gene: by the table, else in small letters after the first."""
    return orthologs().to_mouse.get(human.upper(), human.capitalize())


def is_mouse(names: Sequence[str]) -> bool:
    """Whether more than half of the names that could be are like ``Stat1`` or ``ENSMUSG...``."""
    lettered = [
        n for n in names if len(n) > 2 and n[0].isalpha() and n[1:].upper() != n[1:].lower()
    ]
    of_mouse = sum(n[1:] == n[1:].lower() or n.upper().startswith("ENSMUS") for n in lettered)
    return 2 * of_mouse > max(len(lettered), 1)
