"""The sdist and the wheel, built and used as a stranger would: outside the repository."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow


def run(*command: object, cwd: Path) -> str:
    # Without PYTHONPATH, which would put the repository before the wheel.
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return {"sdist": sdist, "wheel": wheel}


@pytest.fixture(scope="module")
def python(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the wheel, and the dependencies that are installed here."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False, symlinks=True)
    interpreter = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(interpreter), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(built["wheel"])], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    # A path in a .pth file comes after the venv's own packages, and an editable celldit behind it
    # is not looked for.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return interpreter


def test_wheel_holds_the_data_and_nothing_of_the_repository(built: dict[str, Path]) -> None:
    names = zipfile.ZipFile(built["wheel"]).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"celldit"}
    for file in (ROOT / "data").iterdir():
        assert f"celldit/bundled/{file.name}" in names
    assert "celldit/py.typed" in names


def test_sdist_holds_what_a_packager_needs(built: dict[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    for name in ("LICENSE", "README.md", "Makefile", "constraints.txt", "pyproject.toml"):
        assert name in names
    assert "data/papalexi_eccite.h5ad" in names
    assert "tests/conftest.py" in names
    assert not [name for name in names if name.startswith(("docs/_build", "docs/notebooks"))]


def test_wheel_works_outside_the_repository(python: Path, tmp_path: Path) -> None:
    where = run(python, "-c", "import celldit; print(celldit.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(python.parents[1])
    celldit = python.parent / "celldit"
    assert run(celldit, "--version", cwd=tmp_path).startswith("celldit ")
    code = (
        "import celldit as cd\n"
        "for name in ('papalexi', 'kang', 'norman', 'baron', 'reprogramming', 'sciplex2'):\n"
        "    assert cd.datasets.load(name).n_obs > 0\n"
        "adata = cd.datasets.norman()\n"
        "cd.CellDiT.setup_anndata(adata, perturbation_key='perturbation')\n"
        "model = cd.CellDiT(adata, 'gene_sets')\n"
        "model.train(max_epochs=0, enable_progress_bar=False)\n"
        "model.save('model')\n"
        "adata.write_h5ad('screen.h5ad')\n"
    )
    run(python, "-W", "ignore", "-c", code, cwd=tmp_path)
    assert "KLF1" in run(celldit, "info", "model", cwd=tmp_path)
    run(
        celldit, "predict", "model", "screen.h5ad", "-p", "KLF1", "-o", "predicted.h5ad",
        cwd=tmp_path,
    )  # fmt: skip
    assert (tmp_path / "predicted.h5ad").stat().st_size > 0
