"""Messages whose remedy no case carries out, and why: file or folder, words of the message, reason.

The words "…" alone stand for the one message of a file that is made elsewhere. A message that is
provoked after all, or that is gone, must be taken off this list.
"""

INNER = "of functions that celldit calls itself; no public function lets users come so far"
TOLD = "tells what was done, and asks for nothing"
MACHINE = "asks for another machine, more memory or a right that a test cannot give itself"
PACKAGE = "asks to install what a test must not install; that it is told has a test of its own"
GIVEN = "asks to give what the message names as missing, of which every right call is an example"
COLUMNS = "asks to name other columns; a screen of a thousand contexts takes long to make"
HUB = "asks for a name, a token or the network of the hub; see io/test_hub.py"
RARE = "asks to wait, to train or to save again, which other tests do after a failure"

OTHERS: dict[tuple[str, str], str] = {
    # --- inner
    **{
        ("flow/", words): INNER
        for words in (
            "Unknown network",
            "does not attend to gene sets",
            "needs finite points",
        )
    },
    ("tokenizers/token_set.py", "TokenSet"): INNER,
    ("tokenizers/eigengenes.py", "arrays"): INNER,
    ("tokenizers/genes.py", "typical levels"): INNER,
    ("tokenizers/gene_sets.py", "stored tokenizer"): INNER,
    ("tokenizers/base.py", "stored tokenizer"): INNER,
    ("tokenizers/canonical.py", "cannot be fitted"): INNER,
    **{
        ("evaluation/baselines/", words): INNER
        for words in (
            "training cells are labelled",
            "have perturbed but no control cells",
            "No baseline can be made",
            "Unknown baseline",
            "None of the contexts to predict",
            "The fields name no perturbation_key",
            "to predict; give at least one",
            "is not fitted",
            "not those of the training cells",
            "No trained perturbation names a gene",
            "Unknown perturbation",
            "Unknown gene",
        )
    },
    ("evaluation/metrics/", "shape"): INNER,
    ("evaluation/metrics/", "no metric"): INNER,
    ("evaluation/metrics/", "bandwidths"): INNER,
    ("data/cells.py", "gene names for"): INNER,
    ("data/cells.py", "entries for"): INNER,
    ("training/saving/state_file.py", "cannot hold"): INNER,
    # --- nothing is asked for
    ("data/imputation.py", "were not measured"): TOLD,
    ("effects/features/features.py", "left out in turn"): TOLD,
    ("training/flow_stage.py", "too few for optimal transport"): TOLD,
    ("training/flow_stage.py", "nothing is compiled"): TOLD,
    ("training/saving/checkpoints.py", "Training goes on"): TOLD,
    ("evaluation/compare.py", "scores are missing"): TOLD,
    ("evaluation/evaluate.py", "A replicate of"): TOLD,
    ("evaluation/challenge/scores.py", "that every method predicted"): TOLD,
    ("evaluation/challenge/scores.py", "In no measure is a replicate"): TOLD,
    ("io/sampling.py", "not finite or negative"): TOLD,
    # --- the machine
    ("memory.py", "There is not enough memory"): MACHINE,
    ("effects/sharing.py", "takes about"): MACHINE,
    ("effects/sharing.py", "contexts (and times)"): COLUMNS,
    ("inference/effects/file.py", "are free"): MACHINE,
    ("data/disk/files.py", "more memory"): MACHINE,
    ("data/disk/matrix.py", "more memory"): MACHINE,
    ("io/folders.py", "GB, more than"): MACHINE,
    ("io/folders.py", "MB, more than the memory"): MACHINE,
    ("io/folders.py", "Cannot write"): MACHINE,
    ("io/replacing.py", "Cannot write"): MACHINE,
    ("io/stream.py", "Cannot write"): MACHINE,
    ("io/shards.py", "Cannot write"): MACHINE,
    ("training/saving/checkpoints.py", "Cannot write"): MACHINE,
    ("arguments.py", "Cannot read"): MACHINE,
    ("tokenizers/gmt.py", "Cannot read"): MACHINE,
    ("compute.py", "this machine has"): MACHINE,
    # --- packages
    ("pp.py", "needs RDKit"): PACKAGE,
    ("effects/tables/reading.py", "needs pyarrow"): PACKAGE,
    ("effects/features/files.py", "needs pyarrow"): PACKAGE,
    ("io/hub.py", "needs huggingface_hub"): PACKAGE,
    ("io/hub.py", "names no repository"): HUB,
    ("io/hub.py", "check the name, the connection"): HUB,
    ("effects/features/files.py", "cannot be read"): RARE,
    ("evaluation/challenge/package.py", "needs the package"): PACKAGE,
    ("evaluation/challenge/package.py", "refuses these cells"): PACKAGE,
    ("report/explore/", "drawn with plotly"): PACKAGE,
    ("report/explore/", "The page would hold"): MACHINE,
    ("datasets.py", "install celldit again"): PACKAGE,
    # --- carried out elsewhere
    ("lazy.py", "has moved"): "test_package.py imports what is told",
    ("arguments.py", "…"): "test_training.py and test_autoencoder.py leave these options out",
    ("effects/tables/elsewhere.py", "…"): "effects/tables has tables that help, and that do not",
    ("tl/next_perturbations.py", "resemble each other"): MACHINE,
    ("inference/effects/table.py", "Write it to disk"): "inference/effects/test_file.py does both",
    # --- what is missing is named
    ("data/labels/doubtful.py", "…"): "its five warnings are carried out in test_remedies.py",
    ("data/labels/columns.py", "name of a column as text"): GIVEN,
    ("data/counts.py", "which cannot be read as a count matrix"): GIVEN,
    ("data/labels/guides.py", "no guide label"): GIVEN,
    ("effects/features/gene_sources.py", "must be in memory"): GIVEN,
    ("effects/tables/reading.py", "is not of the shape of X"): GIVEN,
    ("cli/commands/training.py", "looks at control cells"): GIVEN,
    ("cli/commands/scoring.py", "library size"): GIVEN,
    ("compute.py", "must be a whole number"): GIVEN,
    ("cli/demo.py", "where the demo needs a folder"): GIVEN,
    ("cli/app.py", "any more"): "names a way of several steps; test_cli.py calls it",
    ("evaluation/challenge/submission.py", "labels of the submission"): GIVEN,
    ("latent/config.py", "…"): "said by FORMER, whose entries are cases of models",
    ("pl/gene_sets/attention.py", "at least 3 tokens"): GIVEN,
    ("pl/embedding.py", "no effect to draw along"): GIVEN,
    ("report/numbers.py", "Nothing that was predicted"): GIVEN,
    ("tl/latent.py", "more than once"): GIVEN,
    # --- again
    ("io/folders.py", "again and again"): RARE,
    ("io/model_folder.py", "celldit 0.1"): RARE,
    ("data/disk/matrix.py", "cannot be read"): RARE,
    ("data/imputation.py", "was saved without"): RARE,
    ("training/loop/finite.py", "The loss of"): RARE,
    ("training/saving/state_file.py", "checkpoint of format"): RARE,
    ("training/saving/state_file.py", "checksum"): RARE,
    ("training/saving/checkpoints.py", "holds no state"): RARE,
    ("training/saving/state_file.py", "…"): MACHINE,
    ("training/saving/state_file.py", "needs more memory"): MACHINE,
}
