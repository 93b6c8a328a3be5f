from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

from celldit.errors import InputError
from celldit.evaluation.challenge.submission import check_submission, submission


@pytest.fixture
def screen(make_screen) -> ad.AnnData:
    return make_screen(n_cells=160)


def made(screen: ad.AnnData, **more) -> ad.AnnData:
    predicted = screen[screen.obs["perturbation"] != "control"].copy()
    return submission(predicted, list(screen.var_names), screen, **more)


def test_counts_genes_and_labels_are_as_wanted(screen: ad.AnnData) -> None:
    turned = screen[:, ::-1].copy()
    found = submission(turned, list(screen.var_names), screen)
    assert list(found.var_names) == list(screen.var_names)
    assert list(found.obs.columns) == ["target"]
    assert set(found.obs["target"]) == {"A", "B", "A+B", "non-targeting"}
    assert found.X.dtype == np.float32
    expected = screen[screen.obs["perturbation"] == "A"].X.toarray()
    np.testing.assert_array_equal(found[found.obs["target"] == "A"].X.toarray(), expected)
    check_submission(found, list(screen.var_names), ["A", "B", "A+B"])


def test_a_prediction_s_drawn_counts_are_what_is_written(screen: ad.AnnData) -> None:
    predicted = screen[screen.obs["perturbation"] == "A"].copy()
    predicted.layers["counts"] = predicted.X * 2
    predicted.X = predicted.X.astype(float) * 0.1
    found = submission(predicted, list(screen.var_names), screen)
    cells = found[found.obs["target"] == "A"].X.toarray()
    np.testing.assert_array_equal(cells, predicted.layers["counts"].toarray())


def test_controls_of_several_labels_are_all_controls(screen: ad.AnnData) -> None:
    labels = screen.obs["perturbation"].astype(str)
    n_controls = int((labels == "control").sum())
    rows = np.flatnonzero(labels == "control")[::2]
    screen.obs["perturbation"] = [
        "NT" if i in set(rows) else label for i, label in enumerate(labels)
    ]
    found = submission(screen, list(screen.var_names), screen, control_label=["control", "NT"])
    assert set(found.obs["target"]) == {"A", "B", "A+B", "non-targeting"}
    assert int((found.obs["target"] == "non-targeting").sum()) == n_controls


def test_what_the_scorer_would_refuse(screen: ad.AnnData) -> None:
    genes = list(screen.var_names)
    good = made(screen)
    with pytest.raises(InputError, match="not those of the panel in its order"):
        check_submission(good, genes[::-1])
    with pytest.raises(InputError, match="missing perturbations: 'C'"):
        check_submission(good, genes, ["A", "B", "A+B", "C"])
    with pytest.raises(InputError, match=r"not asked for: 'A\+B'"):
        check_submission(good, genes, ["A", "B"])
    fractional = good.copy()
    fractional.X = fractional.X * 0.5
    with pytest.raises(InputError, match="raw counts"):
        check_submission(fractional, genes)
    heavy = good.copy()
    heavy.X = heavy.X * 1e6
    with pytest.raises(InputError, match="more than 1,000,000 counts"):
        check_submission(heavy, genes)
    few = good[~((good.obs["target"] == "A") & (np.arange(good.n_obs) > 20))].copy()
    with pytest.raises(InputError, match=r"fewer than 10 cells: 'A \("):
        check_submission(few, genes)
    bare = good[good.obs["target"] != "non-targeting"].copy()
    with pytest.raises(InputError, match="missing label: 'non-targeting'"):
        check_submission(bare, genes)


def test_log_values_and_missing_controls_are_refused(screen: ad.AnnData) -> None:
    predicted = screen[screen.obs["perturbation"] == "A"].copy()
    predicted.X = np.log1p(predicted.X.toarray() * 3.0)
    with pytest.raises(InputError, match="raw counts"):
        submission(predicted, list(screen.var_names), screen)
    with pytest.raises(InputError, match="needs control cells"):
        made(screen, control_label="ctrl")
    with pytest.raises(InputError, match=r"not in adata\.var_names"):
        submission(screen, [*screen.var_names, "gene99"], screen)


def test_the_package_reads_it(screen: ad.AnnData) -> None:
    pytest.importorskip("cell_eval2")
    from cell_eval2.norm import check_scale_limit, validate_input_type

    found = made(screen)
    validate_input_type(found, "counts")
    check_scale_limit(found, "counts", 1e6)
