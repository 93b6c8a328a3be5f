"""Sets laid end to end are read as padded ones, and as the variable-length kernels want them.

Where there is no GPU, three things stand in for one: a plain implementation of what the kernel's
documentation says, tensors that pretend to be on a CUDA device, and tensors without data, which
torch sends through its own statement of the kernel's shapes, forwards and backwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import varlen

from celldit.nn import packed_attention
from celldit.nn.attention import Attention
from celldit.nn.packed_attention import read_packed
from celldit.nn.set_encoder import SetEncoder

LENGTHS = st.lists(st.integers(0, 6), min_size=1, max_size=5)
HALF = (torch.float16, torch.bfloat16)


def plain_varlen(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    cu_seq_q: torch.Tensor, cu_seq_k: torch.Tensor, max_q: int, max_k: int, **options: Any,
) -> torch.Tensor:  # fmt: skip
    """`varlen_attn` as documented, after what torch's kernels check before they start."""
    assert not options
    assert query.dtype == key.dtype == value.dtype
    assert all(t.ndim == 3 and t.stride(-1) == 1 for t in (query, key, value))
    n_heads, head = query.shape[1:]
    assert key.shape == value.shape == (len(key), n_heads, head)
    assert head in range(8, 257, 8)
    for ends, most, total in ((cu_seq_q, max_q, len(query)), (cu_seq_k, max_k, len(key))):
        assert ends.dtype == torch.int32
        assert ends.is_contiguous()
        assert ends.shape == cu_seq_q.shape
        assert len(ends) > 1
        assert (ends[0], ends[-1]) == (0, total)
        assert isinstance(most, int)
        assert most == ends.diff().max()
    y = torch.zeros_like(query)
    for i in range(len(cu_seq_q) - 1):
        of_q, of_k = (slice(ends[i], ends[i + 1]) for ends in (cu_seq_q, cu_seq_k))
        logits_HQK = torch.einsum("qhc,khc->hqk", query[of_q], key[of_k]) / head**0.5
        y[of_q] = torch.einsum("hqk,khc->qhc", logits_HQK.softmax(-1), value[of_k])
    return y


@contextmanager
def the_kernels_place(dtype: torch.dtype) -> Iterator[mock.Mock]:
    """The variable-length branch on the CPU, with `plain_varlen` as its kernel."""
    # Autospec: names and order of the arguments must be those of the installed torch.
    kernel = mock.create_autospec(varlen.varlen_attn, side_effect=plain_varlen)
    with (
        mock.patch.object(varlen, "varlen_attn", kernel),
        mock.patch.object(packed_attention, "_kernel_dtype", return_value=dtype),
    ):
        yield kernel


def sets(lengths: list[int], width: int = 32) -> tuple[torch.Tensor, ...]:
    """Queries, members and offsets."""
    draw = torch.Generator().manual_seed(sum(lengths))
    ends = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    members = torch.randn(sum(lengths), width, generator=draw)
    return torch.randn(len(lengths), 4, width, generator=draw), members, ends


def layer(width: int = 32, n_heads: int = 2, dropout: float = 0.0) -> Attention:
    torch.manual_seed(0)
    return Attention(width, n_heads, dropout).eval()


@given(LENGTHS)
def test_equals_a_loop_over_the_sets(lengths: list[int]) -> None:
    attention, (x, members, ends) = layer(), sets(lengths)
    y = read_packed(attention, x, members, ends, max(lengths))
    for i, own in enumerate(members.split(lengths)):
        alone = attention(x[i : i + 1], own[None])[0] if len(own) else attention.out.bias
        torch.testing.assert_close(y[i], alone.expand(4, 32), rtol=0, atol=1e-5)


@given(LENGTHS)
def test_the_kernel_equals_the_mask(lengths: list[int]) -> None:
    """The result and every gradient."""
    attention, (x, members, ends) = layer(), sets(lengths)
    found = []
    for through_kernel in (False, True):
        attention.zero_grad()
        inputs = x.clone().requires_grad_(), members.clone().requires_grad_()
        if through_kernel:
            with the_kernels_place(torch.float32) as kernel:
                y = read_packed(attention, *inputs, ends, max(lengths))
            assert kernel.called == bool(sum(lengths))
        else:
            y = read_packed(attention, *inputs, ends, max(lengths))
        y.square().sum().backward()
        # What no member reaches has no gradient here, and one of zero there.
        parts = [p.grad for p in (*inputs, *attention.parameters())]
        found.append([y.detach(), *(0 * y.sum() if g is None else g for g in parts)])
    for masked, packed in zip(*found, strict=True):
        torch.testing.assert_close(packed.expand_as(masked), masked, rtol=1e-5, atol=1e-5)


@given(LENGTHS)
def test_an_encoder_reads_packed_sets_through_the_kernel(lengths: list[int]) -> None:
    torch.manual_seed(0)
    encoder = SetEncoder(9, 2, n_slots=3, width=32, depth=2, n_heads=2, dropout=0.1).eval()
    values = torch.randn(len(lengths), max(*lengths, 1), 2)
    identities = torch.randint(9, values.shape[:2])
    mask = torch.arange(values.shape[1]) < torch.tensor(lengths)[:, None]
    ends = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    with torch.no_grad(), the_kernels_place(torch.float32):
        packed = encoder.packed(values[mask], identities[mask], ends, max(lengths))
        torch.testing.assert_close(packed, encoder(values, identities, mask), rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
@pytest.mark.parametrize("under_autocast", [False, True])
def test_the_kernel_is_given_half_precision(under_autocast: bool) -> None:
    """From a layer in half precision, and from one in single precision under autocast."""
    lengths = [3, 0, 5]
    attention, (x, members, ends) = layer(), sets(lengths)
    exact = read_packed(attention, x, members, ends, 5)
    if not under_autocast:
        attention, x, members = attention.bfloat16(), x.bfloat16(), members.bfloat16()
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=under_autocast),
        the_kernels_place(torch.bfloat16) as kernel,
    ):
        y = read_packed(attention, x, members, ends, 5)
    assert all(t.dtype == torch.bfloat16 for t in kernel.call_args.args[:3])
    torch.testing.assert_close(y.float(), exact, rtol=5e-2, atol=5e-2)


# What torch itself says of the branch, without a GPU.


@contextmanager
def pretended_cuda(capability: tuple[int, int] = (8, 0)) -> Iterator[None]:
    """Tensors that say they are on a CUDA device and hold nothing."""
    # No gradients: autograd would look for a device that this torch may not know.
    with (
        mock.patch("torch.cuda.get_device_capability", return_value=capability),
        torch.no_grad(),
        FakeTensorMode(),
    ):
        yield


def on_cuda(attention: Attention) -> Attention:
    """Give it parameters on the pretended device; moving them would need a real one."""
    for module in attention.modules():
        for name, p in module._parameters.items():
            if p is not None:
                empty = torch.empty(p.shape, dtype=p.dtype, device="cuda")
                module._parameters[name] = torch.nn.Parameter(empty, requires_grad=False)
    return attention


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize(("width", "n_heads"), [(64, 4), (32, 4), (256, 1)])
@pytest.mark.parametrize("n_members", [20, 0])
def test_the_branch_runs_on_a_pretended_device(
    dtype: torch.dtype, width: int, n_heads: int, n_members: int
) -> None:
    attention = layer(width, n_heads).to(dtype)
    with pretended_cuda(), mock.patch.object(varlen, "varlen_attn", wraps=varlen.varlen_attn) as it:
        x = torch.empty(3, 5, width, device="cuda", dtype=dtype)
        members = torch.empty(n_members, width, device="cuda", dtype=dtype)
        ends = torch.empty(4, device="cuda", dtype=torch.int32)
        y = read_packed(on_cuda(attention), x, members, ends, n_members)
        assert it.called == bool(n_members)
        assert (y.shape, y.dtype, y.device) == (x.shape, dtype, x.device)


@pytest.mark.parametrize("dtype", HALF)
def test_gradients_have_the_shapes_of_what_they_belong_to(dtype: torch.dtype) -> None:
    attention = layer(64, 4).to("meta", dtype)
    x = torch.empty(3, 5, 64, device="meta", dtype=dtype, requires_grad=True)
    members = torch.empty(20, 64, device="meta", dtype=dtype, requires_grad=True)
    ends = torch.empty(4, device="meta", dtype=torch.int32)
    with mock.patch.object(packed_attention, "_kernel_dtype", return_value=dtype):
        read_packed(attention, x, members, ends, 20).sum().backward()
    for own in (x, members, *attention.parameters()):
        assert own.grad is not None
        assert own.grad.shape == own.shape


def asked(
    dtype: torch.dtype = torch.bfloat16, width: int = 64, n_heads: int = 4, dropout: float = 0.0,
    training: bool = False, n_sets: int = 3, capability: tuple[int, int] = (8, 0),
) -> torch.dtype | None:  # fmt: skip
    """Which precision the kernels would be given."""
    attention = layer(width, n_heads, dropout).train(training)
    with pretended_cuda(capability):
        x = torch.empty(n_sets, 5, width, device="cuda", dtype=dtype)
        return packed_attention._kernel_dtype(x, attention)


def test_the_kernels_are_taken_where_they_can_do_it() -> None:
    assert asked() == torch.bfloat16
    assert asked(torch.float16) == torch.float16
    assert asked(dropout=0.1) == torch.bfloat16  # since nothing is dropped outside of training
    assert asked(training=True) == torch.bfloat16
    with (
        mock.patch("torch.is_autocast_enabled", lambda device: device == "cuda"),
        mock.patch("torch.get_autocast_dtype", return_value=torch.float16),
    ):
        assert asked(torch.float32) == torch.float16


@pytest.mark.parametrize(
    "unfit",
    [
        {"dtype": torch.float32},
        {"n_heads": 16},  # of four values each
        {"width": 264, "n_heads": 1},
        {"dropout": 0.1, "training": True},
        {"n_sets": 65_536},
        {"capability": (7, 5)},
    ],
    ids=str,
)
def test_the_mask_is_taken_where_the_kernels_cannot(unfit: dict[str, Any]) -> None:
    assert asked(**unfit) is None


def test_the_mask_is_taken_without_a_gpu_and_with_an_older_torch() -> None:
    assert packed_attention._kernel_dtype(torch.zeros(1, 1, 32).bfloat16(), layer()) is None
    with mock.patch.object(packed_attention, "find_spec", return_value=None):
        assert asked() is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("under_autocast", [False, True])
@pytest.mark.parametrize("n_heads", [4, 16])  # 16 heads of four values go by the mask
def test_on_a_gpu(n_heads: int, under_autocast: bool) -> None:
    lengths = [17, 0, 130]
    attention, (x, members, ends) = layer(64, n_heads), sets(lengths, 64)
    found = []
    calls = []
    half = torch.float32 if under_autocast else torch.bfloat16
    for device, dtype in (("cpu", torch.float32), ("cuda", half)):
        own = attention.to(device, dtype)
        own.zero_grad()
        given_x = x.detach().to(device, dtype).requires_grad_()
        given_members = members.detach().to(device, dtype).requires_grad_()
        with (
            mock.patch.object(varlen, "varlen_attn", wraps=varlen.varlen_attn) as kernel,
            torch.autocast("cuda", torch.bfloat16, enabled=under_autocast),
        ):
            y = read_packed(own, given_x, given_members, ends.to(device), max(lengths))
        calls.append(kernel.called)
        y.float().square().sum().backward()
        assert given_x.grad is not None
        assert given_members.grad is not None
        found.append([t.float().cpu() for t in (y, given_x.grad, given_members.grad)])
    assert calls == [False, n_heads == 4]
    for exact, half in zip(*found, strict=True):
        assert (half - exact).norm() < 3e-2 * exact.norm()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_encoder_on_a_gpu_reads_packed_sets_as_padded_ones() -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([5, 0, 33, 8])
    encoder = SetEncoder(40, 2, n_slots=6, width=64, depth=2, n_heads=4, dropout=0.1).eval()
    values, identities = torch.randn(4, 33, 2), torch.randint(40, (4, 33))
    mask = torch.arange(33) < lengths[:, None]
    ends = torch.cat([torch.zeros(1), lengths.cumsum(0)]).to(torch.int32)
    exact = encoder(values, identities, mask)
    encoder.cuda()
    there = [x.cuda() for x in (values[mask], identities[mask], ends)]
    with torch.autocast("cuda", torch.bfloat16):
        half = encoder.packed(*there, 33)
        padded = encoder(values.cuda(), identities.cuda(), mask.cuda())
    torch.testing.assert_close(encoder.packed(*there, 33).cpu(), exact, rtol=0, atol=1e-4)
    for found in (half, padded):
        assert (found.float().cpu() - exact).norm() < 3e-2 * exact.norm()
