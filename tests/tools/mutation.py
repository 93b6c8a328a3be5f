"""Break ten lines, one at a time, and see that the tests notice.

``python tests/tools/mutation.py [OUTPUT.md]`` copies the package to a temporary folder, changes one
line in the copy, runs the tests named for it against the copy, and prints a table. It ends with an
error if any change goes unnoticed, or if the tests fail without one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutation:
    """One change of one line."""

    kind: str
    file: str
    old: str
    new: str
    tests: str


MUTATIONS = (
    Mutation(
        "sign", "flow/guidance.py",
        "v_free + self.scale * (v_cond - v_free)", "v_free - self.scale * (v_cond - v_free)",
        "flow/test_guidance.py",
    ),
    Mutation(
        "off by one step", "flow/solvers.py",
        "field(x + dt * k1, t + dt)", "field(x + dt * k1, t)", "flow/test_solvers.py",
    ),
    Mutation(
        "swapped mask", "flow/anchored.py",
        "mask_B = (~condition.withheld_B)", "mask_B = (condition.withheld_B)",
        "flow/test_anchored.py",
    ),
    Mutation(
        "sign", "flow/edit.py",
        "other.source(eps) - x0", "other.source(eps) + x0", "flow/test_edit.py",
    ),
    Mutation(
        "dropped cross-fitting", "effects/posterior.py",
        "mean_CF = self.shifts_CF - self._weights_CF / precision_CF",
        "mean_CF = self.shifts_CF", "effects/test_prior.py",
    ),
    Mutation(
        "off by one", "effects/kernel.py",
        "((set_a[i] == set_b[j]) & several[i])", "(set_a[i] == set_b[j])",
        "effects/test_interaction.py",
    ),
    Mutation(
        "swapped mask", "conditions/condition.py",
        "if c.is_control and self.counts[row] >= least",
        "if not c.is_control and self.counts[row] >= least",
        "conditions/test_strata.py",
    ),
    Mutation(
        "sign", "latent/decoder.py",
        "cross = self.zy - self.n", "cross = self.zy + self.n", "latent/test_decoder.py",
    ),
    Mutation(
        "inverted ratio", "latent/likelihoods.py",
        "(counts_BG + self.theta_G) / (self.mean_BG + self.theta_G)",
        "(self.mean_BG + self.theta_G) / (counts_BG + self.theta_G)",
        "latent/test_likelihoods.py",
    ),
    Mutation(
        "order", "components.py",
        "np.argsort(squares)[::-1][:rank]", "np.argsort(squares)[:rank]", "latent/test_anchor.py",
    ),
)  # fmt: skip


def passes(folder: Path, tests: list[str]) -> bool:
    """Whether the tests pass against the copy in a folder."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        + [str(folder / "tests" / name) for name in tests],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "HYPOTHESIS_PROFILE": "fast"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise SystemExit(f"The tests did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == 0


def main() -> None:
    """Run all mutations and print the table."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("celldit", "tests", "data"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pyc*"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        if not passes(folder, sorted({m.tests for m in MUTATIONS})):
            raise SystemExit("The tests fail without any mutation.")
        for mutation in MUTATIONS:
            path = folder / "celldit" / mutation.file
            whole = path.read_text(encoding="utf-8")
            if whole.count(mutation.old) != 1:
                raise SystemExit(f"{mutation.file} no longer holds {mutation.old!r} once.")
            path.write_text(whole.replace(mutation.old, mutation.new), encoding="utf-8")
            caught = not passes(folder, [mutation.tests])
            path.write_text(whole, encoding="utf-8")
            rows.append((mutation, caught))
            print(
                f"{'caught' if caught else 'MISSED'}: {mutation.file}, {mutation.kind}", flush=True
            )
    lines = [
        "# Ten broken lines",
        "",
        f"`python tests/tools/mutation.py`, {date.today()}: "
        f"{sum(caught for _, caught in rows)} of {len(rows)} caught.",
        "",
        "| kind | file | line | became | tests | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {m.kind} | `{m.file}` | `{m.old}` | `{m.new}` | `{m.tests}` "
        f"| {'caught' if caught else '**missed**'} |"
        for m, caught in rows
    ]
    text = "\n".join(lines) + "\n"
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text, encoding="utf-8")
    print(text)
    if not all(caught for _, caught in rows):
        raise SystemExit("Some changes went unnoticed.")


if __name__ == "__main__":
    main()
