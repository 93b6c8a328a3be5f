"""What every tokenizer promises."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from importlib.machinery import FileFinder, SourceFileLoader
from types import CodeType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from celldit.errors import InputError, NotTrainedError, UnknownNameError
from celldit.tokenizers import (
    Genes,
    GeneSets,
    Modules,
    Ranks,
    Tokenizer,
    TokenSet,
    resolve,
    tokenizer_from_config,
)

from .conftest import cells_of, reordered

SETS = {"one": ("G0", "G1", "G2"), "two": ("G2", "G3", "G4", "G5")}
MAKERS: dict[str, Callable[[], Tokenizer]] = {
    "gene_sets": lambda: GeneSets(SETS, min_size=2, remainder_size=3),
    "modules": lambda: Modules(3),
    "genes": Genes,
    "genes, bound": lambda: Genes(4),
    "ranks": lambda: Ranks(5),
}
every_tokenizer = pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)


def named_tokens(tokenizer: Tokenizer, tokens: TokenSet) -> list[dict[str, list[float]]]:
    """Each cell's tokens by what they stand for, so that their numbering drops out."""
    names = tokenizer.token_names
    return [
        {
            names[identity]: tokens.values[cell, slot].tolist()
            for slot, identity in enumerate(tokens.identities[cell].tolist())
            if tokens.mask[cell, slot]
        }
        for cell in range(tokens.n_cells)
    ]


def assert_same(first: list[dict], second: list[dict]) -> None:
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for name, values in one.items():
            assert values == pytest.approx(other[name], abs=1e-5)


@every_tokenizer
@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 100))
def test_the_order_of_genes_has_no_part(make_cells: Callable, maker: Callable, seed: int) -> None:
    cells = make_cells(25, 14, seed)
    order = np.random.default_rng(seed).permutation(14)
    tokenizer, refitted = maker().fit(cells), maker().fit(reordered(cells, order))
    expected = named_tokens(tokenizer, tokenizer(cells))
    assert_same(named_tokens(refitted, refitted(reordered(cells, order))), expected)
    # Other data brought into the order of the tokenizer's genes.
    other = reordered(cells, order)
    back = [other.genes.index(gene) for gene in tokenizer.genes]
    assert_same(named_tokens(tokenizer, tokenizer(reordered(other, np.array(back)))), expected)


@every_tokenizer
def test_configuration_and_arrays_are_all_of_it(make_cells: Callable, maker: Callable) -> None:
    cells = make_cells()
    tokenizer = maker().fit(cells)
    config = json.loads(json.dumps(tokenizer.to_config()))
    again = tokenizer_from_config(config, {k: v.copy() for k, v in tokenizer.arrays().items()})
    assert type(again) is type(tokenizer)
    assert again.genes == tokenizer.genes
    assert again.token_names == tokenizer.token_names
    assert again.to_config() == tokenizer.to_config()
    before, after = tokenizer(cells), again(cells)
    assert torch.equal(before.values, after.values)
    assert torch.equal(before.identities, after.identities)
    assert torch.equal(before.mask, after.mask)
    refitted = again.fit(cells)
    assert torch.equal(refitted(cells).values, before.values)


@every_tokenizer
def test_the_same_every_time(make_cells: Callable, maker: Callable) -> None:
    cells = make_cells()
    first, second = maker().fit(cells)(cells), maker().fit(cells)(cells)
    assert torch.equal(first.values, second.values)
    assert torch.equal(first.identities, second.identities)


@every_tokenizer
def test_shapes_and_promises(make_cells: Callable, maker: Callable) -> None:
    cells = make_cells()
    tokenizer = maker().fit(cells)
    tokens = tokenizer(cells.take(slice(0, 7)))
    assert tokens.n_cells == 7
    assert tokens.n_values == tokenizer.n_values
    assert int(tokens.identities.max()) < tokenizer.n_identities == len(tokenizer.token_names)
    if tokenizer.name in ("gene_sets", "modules"):  # whose tokens are the same for every cell
        assert tokens.mask.all()
        assert torch.equal(tokens.identities[3], torch.arange(tokenizer.n_identities))


@every_tokenizer
def test_the_cells_are_not_changed(make_cells: Callable, maker: Callable) -> None:
    cells, untouched = make_cells(), make_cells()
    maker().fit(cells)(cells)
    assert np.array_equal(cells.counts.data, untouched.counts.data)
    assert np.array_equal(cells.counts.indices, untouched.counts.indices)


@every_tokenizer
def test_other_genes_are_refused(make_cells: Callable, maker: Callable) -> None:
    cells = make_cells()
    tokenizer = maker().fit(cells)
    with pytest.raises(InputError, match="another order"):
        tokenizer(reordered(cells, np.arange(12)[::-1]))
    with pytest.raises(InputError, match=f"lack 1 .'{cells.genes[-1]}'"):
        tokenizer(reordered(cells, np.arange(11)))
    counts = np.hstack([cells.counts.toarray(), np.ones((40, 1))])
    with pytest.raises(InputError, match=r"1 genes that .* not fitted on .'NEW'"):
        tokenizer(cells_of(counts, (*cells.genes, "NEW"), cells.size_factors))


@every_tokenizer
def test_what_cannot_be_fitted_is_refused(make_cells: Callable, maker: Callable) -> None:
    cells = make_cells()
    with pytest.raises(InputError, match="0 cells"):
        maker().fit(cells.take(np.array([], dtype=int)))
    doubled = cells_of(cells.counts.toarray(), ["G0", "G0", *cells.genes[2:]], cells.size_factors)
    with pytest.raises(InputError, match="var_names_make_unique"):
        maker().fit(doubled)
    for call in (
        lambda: maker().to_config(),
        lambda: maker().arrays(),
        lambda: maker().genes,
        lambda: maker()(cells),
    ):
        with pytest.raises(NotTrainedError, match=r"\.fit\(cells\)"):
            call()


class WithoutAsserts(SourceFileLoader):
    """Compiles as ``python -O`` does."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return compile(self.get_data(path), path, "exec", dont_inherit=True, optimize=1)


def ask_without_asserts() -> None:
    """Import celldit again, without asserts, and ask tokenizers for what they do not have yet."""
    for name in [name for name in sys.modules if name.split(".")[0] == "celldit"]:
        del sys.modules[name]
    sys.path_hooks.insert(0, FileFinder.path_hook((WithoutAsserts, [".py"])))
    sys.path_importer_cache.clear()
    from celldit import tokenizers
    from celldit.errors import NotTrainedError

    assert isinstance(tokenizers.__loader__, WithoutAsserts)
    for kind in ("Genes", "GeneSets", "Modules", "Ranks"):
        unfitted = getattr(tokenizers, kind)()
        for name in ("arrays", "token_names", "n_identities"):
            with pytest.raises(NotTrainedError):
                getattr(unfitted, name)()


def test_what_is_not_fitted_says_so_without_asserts() -> None:
    """As it must under ``python -O``, which leaves asserts out; in a process of its own."""
    child = os.fork()
    if not child:
        try:
            ask_without_asserts()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


@every_tokenizer
def test_stored_parts_must_belong_together(make_cells: Callable, maker: Callable) -> None:
    tokenizer = maker().fit(make_cells())
    other = maker().fit(make_cells(40, 9))
    with pytest.raises(InputError, match="from_config"):
        tokenizer_from_config(tokenizer.to_config(), other.arrays())
    with pytest.raises(InputError, match="lacks"):
        tokenizer_from_config(tokenizer.to_config(), {})
    config = tokenizer.to_config()
    del config["seed"]
    with pytest.raises(InputError, match="lacks 'seed'"):
        tokenizer_from_config(config, tokenizer.arrays())


@pytest.mark.parametrize(
    ("name", "kind"),
    [("gene_sets", GeneSets), ("modules", Modules), ("genes", Genes), ("ranks", Ranks)],
)
def test_names(name: str, kind: type) -> None:
    tokenizer = resolve(name)
    assert type(tokenizer) is kind
    assert tokenizer.name == name
    assert resolve(tokenizer) is tokenizer


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="'gene_sets', 'modules', 'genes', 'ranks'"):
        resolve("words")
    with pytest.raises(UnknownNameError, match="'words'"):
        tokenizer_from_config({"name": "words"}, {})
    for wrong in (3, Genes, None):
        with pytest.raises(InputError, match="tokenizer object"):
            resolve(wrong)  # type: ignore[arg-type]
