"""Published methods beside celldit, as processes of their own (``notebooks/benchmarks/peers``)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pytest

from celldit.errors import CellditError, InputError, UnknownNameError

sys.path.insert(0, str(Path(__file__).parents[2] / "notebooks" / "benchmarks"))
from held_out import Problem, pose
from peers import PEERS, environment, peer_methods
from peers import run as peers_run
from peers.environment import CannotRun
from peers.exchange import read_points, write_request
from side_by_side import predict

SMALL = Problem("small", "A in d3", "pair", (("A", "d3"),))


FAKE = """
from peer_files import Points, log_expression, read_request
request = read_request()
assert "truth" not in str(sorted(request.folder.iterdir()))
log = log_expression(request.controls).toarray()
points = Points(request)
points.save("1_far", lambda label: log + 1.0)
points.save("2_near", lambda label: log)
if request.seed == 7:
    raise SystemExit("it fell over")
"""


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """A peer that runs in this very environment."""
    home, scripts = tmp_path / "peers", tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "run_fake.py").write_text(FAKE)
    helper = PEERS["scvi"].script.with_name("peer_files.py")
    (scripts / "peer_files.py").write_text(helper.read_text())

    class Fake(type(PEERS["scvi"])):
        @property
        def script(self) -> Path:
            return scripts / "run_fake.py"

    peer = Fake("fake", "Fake 1.0", "json", ("fake==1.0",))
    monkeypatch.setitem(PEERS, "fake", peer)
    monkeypatch.setattr(peers_run, "prepare", lambda peer, home: Path(sys.executable))
    return peer_methods(["fake"], home)


def test_a_peer_is_judged_at_every_point(fake, tiny_screen):
    posed = pose(SMALL, tiny_screen)
    found, about = predict(posed, fake, 0)
    assert list(found) == ["Fake 1.0, 1_far", "Fake 1.0, 2_near"]
    assert {name for name, _ in about.values()} == {"Fake 1.0"}
    far, near = (np.asarray(cells.X) for cells in found.values())
    assert np.median(far - near) == pytest.approx(1.0)
    assert all("edited_counts" in cells.layers for cells in found.values())


def test_a_peer_that_ran_out_of_time_is_judged_by_what_it_wrote(fake, tiny_screen, monkeypatch):

    def out_of_time(command, **options):
        options.pop("timeout")
        subprocess.run(command, **options)
        raise subprocess.TimeoutExpired(command, 60.0)

    process = SimpleNamespace(run=out_of_time, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr(peers_run, "subprocess", process)
    found, _ = predict(pose(SMALL, tiny_screen), fake, 0)
    assert len(found) == 2
    assert {cells.uns["stopped_after_minutes"] for cells in found.values()} == {60}


def test_a_peer_that_fails_has_its_reason_told(fake, tiny_screen, capsys):
    found, _ = predict(pose(SMALL, tiny_screen), fake, 7)
    assert not found
    assert "Fake 1.0: not run (Fake 1.0 failed: it fell over)" in capsys.readouterr().out


def test_a_peer_without_a_point_has_a_reason(fake, tiny_screen, monkeypatch):
    """Out of time before its first point, or gone without one."""

    def out_of_time(command, **_):
        raise subprocess.TimeoutExpired(command, 60.0)

    def in_silence(command, **_):
        return subprocess.CompletedProcess(command, 0, "", "")

    for end, said in (
        (out_of_time, "Fake 1.0 took more than 60 minutes."),
        (in_silence, "Fake 1.0: "),
    ):
        process = SimpleNamespace(run=end, TimeoutExpired=subprocess.TimeoutExpired)
        monkeypatch.setattr(peers_run, "subprocess", process)
        with pytest.raises(CannotRun, match=said) as error:
            fake["Fake 1.0"](pose(SMALL, tiny_screen), 0)
    assert "without a prediction" in str(error.value)


def test_a_python_that_cannot_be_called_is_a_reason(tmp_path):
    home = tmp_path / "scvi" / ("Scripts" if os.name == "nt" else "bin")
    home.mkdir(parents=True)
    (home / "python").write_text("no program")
    with pytest.raises(CannotRun, match=r"scVI .* could not be installed \(.*Permission denied"):
        environment.prepare(PEERS["scvi"], tmp_path)


def test_peers_are_told_everything_but_the_truth(tiny_screen, tmp_path):
    posed = pose(SMALL, tiny_screen)
    write_request(posed, tmp_path, seed=3)
    request = json.loads((tmp_path / "request.json").read_text())
    assert request["asked"] == ["A"]
    assert request["parts"]["A+B"] == ["A", "B"]
    train = ad.read_h5ad(tmp_path / "train.h5ad")
    assert not set(train.obs_names) & set(posed.truth.obs_names)
    assert set(train.obs) == {"perturbation", "context", "is_control", "size_factor"}
    np.testing.assert_array_equal(train.X.toarray(), posed.train.X.toarray())
    with pytest.raises(InputError, match="without a prediction"):
        read_points(posed, tmp_path)


def test_an_environment_that_cannot_be_made_is_a_reason_not_a_crash(tmp_path, monkeypatch):
    old = replace(PEERS["cpa"], python="3.2")
    with pytest.raises(CannotRun, match=r"CPA 0\.8\.1 needs Python 3\.2"):
        environment.prepare(old, tmp_path)
    here = replace(PEERS["scvi"], module="no_such_module", packages=())
    home = tmp_path / "scvi" / ("Scripts" if os.name == "nt" else "bin")
    home.mkdir(parents=True)
    (home / "python").symlink_to(sys.executable)
    with pytest.raises(CannotRun, match="No module named 'no_such_module'"):
        environment.prepare(here, tmp_path)
    ready = replace(here, module="json")
    assert environment.prepare(ready, tmp_path).name == "python"
    with pytest.raises(UnknownNameError, match="Did you mean 'scvi'"):
        peer_methods(["scvl"], tmp_path)
    assert issubclass(CannotRun, CellditError)


def test_scripts_of_peers_import_nothing_of_celldit():
    for peer in PEERS.values():
        assert peer.script.is_file(), peer.name
        text = peer.script.read_text(encoding="utf-8")
        assert "celldit" not in text.split('"""', 2)[2]
        compile(text, peer.script.name, "exec")
