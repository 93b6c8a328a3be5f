from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from celldit.flow import noise as noise_module
from celldit.flow.noise import CellNoise, cell_noise, cell_uniform, philox
from celldit.random import EDIT_STREAM, SDE_STREAM, SOURCE_STREAM

KINDS = [cell_noise, cell_uniform]
some_kind = st.sampled_from(KINDS)
some_keys = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=50)
some_seed = st.integers(0, 2**64 - 1)
some_stream = st.integers(0, 2**32 - 1)


def keys(values):
    return torch.tensor(values, dtype=torch.int64)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_known_answers_of_its_authors(counter, key, expected):
    words = philox([keys([word]) for word in counter], tuple(key))
    assert " ".join(f"{int(word):08x}" for word in words) == expected


@given(kind=some_kind, values=some_keys, width=st.integers(1, 21), seed=some_seed, data=st.data())
@settings(deadline=None, max_examples=60)
def test_a_cell_is_the_same_in_any_company(kind, values, width, seed, data):
    rows = data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1, max_size=20))
    stream = data.draw(some_stream)
    whole = kind(keys(values), (width,), seed, stream)
    part = kind(keys(values)[rows], (width,), seed, stream)
    assert torch.equal(part, whole[rows])


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_and_threads_leave_no_trace(kind, monkeypatch):
    everything = kind(torch.arange(3000), (7, 5), 3)
    alone = torch.cat([kind(keys([k]), (7, 5), 3) for k in range(0, 3000, 300)])
    assert torch.equal(alone, everything[::300])
    torch.set_num_threads(2)
    assert torch.equal(kind(torch.arange(3000), (7, 5), 3), everything)
    monkeypatch.setattr(noise_module, "_CHUNK_BLOCKS", 4)
    assert torch.equal(kind(torch.arange(40), (7, 5), 3), everything[:40])


@given(kind=some_kind, short=st.integers(1, 12), more=st.integers(0, 12), seed=some_seed)
@settings(deadline=None, max_examples=30)
def test_a_longer_row_starts_with_the_shorter(kind, short, more, seed):
    long = kind(torch.arange(3), (short + more,), seed)
    assert torch.equal(kind(torch.arange(3), (short,), seed), long[:, :short])
    assert torch.equal(kind(torch.arange(3), (short, 1), seed)[..., 0], long[:, :short])


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_noise_is_standard_normal(seed):
    z = cell_noise(torch.arange(20_000), (10,), seed)
    assert z.dtype == torch.float32
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-4
    # Each dimension alone, over cells that have neighbouring keys.
    assert min(stats.kstest(z[:, d].numpy(), "norm").pvalue for d in range(10)) > 1e-4
    assert float(z.double().pow(4).mean()) == pytest.approx(3, abs=0.15)
    assert float(z.abs().max()) > 4


def test_uniforms_are_uniform_and_strictly_inside():
    u = cell_uniform(torch.arange(50_000), (4,), 7)
    assert bool(((u > 0) & (u < 1)).all())
    assert stats.kstest(u.flatten().numpy(), "uniform").pvalue > 1e-4


def test_extreme_words_stay_inside_and_finite():
    for word in (0, 0xFFFFFFFF):
        words = [keys([[word]])] * 4
        u, z = noise_module._uniforms(words), noise_module._normals(words)
        assert bool(((u > 0) & (u < 1)).all())
        assert bool(torch.isfinite(z).all())


def test_normals_are_those_of_the_mathematical_library():
    generator = torch.Generator().manual_seed(0)
    words = list(torch.randint(0, 2**32, (4, 100, 50), generator=generator).unbind(0))
    z = noise_module._normals(words)
    radius = np.sqrt(-2 * np.log((words[2].numpy() + 0.5) / 2**32))
    angle = 2 * np.pi * words[3].numpy() / 2**32
    np.testing.assert_allclose(z[:, :, 1, 0], radius * np.cos(angle), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(z[:, :, 1, 1], radius * np.sin(angle), rtol=1e-6, atol=1e-7)


def correlation(a, b):
    return abs(np.corrcoef(a.flatten().numpy(), b.flatten().numpy())[0, 1]) * a.numel() ** 0.5


@pytest.mark.parametrize("transform", [lambda z: z, torch.abs, torch.square])
def test_cells_dimensions_seeds_and_streams_are_independent(transform):
    def draw(first=0, seed=0, stream=0):
        return transform(cell_noise(torch.arange(first, first + 20_000), (6,), seed, stream))

    z = draw()
    # Correlations in standard errors; 5 is passed once in two million.
    assert correlation(z[:-1], z[1:]) < 5
    assert all(correlation(z[:, i], z[:, j]) < 5 for i in range(6) for j in range(i))
    assert correlation(z, draw(seed=1)) < 5
    assert correlation(z, draw(seed=1 << 32)) < 5
    assert correlation(z, draw(stream=1)) < 5
    assert correlation(z, draw(first=1 << 32)) < 5


@given(seed=some_seed, stream=some_stream, key=st.integers(-(2**62), 2**62))
@settings(deadline=None, max_examples=30)
def test_every_input_counts(seed, stream, key):
    z = cell_noise(keys([key]), (8,), seed, stream)
    assert torch.equal(z, cell_noise(keys([key]), (8,), seed, stream))
    for bit in (0, 31, 32, 61):
        assert not torch.equal(z, cell_noise(keys([key ^ (1 << bit)]), (8,), seed, stream))
        assert not torch.equal(z, cell_noise(keys([key]), (8,), seed ^ (1 << bit), stream))
        if bit < 32:
            assert not torch.equal(z, cell_noise(keys([key]), (8,), seed, stream ^ (1 << bit)))


def test_the_bytes_do_not_change_between_versions():
    z = cell_noise(keys([17]), (4,), 0)
    expected = [3201391449, 1067172629, 3221412169, 3165289246]
    assert z.numpy().view(np.uint32).tolist() == [expected]


def test_draws_of_different_consumers_do_not_meet():
    like, cells = torch.zeros(3, 5), torch.arange(3)
    streams = (SOURCE_STREAM, EDIT_STREAM, SDE_STREAM)
    draws = [CellNoise(cells, 0, s)(draw, like) for s in streams for draw in range(3)]
    assert len({tuple(draw.flatten().tolist()) for draw in draws}) == len(draws)


def test_empty_shapes_and_no_cells():
    assert cell_noise(torch.arange(0), (3,), 0).shape == (0, 3)
    assert cell_noise(torch.arange(4), (0,), 0).shape == (4, 0)
    assert cell_noise(torch.arange(4), (), 0).shape == (4,)
