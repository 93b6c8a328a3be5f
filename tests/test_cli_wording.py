"""Sentences about Python's arguments become sentences about options."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from celldit.cli import app
from celldit.cli.wording import OPTIONS, in_terminal


@pytest.mark.parametrize(
    ("python", "terminal"),
    [
        ("pass control='NT' of the unperturbed", "pass --control NT of the unperturbed"),
        ("pass control=\"not targeting\" of", "pass --control \"not targeting\" of"),
        ("pass control=... with the label", "pass --control NAME with the label"),
        ("max_epochs=-1 must be", "--max-epochs -1 must be"),
        ("dose= was given, but without dose_key.", "--dose was given, but without --dose-key."),
        ("choose another path or pass overwrite=True.", "choose another path or pass --overwrite."),
        ("use n_steps=8.", "use --n-steps 8."),
        ("Unknown column for size_factor_key in adata.obs 'x' (known: 'size_factor_key')",
         "Unknown column for --size-factor-key in obs 'x' (known: 'size_factor_key')"),
        ("seed in run.toml must be", "seed in run.toml must be"),
        ("perturbation_key in run.toml must be", "perturbation_key in run.toml must be"),
        ("train with config=TrainingConfig(drop_condition=0.1), or use guidance=1.",
         "train with --config FILE with drop_condition = 0.1 in its table [train], or use "
         "--guidance 1."),
        ("set up; call celldit.CellDiT.setup_anndata(adata, perturbation_key=..., ...) first",
         "set up; give --perturbation-key COLUMN"),
        ('edit= is for sampler="edit", not \'transport\'; leave it out.',
         "--n-avg and --t-start are for --sampler edit, not 'transport'; leave them out."),
        ("n_avg=0 must be a whole number", "--n-avg 0 must be a whole number"),
        ("guidance_interval=(0.8, 0.2) must be two flow times",
         "--guidance-interval 0.8 0.2 must be two flow times"),
        ("The control cells of that time stay in control.", None),
        ("if they are controls, pass control=['control', 'not targeting'].",
         "if they are controls, pass --control control --control 'not targeting'."),
        ('No perturbation was asked for; pass perturbations=["NAME", ...].',
         "No perturbation was asked for; pass --perturbation NAME."),
        ("by itself; pass candidates=['A+B', ...], such as combinations of 'A', 'B'.",
         "by itself; pass --candidate A+B, such as combinations of 'A', 'B'."),
        ('dose=1 is a dose of nothing; say of what, with perturbation="NAME", or leave dose= out.',
         "--dose 1 is a dose of nothing; say of what, with --perturbation NAME, or leave --dose "
         "out."),
        ("about='both' goes with target=, such as target=\"cell_type == 'B'\".",
         "--about both goes with --target, such as --target \"cell_type == 'B'\"."),
        ("add its control cells, or leave it out of contexts=.",
         "add its control cells, or leave it out of --context."),
        ("give preset= or metrics=, not both.", "give --preset or --metric, not both."),
        ("or give engine='celldit', which", "or give --engine celldit, which"),
        ("'batch == 1 & dose==1 & time==2' is not a query", None),
        ("min_change=-1 must be a number", "--min-change -1 must be a number"),
        ("Unknown column for guide_key in adata.obs 'x'",
         "Unknown column for --guide-key in obs 'x'"),
        ("the cells of the same that were trained on, as baselines=.",
         "the cells of the same that were trained on, as --control-cells FILE."),
        ("source selects no cell of adata; widen it.",
         "--from selects no cell of adata; widen it."),
        ("target selects no cell of adata; widen it.",
         "--target selects no cell of adata; widen it."),
        ("or pass perturbation_sep='...', what joins the parts of a label, to "
         "CellDiT.setup_anndata.",
         "or pass --perturbation-sep NAME, what joins the parts of a label."),
        ("a.zarr does not say what its columns mean; use cd.open_store(path, perturbation_key=..., "
         "control=..., covariate_keys=[...]).",
         "a.zarr does not say what its columns mean; give --perturbation-key COLUMN."),
        ("a smaller batch_size, train from disk with celldit.open_store, or take a larger machine.",
         "a smaller --batch-size, train on a .zarr or a folder of .h5ad files, which stay on disk, "
         "or take a larger machine."),
        ("give it features of them, CellDiT(adata, features=cd.pp.gene_features(adata)).",
         "give it features of them, celldit train --features reactome."),
        ('There is no file a.csv; check the path. Gene sets that celldit brings are made into a '
         'table with cd.pp.gene_features(adata, source="reactome").',
         "There is no file a.csv; check the path. Gene sets that celldit brings are given by name, "
         "--features reactome."),
        ("targets['B cells']='B cells' is not a query of adata.obs",
         "--target 'B cells' is not a query of obs"),
        ("There is no file control_x.h5ad; check the path.", None),
    ],
)  # fmt: skip
def test_sentences(python: str, terminal: str | None) -> None:
    assert in_terminal(python) == (python if terminal is None else terminal)


def test_every_option_exists() -> None:
    from typer.main import get_command
    from typer.testing import CliRunner

    from celldit.cli import app

    helped = "".join(
        CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "300"}).stdout
        for name in get_command(app).commands  # type: ignore[attr-defined]
    )
    assert {option for option in OPTIONS.values() if option not in helped} == set()


def test_help_says_which_options_may_be_repeated() -> None:
    """Of an option that takes one value, a second would replace the first without a word."""
    from typer.main import get_command

    from celldit.cli import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    told = {
        f"{name} {option.opts[0]}": ("repeat" in (option.help or ""), option.multiple)
        for name, command in commands.items()
        for option in command.params
        if option.param_type_name == "option"
    }
    assert {name for name, (said, several) in told.items() if said != several} == set()


def test_options_for_experts_stand_apart() -> None:
    from typer.testing import CliRunner

    from celldit.cli.app import COMMANDS, RENAMED, app
    from celldit.cli.options import EXPERT

    found = set()
    for command in [command for group in COMMANDS.values() for command in group]:
        name = RENAMED.get(command, command.__name__.replace("_", "-"))
        text = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "300"}).stdout
        everyday, _, expert = text.partition("For experts")
        for option in EXPERT:
            words = f"--{option.replace('_', '-')} "
            assert words not in everyday, (name, option)
            if words in expert:
                found.add(option)
    assert found == EXPERT


@pytest.mark.parametrize(
    "name", ["effects", "evaluate", "explore", "next", "interpolate", "trajectory"]
)
def test_help_says_what_an_option_takes(name: str) -> None:
    """Not of which type of Python's it is."""
    assert "list[" not in CliRunner().invoke(app, [name, "--help"]).output
