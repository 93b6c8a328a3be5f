r"""Random numbers that belong to a cell, not to a batch.

Row i depends on the seed, the cell's key and the stream, and on nothing else: not on how many cells
are drawn together, in which order, in which chunk, or by how many threads. Philox, a counter-based
generator, turns (place within the cell, stream, key) into 128 random bits under the seed; two
different inputs never share a counter. The normal deviates come from additions, multiplications,
divisions and square roots alone, which IEEE 754 rounds correctly: the logarithm and sine of a
library may differ in the last bit between the vectorised body and the tail of one array, which is
enough to make a cell's bytes depend on its place in the batch.

References
----------
Salmon, Moraes, Dror, Shaw. Parallel random numbers: as easy as 1, 2, 3. SC 2011 (Philox4x32-10).
Box, Muller. A note on the generation of random normal deviates. Ann. Math. Stat. 29, 1958.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from celldit.random import SDE_STREAM

Noise: TypeAlias = Callable[[int, Tensor], Tensor]
"""``noise(draw, like)``: standard normal noise number `draw` in the shape, dtype and device of
`like`, (B, ...)."""

_LOW = 0xFFFFFFFF  # the low 32 bits
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
# Blocks of four numbers hashed at a time: the temporaries of one chunk stay in the cache.
_CHUNK_BLOCKS = 1 << 15


def cell_noise(cell_keys: Tensor, shape: Sequence[int], seed: int, stream: int = 0) -> Tensor:
    """Standard normal noise (B, *shape) that depends on seed, cell and stream only, float32.

    Each cell has a key, int64 (B,); equal keys get equal noise, on the device of the keys. A longer
    shape starts with the numbers of a shorter one. The seed is below 2**64, the stream, one of the
    cell's independent streams, below 2**32 (:mod:`celldit.random`).
    """
    return _per_cell(_normals, cell_keys, shape, seed, stream)


def cell_uniform(cell_keys: Tensor, shape: Sequence[int], seed: int, stream: int = 0) -> Tensor:
    """Uniform numbers in (0, 1), as :func:`cell_noise`: odd multiples of 2**-24, never 0 or 1.

    The numbers of a stream are made from the same bits as its noise: use another stream when both
    must be independent.
    """
    return _per_cell(_uniforms, cell_keys, shape, seed, stream)


@dataclass(frozen=True, eq=False)
class CellNoise:
    """Numbered draws of noise that belongs to the cells: the same whatever batch they are in.

    Of cells with these keys, int64 (B,); draw k uses stream + k (:mod:`celldit.random`).
    """

    cell_keys: Tensor
    seed: int
    stream: int = SDE_STREAM

    def __call__(self, draw: int, like: Tensor) -> Tensor:
        """Give draw number ``draw``, shape (B, ...)."""
        keys_B = self.cell_keys.to(like.device)
        return cell_noise(keys_B, like.shape[1:], self.seed, self.stream + draw).to(like.dtype)


def _per_cell(
    deviates: Callable[[list[Tensor]], Tensor],
    cell_keys: Tensor,
    shape: Sequence[int],
    seed: int,
    stream: int,
) -> Tensor:
    # Some devices lack double precision; the numbers must not depend on that.
    home = cell_keys.device
    keys_B = cell_keys.cpu() if home.type == "mps" else cell_keys
    n_numbers = math.prod(shape)
    n_blocks = -(-n_numbers // 4)
    noise_BK = torch.empty(len(keys_B), n_numbers, dtype=torch.float32, device=keys_B.device)
    block_L = torch.arange(n_blocks, device=keys_B.device, dtype=torch.int64)
    rows = max(1, _CHUNK_BLOCKS // max(n_blocks, 1))
    for row in range(0, len(keys_B), rows):
        words = _words(keys_B[row : row + rows], block_L, seed, stream)  # 4 x (rows, L)
        noise_BK[row : row + rows] = deviates(words).flatten(1)[:, :n_numbers]
    return noise_BK.reshape(len(keys_B), *shape).to(home)


def _words(keys_R: Tensor, block_L: Tensor, seed: int, stream: int) -> list[Tensor]:
    shape = (len(keys_R), len(block_L))
    counter = [
        block_L.expand(shape),
        torch.full((), stream, dtype=torch.int64, device=keys_R.device).expand(shape),
        (keys_R & _LOW)[:, None].expand(shape),
        (keys_R >> 32 & _LOW)[:, None].expand(shape),
    ]
    return philox(counter, (seed & _LOW, seed >> 32))


def philox(counter: list[Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Philox4x32-10: hash counters of four 32-bit words under a key of two.

    Counters, and the four random words that come back, are int64 tensors of one shape with values
    in [0, 2**32), as are the numbers of the key.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # int64 wraps on overflow, so the 64 bits of the unsigned product are all there.
        product0 = c0 * _MULTIPLIERS[0]
        product1 = c2 * _MULTIPLIERS[1]
        c0 = (product1 >> 32).bitwise_and_(_LOW).bitwise_xor_(c1).bitwise_xor_(k0)
        c2 = (product0 >> 32).bitwise_and_(_LOW).bitwise_xor_(c3).bitwise_xor_(k1)
        c1 = product1.bitwise_and_(_LOW)
        c3 = product0.bitwise_and_(_LOW)
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return [c0, c1, c2, c3]


def _uniforms(words: list[Tensor]) -> Tensor:
    # 23 bits and a half: the largest value, 1 - 2**-24, is still a float32 below 1.
    bits = torch.stack(words, dim=-1) >> 9  # (R, L, 4)
    return ((bits.to(torch.float64) + 0.5) * 2.0**-23).to(torch.float32)


def _normals(words: list[Tensor]) -> Tensor:
    size = torch.stack(words[0::2], dim=-1)  # (R, L, 2)
    turn = torch.stack(words[1::2], dim=-1)  # (R, L, 2)
    radius = _log((size.to(torch.float64).add_(0.5)).mul_(2.0**-32)).mul_(-2.0).sqrt_()
    cosine, sine = _cos_sin(turn)
    return torch.stack([radius * cosine, radius * sine], dim=-1).to(torch.float32)  # (R, L, 2, 2)


def _log(u: Tensor) -> Tensor:
    # log(m 2**e) = e log 2 + 2 artanh(s), s = (m - 1) / (m + 1), with m in [sqrt(1/2), sqrt(2)).
    mantissa, exponent = torch.frexp(u)
    small = mantissa < math.sqrt(0.5)
    mantissa = torch.where(small, mantissa * 2.0, mantissa)
    exponent = exponent.to(torch.float64).sub_(small.to(torch.float64))
    s = (mantissa - 1.0).div_(mantissa + 1.0)
    series = _polynomial(s * s, [1 / (2 * k + 1) for k in range(8)])
    return (s * 2.0).mul_(series).add_(exponent.mul_(math.log(2.0)))


def _cos_sin(turn: Tensor) -> tuple[Tensor, Tensor]:
    # The angle is turn / 2**32 of a full circle: whole quarters, and a rest of at most an eighth.
    quarter = (turn + (1 << 29)) >> 30
    rest = (turn - (quarter << 30)).to(torch.float64).mul_(math.pi / (1 << 31))
    square = rest * rest
    cosine = _polynomial(square, [(-1) ** k / math.factorial(2 * k) for k in range(7)])
    sine = _polynomial(square, [(-1) ** k / math.factorial(2 * k + 1) for k in range(7)]).mul_(rest)
    swap = (quarter & 1).to(torch.bool)
    cosine, sine = torch.where(swap, -sine, cosine), torch.where(swap, cosine, sine)
    sign = 1.0 - (quarter & 2).to(torch.float64)
    return cosine * sign, sine * sign


def _polynomial(x: Tensor, coefficients: list[float]) -> Tensor:
    # Horner's rule in separate operations: a fused multiply-add would round differently.
    value = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value.mul_(x).add_(coefficient)
    return value
