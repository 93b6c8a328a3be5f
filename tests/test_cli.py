"""The commands, through typer's runner, on data of a few hundred cells."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from typer.testing import CliRunner

from celldit.cli import app
from celldit.cli.command import INTERRUPTED
from celldit.cli.settings import TrainSettings
from celldit.errors import FileError, InputError, UnknownNameError
from celldit.inference.maps.edit import EditConfig

SETUP = ("--perturbation-key", "perturbation", "--covariate-key", "donor")


def call(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    assert "Traceback" not in result.output
    return result


def sentence(*arguments: object) -> str:
    """The one line of an error with exit code 1."""
    lines = call(*arguments, code=1).stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("Error: ")
    return lines[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, _tiny_screen, tiny_model) -> Path:
    """A folder with data as a user has them, and a trained model."""
    path = tmp_path_factory.mktemp("cli")
    adata = _tiny_screen.copy()
    adata.uns.clear()
    adata.write_h5ad(path / "screen.h5ad")
    tiny_model.save(path / "model")
    call("predict", path / "model", path / "screen.h5ad", "-p", "A", "-o", path / "predicted.h5ad")
    return path


def test_help_is_fast_and_lists_every_command():
    code = (
        "import sys; from celldit.cli import app; "
        "print(*[m for m in ('torch', 'lightning', 'scanpy', 'anndata', 'pandas', 'numpy')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    text = call("--help").stdout
    commands = ("demo", "train", "predict", "generate", "evaluate", "info", "submission")
    for name in commands:
        assert name in text
        assert "Usage" in call(name, "--help").stdout
    assert "0." in call("--version").stdout


def test_info_starts_without_torch(folder):
    code = (
        "import sys; from celldit.cli import app; "
        f"app(['info', {str(folder / 'model')!r}, '--json'], standalone_mode=False); "
        "sys.exit(', '.join(m for m in ('torch', 'lightning', 'scanpy') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == ""
    assert json.loads(done.stdout)["genes"]


def test_train_writes_a_model_that_info_can_read(folder, tmp_path):
    settings = tmp_path / "settings.toml"
    settings.write_text(
        '[model]\ntokenizer = "modules"\n[train]\nmax_epochs = 0\nseed = 3\nn_trials = 1\n'
    )
    model = tmp_path / "model"
    told = call(
        "train", folder / "screen.h5ad", "-o", model, *SETUP, "--config", settings, "--seed", 5,
        "--json",
    )  # fmt: skip
    report = json.loads(told.stdout)
    assert report["model"] == str(model)
    assert report["n_cells"] == 480
    facts = json.loads(call("info", model, "--json").stdout)
    assert facts["perturbations"] == ["A", "B", "C"]
    assert facts["contexts"] == ["d1", "d2", "d3"]
    assert facts["cells"] == 480
    assert facts["seed"] == 5, "the command line comes before the file"
    assert facts["max_epochs"] == 0
    assert facts["genes"] == [f"gene{i}" for i in range(40)]
    assert facts["n_genes"] == 40
    assert facts["scores"] == {}, "nothing was measured in 0 epochs"
    told = call("info", model).stdout
    assert "d1, d2, d3" in told
    assert "gene29 and 10 more" in told


@pytest.mark.slow
def test_train_starts_the_second_process_itself(folder, tmp_path):
    output = tmp_path / "two"
    command = [sys.executable, "-m", "celldit", "train", folder / "screen.h5ad", "-o", output,
               *SETUP, "--tokenizer", "modules", "--max-epochs", "1",
               "--accelerator", "cpu", "--devices", "2", "--strategy", "fsdp"]  # fmt: skip
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Training on") == done.stdout.count("Trained in") == 1
    assert json.loads(call("info", output, "--json").stdout)["max_epochs"] == 1


def test_train_borrows_the_autoencoder_of_a_model(folder, tmp_path):
    settings = tmp_path / "settings.toml"
    borrow = f"autoencoder = {json.dumps(str(folder / 'model'))}\ntrain_autoencoder = false\n"
    settings.write_text(f"[model]\n{borrow}[train]\nmax_epochs = 0\n")
    given = ("train", folder / "screen.h5ad", *SETUP, "--config", settings)
    call(*given, "-o", tmp_path / "model", "--quiet")
    made = json.loads((tmp_path / "model" / "config.json").read_text())
    lender = json.loads((folder / "model" / "config.json").read_text())
    assert made["trained_with"]["autoencoder"] == {
        "from": lender["model"],
        "genes": "40 of the model's 40 genes are in the data (100%); "
        "0 genes of the data are new to the model",
        "trained_further": False,
    }
    printed = tomllib.loads(call(*given, "--train-autoencoder", "--print-config").stdout)
    assert printed["model"]["train_autoencoder"] is True
    assert printed["model"]["min_overlap"] == 0.5
    said = sentence(*given, "-o", tmp_path / "another", "--latent", "set")
    assert "Set attention is now in the flow network, by default; leave --latent out." in said
    said = sentence(*given, "-o", tmp_path / "another", "--tokenizer", "modules")
    assert "--tokenizer and --autoencoder exclude each other" in said
    settings.write_text('[model]\ntrain_autoencoder = "no"\n')
    assert "train_autoencoder" in sentence(*given, "-o", tmp_path / "another")
    settings.write_text('[model]\nmin_overlap = "half"\n')
    assert "min_overlap" in sentence(*given, "-o", tmp_path / "another")


def test_train_leaves_the_cells_of_a_folder_on_disk(folder, tmp_path):
    shards = tmp_path / "shards"
    shards.mkdir()
    adata = ad.read_h5ad(folder / "screen.h5ad")
    for name, rows in (("a", slice(0, 200)), ("b", slice(200, None))):
        adata[rows].copy().write_h5ad(shards / f"{name}.h5ad")
    models = []
    for data in (folder / "screen.h5ad", shards):
        model = tmp_path / f"model of {data.name}"
        told = call("train", data, "-o", model, *SETUP, "--tokenizer", "modules",
                    "--max-epochs", 0, "--json")  # fmt: skip
        models.append(json.loads(told.stdout))
    assert models[0]["id"] == models[1]["id"]
    assert models[0]["n_cells"] == models[1]["n_cells"] == 480


def test_predict_writes_what_the_model_predicts(folder, tmp_path):
    arguments = ("predict", folder / "model", folder / "screen.h5ad", "-p", "A", "-p", "B+C")
    output = tmp_path / "new" / "predicted.h5ad"
    report = json.loads(call(*arguments, "-o", output, "--json").stdout)
    assert report["predicted"] == {"A": "seen", "B+C": "new combination"}
    predicted = ad.read_h5ad(output)
    assert predicted.n_obs == report["n_cells"] == 2 * 160
    assert set(predicted.obs["perturbation"]) == {"A", "B+C"}
    again = tmp_path / "again.h5ad"
    assert call(*arguments, "-o", again, "-q").output == ""
    same = ad.read_h5ad(again)
    assert (same.layers["counts"] != predicted.layers["counts"]).nnz == 0
    other = tmp_path / "other.h5ad"
    call(*arguments, "-o", other, "-q", "--seed", 1)
    assert (ad.read_h5ad(other).layers["counts"] != predicted.layers["counts"]).nnz > 0
    assert not [p for p in output.parent.iterdir() if p.name.startswith(".")]


def test_generate_takes_covariates_or_the_composition_of_a_file(folder, tmp_path):
    output = tmp_path / "new.h5ad"
    call("generate", folder / "model", 25, "-p", "B", "--covariate", "donor=d2", "-o", output)
    new = ad.read_h5ad(output)
    assert new.n_obs == 25
    assert set(new.obs["perturbation"]) == {"B"}
    assert set(new.obs["donor"]) == {"d2"}
    like = tmp_path / "like.h5ad"
    call("generate", folder / "model", 30, "--like", folder / "screen.h5ad", "-o", like)
    assert ad.read_h5ad(like).n_obs == 30
    call("generate", folder / "model", 5, "--covariate", "donor", "-o", tmp_path / "x", code=2)
    assert "d9" in sentence(
        "generate", folder / "model", 5, "--covariate", "donor=d9", "-o", tmp_path / "x.h5ad"
    )


def test_evaluate_scores_what_was_predicted_and_nothing_else(folder, tmp_path):
    scores = tmp_path / "scores.csv"
    arguments = ("evaluate", folder / "predicted.h5ad", folder / "screen.h5ad")
    shown = call(*arguments, "-o", scores)
    table = pd.read_csv(scores)
    assert list(table.columns) == ["perturbation", "context", "metric", "value"]
    assert set(table["perturbation"]) == {"A"}
    assert set(table["context"]) == {"d1", "d2", "d3"}
    assert "pearson" in shown.stdout
    # Its three conditions were in training, and nothing else is to be noted.
    assert shown.stderr.count("Note: ") == 1
    assert "Note: In training: A in d1, A in d2, A in d3." in shown.stderr
    told = json.loads(call(*arguments, "--metric", "nmse", "--json").stdout)
    assert {row["metric"] for row in told} == {"nmse"}
    few = call(*arguments, "--min-cells", 500)
    assert few.stderr.count("is not scored") == 3


def test_what_celldit_notes_outside_of_itself_is_told(folder, tmp_path):
    """Warnings that point at the caller's code point at typer's here."""
    turned = ad.read_h5ad(folder / "predicted.h5ad")[:, ::-1].copy()
    turned.write_h5ad(tmp_path / "turned.h5ad")
    arguments = ("evaluate", tmp_path / "turned.h5ad", folder / "screen.h5ad", "--metric", "nmse")
    told = call(*arguments, "--report", tmp_path / "report.html").stderr
    assert told.count("Note: The genes of predicted are in another order") == 1
    assert "are in another order" not in call(*arguments, "-q", "-o", tmp_path / "s.csv").stderr


def test_notes_of_evaluate_come_whatever_warnings_python_shows(folder, tmp_path, monkeypatch):
    """Under ``PYTHONWARNINGS=ignore``, too; a label in them stays as it is."""
    files = []
    for name in ("predicted", "screen"):
        adata = ad.read_h5ad(folder / f"{name}.h5ad")
        adata.obs["perturbation"] = adata.obs["perturbation"].cat.rename_categories({"A": "dose=1"})
        files.append(tmp_path / f"{name}.h5ad")
        adata.write_h5ad(files[-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        told = call("evaluate", *files)
        assert "Note: In training: dose=1 in d1, dose=1 in d2, dose=1 in d3." in told.stderr
        few = call("evaluate", *files, "--min-cells", 500)
        assert few.stderr.count("Note: dose=1 in d") == 3
        quiet = call("evaluate", *files, "-q", "-o", tmp_path / "scores.csv")
    assert quiet.output == ""


def test_evaluate_takes_a_prediction_that_says_nothing_of_its_columns(folder, tmp_path):
    """As of another program; then the truth or the options say what they mean."""
    predicted, screen = tmp_path / "predicted.h5ad", folder / "screen.h5ad"
    theirs = ad.read_h5ad(folder / "predicted.h5ad")
    del theirs.uns["celldit"]
    theirs.write_h5ad(predicted)
    assert "give --perturbation-key COLUMN" in sentence("evaluate", predicted, screen)
    tables = [
        json.loads(call("evaluate", *given, "--json").stdout)
        for given in ((predicted, screen, *SETUP), (folder / "predicted.h5ad", screen))
    ]
    assert tables[0] == tables[1]


def test_evaluate_writes_a_report_with_its_numbers(folder, tmp_path, monkeypatch):
    # UMAP takes seconds to compile, and is tested where it is drawn.
    # The function celldit.pl.embedding hides the module of the same name.
    drawing = importlib.import_module("celldit.pl.embedding")
    monkeypatch.setattr(drawing, "_umap", lambda points, seed: points[:, :2])
    arguments = ("evaluate", folder / "predicted.h5ad", folder / "screen.h5ad", "--metric", "nmse")
    page = tmp_path / "new" / "report.html"
    shown = call(*arguments, "--report", page, "--baseline", f"again={folder / 'predicted.h5ad'}")
    assert str(page) in shown.stdout
    table = pd.read_csv(page.with_suffix(".csv"))
    assert set(table["method"]) == {"predicted", "no change", "again", "ceiling"}
    assert json.loads(page.with_suffix(".json").read_text())["name"] == "predicted"
    assert "<svg" in page.read_text(encoding="utf-8")
    assert "exist already" in sentence(*arguments, "--report", page)
    call(*arguments, "--baseline", "a=b.h5ad", code=2)
    for pair in ("nonsense", "again=", "=again.h5ad"):
        told = call(*arguments, "--report", tmp_path / "b.html", "--baseline", pair, code=2)
        assert f"--baseline '{pair}' must be NAME=FILE.h5ad" in told.stderr


def test_a_prediction_named_like_a_simple_predictor_is_refused_beside_them(folder, tmp_path):
    text = sentence(
        "evaluate", folder / "predicted.h5ad", folder / "screen.h5ad", "--report",
        tmp_path / "r.html", "--baseline", f"nearest={folder / 'predicted.h5ad'}", "--baselines",
    )  # fmt: skip
    assert "A prediction is called 'nearest', as one of the baselines" in text


def test_evaluate_refuses_another_normalisation(folder, tmp_path):
    screen = ad.read_h5ad(folder / "screen.h5ad")
    screen.obs["umis"] = np.asarray(screen.X.sum(axis=1)).ravel() * 10.0
    deeper = np.random.default_rng(0).poisson(10 * screen.X.toarray() + 0.3)
    screen.X = sparse.csr_matrix(deeper).astype(np.float32)
    screen.write_h5ad(tmp_path / "deeper.h5ad")
    text = sentence("evaluate", folder / "predicted.h5ad", tmp_path / "deeper.h5ad")
    assert "--size-factor-key" in text


@pytest.mark.parametrize("command", ["predict", "generate", "evaluate", "train"])
def test_outputs_that_exist_are_refused_before_any_work(folder, tmp_path, command):
    output = tmp_path / ("output" if command == "train" else "output.h5ad")
    if command == "train":
        output.mkdir()
    else:
        output.write_text("mine")
    # What comes after the output is missing, which would be the error if work had started.
    nothing = tmp_path / "nothing"
    arguments = {
        "predict": ("predict", nothing, nothing, "-p", "A", "-o", output),
        "generate": ("generate", nothing, 5, "-o", output),
        "evaluate": ("evaluate", nothing, nothing, "-o", output),
        "train": ("train", nothing, "-o", output, *SETUP),
    }[command]
    assert "exists already" in sentence(*arguments)
    if command == "train":
        assert "is not a celldit model" in sentence(*arguments, "--overwrite")
    else:
        assert "nothing" in sentence(*arguments, "--overwrite")
        assert output.read_text() == "mine"


def test_errors_are_one_sentence(folder, tmp_path):
    model, screen, output = folder / "model", folder / "screen.h5ad", tmp_path / "x.h5ad"
    assert "There is no file" in sentence("predict", model, "gone.h5ad", "-p", "A", "-o", output)
    assert "is not a celldit model" in sentence("info", tmp_path)
    assert "Did you mean 'perturbation'" in sentence(
        "train", screen, "-o", tmp_path / "m", "--perturbation-key", "perturbatio"
    )
    assert "'A9'" in sentence("predict", model, screen, "-p", "A9", "-o", output)
    assert "solver" in sentence("predict", model, screen, "-p", "A", "--solver", "h", "-o", output)
    broken = tmp_path / "broken.h5ad"
    broken.write_text("no HDF5")
    assert "cannot be read as an AnnData" in sentence(
        "train", broken, "-o", tmp_path / "m", "--perturbation-key", "p"
    )
    assert "Did you mean 'pearson'" in sentence(
        "evaluate", folder / "predicted.h5ad", screen, "--metric", "pearsom"
    )
    text = sentence("predict", model, screen, "-p", "A", "-o", tmp_path / "x.csv")
    assert "must end in .h5ad or .zarr" in text
    text = sentence("generate", model, 5, "-o", tmp_path / "x.csv")
    assert "must end in .h5ad or .zarr" in text
    page = tmp_path / "page.txt"
    assert "must end in .html" in sentence(
        "evaluate", folder / "predicted.h5ad", screen, "--report", page
    )
    assert not output.exists()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (("--seed", "-5"), "--seed -5 must be a whole number of at least 0"),
        (("--max-epochs", "-1"), "--max-epochs -1 must be a whole number"),
        (("--accelerator", "gpv"), "use --accelerator gpu"),
        (("--strategy", "dpp"), "use --strategy ddp"),
        (("--counts-layer", "raw"), "Unknown layer in layers 'raw'"),
        (("--control", "ctrl"), "pass --control control"),
        (("--dit", "Z"), "Unknown size 'Z'"),
        (("--features", "gone.csv"), "There is no file gone.csv"),
    ],
)
def test_wrong_settings_are_told_with_their_options(folder, tmp_path, wrong, says):
    setup = (*SETUP, "--tokenizer", "modules")
    text = sentence("train", folder / "screen.h5ad", "-o", tmp_path / "m", *setup, *wrong)
    assert says in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ["csv", "h5ad", "zarr"])
def test_effects_beside_a_prediction_are_replaced_when_asked(folder, tmp_path, ending):
    effects = tmp_path / f"effects.{ending}"
    asked = ("predict", folder / "model", folder / "screen.h5ad", "-p", "A",
             "-o", tmp_path / "predicted.h5ad", "--effects-output", effects)  # fmt: skip
    call(*asked)
    for path in tmp_path.glob("predicted*"):
        path.unlink()
    text = sentence(*asked)
    assert str(effects) in text
    assert "exists already" in text
    assert not list(tmp_path.glob("predicted*"))
    call(*asked, "--overwrite")


@pytest.mark.parametrize("wrong", ["gpu", "meta", "cpu:1"])
def test_a_device_that_is_not_there_is_told(folder, tmp_path, wrong):
    screen, out = folder / "screen.h5ad", tmp_path / "x.h5ad"
    asked = ("-o", out, "--device", wrong)
    for command in (
        ("predict", folder / "model", screen, "-p", "A"),
        ("generate", folder / "model", 5),
    ):
        assert f"--device {wrong}" in sentence(*command, *asked)
    assert not out.exists()


def test_without_perturbations_training_says_what_cannot_be_asked(folder, tmp_path):
    command = ("train", folder / "screen.h5ad", "--max-epochs", 0, "--tokenizer", "modules")
    told = call(*command, "-o", tmp_path / "a")
    assert "Note: without --perturbation-key" in told.stderr
    assert call(*command, "-o", tmp_path / "b", "--quiet").output == ""


def test_features_reach_the_model_and_effects_the_file(folder, tmp_path):
    screen, table = folder / "screen.h5ad", tmp_path / "known.csv"
    names = ["A", "B", "C", "NEW"]
    numbers = np.random.default_rng(0).normal(size=(4, 3))
    pd.DataFrame(numbers, index=names).to_csv(table)
    train = ("train", screen, *SETUP, "--max-epochs", 0, "--tokenizer", "modules")
    call(*train, "-o", tmp_path / "m", "--features", table)
    effects = tmp_path / "effects.csv"
    told = call(
        "predict", tmp_path / "m", screen, "-p", "NEW", "-o", tmp_path / "p.h5ad",
        "--effects-output", effects,
    ).stdout  # fmt: skip
    assert "NEW: unseen with features" in told
    written = pd.read_csv(effects)
    assert {"gene", "log_fold_change", "sd"} <= set(written.columns)
    assert set(written["perturbation"]) == {"NEW"}
    effects = tmp_path / "effects.zarr"
    call(
        "predict", tmp_path / "m", screen, "-p", "NEW", "-o", tmp_path / "p2.h5ad",
        "--effects-output", effects,
    )  # fmt: skip
    assert set(ad.read_zarr(effects).obs["perturbation"]) == {"NEW"}
    text = sentence("predict", folder / "model", screen, "-p", "NEW", "-o", tmp_path / "q.h5ad")
    assert "celldit train --features reactome" in text


def test_info_tells_the_scores(folder, tiny_model):
    scores = json.loads(call("info", folder / "model", "--json").stdout)["scores"]
    history = tiny_model.history["flow"]
    for kind, best in scores["error_over_prior"].items():
        assert best == min(row[kind] for row in history)


def test_every_command_can_be_scripted():
    for name in ("demo", "train", "predict", "generate", "evaluate", "info", "submission"):
        text = call(name, "--help").stdout
        for option in ("--json", "--debug"):
            assert option in text, name
        assert "--quiet" in text or name == "info"
    assert "--install-completion" in call("--help").stdout


def test_predict_passes_on_how_to_sample(folder, tmp_path, tiny_model, tiny_screen):
    common = (folder / "model", folder / "screen.h5ad", "-p", "A", "--n-steps", 3, "--quiet")
    call(
        "predict", *common, "-o", tmp_path / "edited.h5ad", "--sampler", "edit", "--n-avg", 2,
        "--t-start", 0.25, "--grid", "cosine", "--guidance-interval", 0.2, 0.8,
    )  # fmt: skip
    written = ad.read_h5ad(tmp_path / "edited.h5ad")
    asked = written.uns["celldit"]["made_by"]
    assert asked["grid"] == "cosine"
    assert list(asked["guidance_interval"]) == [0.2, 0.8]
    direct = tiny_model.predict(
        tiny_screen,
        perturbations="A",
        sampler="edit",
        n_steps=3,
        edit=EditConfig(n_avg=2, t_start=0.25),
        grid="cosine",
        guidance_interval=(0.2, 0.8),
    )
    assert np.array_equal(written.obsm["X_celldit"], direct.obsm["X_celldit"])
    said = sentence("predict", *common, "-o", tmp_path / "x.h5ad", "--sampler", "edit",
                    "--t-start", 1)  # fmt: skip
    assert "t_start=1.0 must be in [0, 1)" in said.replace("--t-start 1.0", "t_start=1.0")


@pytest.mark.parametrize(("typed", "given"), [("2", 2.0), ("1+0.5", "1+0.5")])
def test_a_dose_is_a_number_where_it_can_be(folder, tmp_path, monkeypatch, typed, given):
    asked = {}

    def record(self, *arguments, **named):
        if "out" in named:  # a model that is loaded is tried without
            asked.update(named)
            raise InputError("Enough.")

    monkeypatch.setattr("celldit.model.CellDiT.generate", record)
    said = sentence("generate", folder / "model", 5, "-o", tmp_path / "x.h5ad", "--dose", typed)
    assert "Enough." in said
    assert asked["dose"] == given
    assert type(asked["dose"]) is type(given)
    assert "solver" not in asked, "what was not given is left to the model"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("pre", {"predict"}), ("", {"train", "predict", "info"}), ("predict --gui", {"--guidance"})],
)
def test_the_shell_completes_commands_and_options(typed, offered):
    words = f"celldit {typed}"
    environment = {
        **os.environ,
        "_CELLDIT_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    script = Path(sys.executable).with_name("celldit")
    done = subprocess.run([script], env=environment, capture_output=True, text=True, check=False)
    assert offered <= set(done.stdout.split()), (done.stdout, done.stderr)


def test_demo_tells_its_table_as_json(tmp_path, monkeypatch):
    from celldit.cli.demo import FILES, DemoResult

    table = pd.DataFrame({"pearson": [0.5]}, index=["celldit"])
    paths = [tmp_path / name for name in FILES]
    monkeypatch.setattr(
        "celldit.cli.demo.run_demo", lambda *_, **__: DemoResult(table, paths, 1.23)
    )
    told = json.loads(call("demo", "--json", "--output", tmp_path).stdout)
    assert told["table"] == {"celldit": {"pearson": 0.5}}
    assert told["files"] == list(FILES)


def test_usage_errors_exit_with_2(folder):
    call("train", folder / "screen.h5ad", code=2)
    call("predict", folder / "model", "-p", "A", "-o", "x.h5ad", code=2)
    call("predict", folder / "model", folder / "screen.h5ad", "-o", "x.h5ad", code=2)
    call("generate", folder / "model", "many", "-o", "x.h5ad", code=2)
    call("trian", code=2)


def test_debug_keeps_the_traceback(folder):
    result = CliRunner().invoke(app, ["info", str(folder / "gone"), "--debug"])
    assert isinstance(result.exception, FileError)


@pytest.mark.parametrize("answer", ["raise", "exit"])
def test_interruption_says_what_is_kept_and_exits_with_130(folder, tmp_path, monkeypatch, answer):
    def interrupted(self, *arguments, **named):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            if answer == "raise":
                raise
            sys.exit(1)  # what Lightning does when training is interrupted

    monkeypatch.setattr("celldit.model.CellDiT.train", interrupted)
    before = signal.getsignal(signal.SIGINT)
    model = tmp_path / "model"
    result = call("train", folder / "screen.h5ad", "-o", model, *SETUP, code=INTERRUPTED)
    assert "No model was written" in result.stderr
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGINT) is before


def test_checkpoints_and_machines_reach_training(folder, tmp_path, monkeypatch):
    given = {}

    def record(self, *arguments, **named):
        given.update(named)
        raise InputError("Enough.")

    monkeypatch.setattr("celldit.model.CellDiT.train", record)
    sentence(
        "train", folder / "screen.h5ad", "-o", tmp_path / "model", *SETUP, "--nodes", "2",
        "--checkpoint", tmp_path / "kept", "--checkpoint-minutes", "2.5", "--tokenizer", "modules",
    )  # fmt: skip
    assert given["checkpoint_dir"] == tmp_path / "kept"
    assert given["checkpoint_minutes"] == 2.5
    assert given["num_nodes"] == 2


def test_interruption_with_checkpoints_says_how_to_go_on(folder, tmp_path, monkeypatch):
    def interrupted(self, *arguments, **named):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("celldit.model.CellDiT.train", interrupted)
    result = call(
        "train", folder / "screen.h5ad", "-o", tmp_path / "model", *SETUP,
        "--checkpoint", tmp_path / "kept", code=INTERRUPTED,
    )  # fmt: skip
    assert "the same command goes on from there" in " ".join(result.stderr.split())


def test_shards_go_to_a_folder_once(folder, tmp_path):
    asked = ("predict", folder / "model", folder / "screen.h5ad", "-p", "A", "-p", "B")
    for shard in ("1/2", "2/2", "2/2"):
        result = call(*asked, "-o", tmp_path / "shards", "--shard", shard)
        assert "predicted cells are in" in result.stdout
    names = sorted(path.name for path in (tmp_path / "shards").iterdir())
    assert names == ["request.json", "shard-00001-of-00002.h5ad", "shard-00002-of-00002.h5ad"]
    assert "another request" in sentence(
        *asked, "-o", tmp_path / "shards", "--shard", "1/2", "--seed", "1"
    )


def test_settings_survive_printing_and_reading(tmp_path):
    printed = call(
        "train", "--print-config", *SETUP, "--covariate-key", "batch", "--devices", "2",
        "--max-epochs", "7", "--control", 'a "b"',
    ).stdout  # fmt: skip
    tomllib.loads(printed)
    path = tmp_path / "settings.toml"
    path.write_text(printed)
    read = TrainSettings.from_toml(path)
    assert read.covariate_keys == ("donor", "batch")
    assert read.control == ('a "b"',)
    assert read.trainer_arguments() == {"devices": 2}
    assert read.max_epochs == 7
    assert read.to_toml() == printed
    assert call("train", "--print-config", "--config", path).stdout == printed


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("[train]\nmax_epoch = 3\n", UnknownNameError, "max_epochs"),
        ("[trian]\nseed = 3\n", UnknownNameError, "'train'"),
        ('[train]\nseed = "3"\n', InputError, "whole number"),
        ("[train]\nflow_batch = true\n", InputError, "whole number"),
        ("[train]\nnoise_share = 0.25\n", InputError, "no option any more.*use noise_epochs"),
        ("[data]\ncontrol = 3\n", InputError, "texts"),
        ("train = 3\n", InputError, r"\[train\]"),
        ("[train\n", FileError, "TOML"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(tmp_path, text, error, says):
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(error, match=says):
        TrainSettings.from_toml(path)


def test_demo_command_keeps_other_files(tmp_path):
    (tmp_path / "table.csv").write_text("mine")
    assert "exists already" in sentence("demo", "--output", tmp_path)
    assert (tmp_path / "table.csv").read_text() == "mine"


def test_a_command_that_left_says_what_does_its_work():
    said = sentence("benchmark", "problems.toml", "--full", "-o", "out")
    assert "celldit evaluate --report FILE.html --baselines" in said
    assert "benchmark" not in call("--help").stdout


def test_a_baseline_is_predicted_scored_and_submitted(folder, tmp_path):
    screen = folder / "screen.h5ad"
    said = call(
        "baseline", screen, "-p", "A", "-p", "B", "--name", "nearest", *SETUP,
        "-o", tmp_path / "nearest.h5ad",
    )  # fmt: skip
    assert "predicted by 'nearest'" in said.stdout
    made = ad.read_h5ad(tmp_path / "nearest.h5ad")
    assert set(made.obs["perturbation"]) == {"A", "B"}
    counts = made.layers["edited_counts"].toarray()
    assert (counts == np.rint(counts)).all()
    assert counts.sum() > 0
    table = json.loads(
        call(
            "evaluate", tmp_path / "nearest.h5ad", screen, *SETUP, "--preset", "vcc2026",
            "--engine", "celldit", "--json",
        ).stdout
    )  # fmt: skip
    measures = {row["measure"] for row in table}
    assert {"pds", "squared_error", "composite"} <= measures
    call("submission", tmp_path / "nearest.h5ad", screen, "-o", tmp_path / "sub.h5ad")
    sub = ad.read_h5ad(tmp_path / "sub.h5ad")
    assert set(sub.obs["target"]) == {"A", "B", "non-targeting"}
    assert list(sub.var_names) == list(ad.read_h5ad(screen).var_names)


def test_what_baseline_and_submission_refuse(folder, tmp_path):
    screen = folder / "screen.h5ad"
    setup = ("--perturbation-key", "perturbation")
    unknown = sentence("baseline", screen, "-p", "Q", *setup, "-o", tmp_path / "x.h5ad")
    assert "Unknown perturbation 'Q'" in unknown
    name = sentence(
        "baseline", screen, "-p", "A", "--name", "nearst", *setup, "-o", tmp_path / "x.h5ad"
    )
    assert "Did you mean 'nearest'" in name
    (tmp_path / "panel.txt").write_text("A\nmissing\n")
    lacking = sentence(
        "submission", folder / "predicted.h5ad", screen, "-o", tmp_path / "x.h5ad",
        "--perturbations", tmp_path / "panel.txt",
    )  # fmt: skip
    assert "missing perturbations: 'missing'" in lacking
    assert not (tmp_path / "x.h5ad").exists()


def test_effects_writes_a_table_and_a_figure(folder, tmp_path):
    table, figure = tmp_path / "effects.csv", tmp_path / "volcano.png"
    told = call(
        "effects", folder / "model", folder / "screen.h5ad", "-p", "A", "-p", "A+B",
        "--context", "d1", "-o", table, "--figure", figure,
    ).stdout  # fmt: skip
    assert "80 effects" in told
    written = pd.read_csv(table)
    assert set(written["context"]) == {"d1"}
    assert written["lfsr"].between(0, 1).all()
    assert figure.stat().st_size > 1000
    other = call("effects", folder / "model", folder / "screen.h5ad", "-p", "A",
                 "-o", tmp_path / "all.csv", "--figure", tmp_path / "all.png")  # fmt: skip
    assert "The volcano plots of d1 (for another: --context) are in" in " ".join(
        other.stdout.split()
    )
    said = sentence("effects", folder / "model", folder / "screen.h5ad", "--context", "d9",
                    "-o", tmp_path / "other.csv")  # fmt: skip
    assert "d9" in said
    assert not (tmp_path / "other.csv").exists()
    assert "exists" in sentence("effects", folder / "model", folder / "screen.h5ad", "-o", table)


@pytest.mark.parametrize("option", ["-n", "--n-cells"])
def test_next_needs_numbers_above_zero(folder, option):
    assert f"'{option}'" in call("next", folder / "model", "-c", "A+C", option, 0, code=2).stderr


def test_next_chooses_a_batch_and_summary_says_what_was_learned(folder, tmp_path):
    table = tmp_path / "next.csv"
    told = call("next", folder / "model", "-c", "A+C", "-c", "B+C", "-n", 1, "-o", table).stdout
    assert "is unknown of the others" in told
    assert len(pd.read_csv(table)) == 1
    assert "A+B" in sentence("next", folder / "model")
    assert len(call("summary", folder / "model").stdout.splitlines()) == 4
    assert len(json.loads(call("summary", folder / "model", "--json").stdout)["summary"]) == 4


def test_explore_writes_a_page(folder, tmp_path):
    pytest.importorskip("plotly")
    page = tmp_path / "explore.html"
    told = call("explore", folder / "model", folder / "screen.h5ad", "-o", page, "-p", "A",
                "--target", "like B=perturbation == 'B'", "--max-cells", 5).stdout  # fmt: skip
    assert "any browser opens it" in told
    assert "like B" in page.read_text("utf-8")
    said = sentence("explore", folder / "model", folder / "screen.h5ad", "-o", tmp_path / "x.html",
                    "--target", "B")  # fmt: skip
    assert "query" in said
