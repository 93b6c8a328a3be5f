"""From a set of tokens to a fixed number of slots, at a cost linear in the set's size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from celldit.nn.attention import MLP, Attention
from celldit.nn.packed_attention import read_packed

# Most tokens of a batch, padding included, that are embedded at once. Some twenty arrays of this
# many rows are alive while the encoder trains.
TOKENS_AT_ONCE = 2**16


class SlotBlock(nn.Module):
    """Slots read the set by cross-attention, then exchange what they read.

    The induced set attention of Lee et al. 2019 ("Set Transformer") with the inducing points
    kept from block to block: cost K·T + K² for K slots and T tokens.
    """

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_read = nn.RMSNorm(width)
        self.read = Attention(width, n_heads, dropout)
        self.norm_mix = nn.RMSNorm(width)
        self.mix = Attention(width, n_heads, dropout)
        self.norm_mlp = nn.RMSNorm(width)
        self.mlp = MLP(width, 2 * width, dropout)

    def forward(self, slots_BKW: Tensor, tokens_BTW: Tensor, mask_BT: Tensor | None) -> Tensor:
        read_BKW = self.read(self.norm_read(slots_BKW), tokens_BTW, mask_BT)
        return self._exchange(slots_BKW + read_BKW)

    def packed(
        self, slots_BKW: Tensor, tokens_SW: Tensor, cu_lengths: Tensor, max_length: int
    ) -> Tensor:
        """The same over sets laid end to end."""
        read_BKW = read_packed(
            self.read, self.norm_read(slots_BKW), tokens_SW, cu_lengths, max_length
        )
        return self._exchange(slots_BKW + read_BKW)

    def _exchange(self, slots_BKW: Tensor) -> Tensor:
        normed_BKW = self.norm_mix(slots_BKW)
        slots_BKW = slots_BKW + self.mix(normed_BKW, normed_BKW)
        return slots_BKW + self.mlp(self.norm_mlp(slots_BKW))


class SetEncoder(nn.Module):
    """Encode a token set into K slot vectors, invariant to the order of the tokens.

    A token enters as its identity's embedding, plus its values mapped by a small network that the
    identity modulates and, on request, by a matrix of its own; K learned slots then read the set in
    `depth` blocks.

    A batch of very many tokens is encoded some cells at a time. What training needs of them again
    is computed again (Chen et al. 2016, "Training deep nets with sublinear memory cost"), so that
    memory is bounded by ``TOKENS_AT_ONCE`` and not by tokens times cells.

    Parameters
    ----------
    n_identities
        How many different tokens there are.
    n_values
        Values that each token carries.
    n_slots, width, depth, n_heads, dropout
        Size of the encoder.
    per_token
        Whether every token has a matrix of its own for its values, zero until trained.
    """

    def __init__(
        self,
        n_identities: int,
        n_values: int,
        *,
        n_slots: int,
        width: int,
        depth: int,
        n_heads: int,
        dropout: float,
        per_token: bool = False,
    ) -> None:
        super().__init__()
        self.identity = nn.Embedding(n_identities, width)
        self.scale = nn.Embedding(n_identities, width)
        nn.init.normal_(self.identity.weight, std=0.02)
        nn.init.ones_(self.scale.weight)
        self.value = nn.Sequential(nn.Linear(n_values, width), nn.SiLU(), nn.Linear(width, width))
        self.own: nn.Embedding | None = None
        if per_token:
            # Looked up by identity, so that the order of the tokens does not matter.
            self.own = nn.Embedding(n_identities, n_values * width)
            nn.init.zeros_(self.own.weight)
        self.norm = nn.RMSNorm(width)
        self.slots = nn.Parameter(torch.randn(n_slots, width) * 0.02)
        self.blocks = nn.ModuleList(SlotBlock(width, n_heads, dropout) for _ in range(depth))

    def _each(self) -> Iterator[SlotBlock]:
        return cast(Iterator[SlotBlock], iter(self.blocks))

    def tokens(self, values_BTV: Tensor, identities_BT: Tensor) -> Tensor:
        """Embed the members of the set, shape (B, T, W); or (S, W) from (S, V) and (S,)."""
        value_BTW = self.value(values_BTV) * self.scale(identities_BT)
        if self.own is not None:
            own_BTVW = self.own(identities_BT).unflatten(-1, (values_BTV.shape[-1], -1))
            value_BTW = value_BTW + (values_BTV[..., None, :] @ own_BTVW).squeeze(-2)
        return self.norm(value_BTW + self.identity(identities_BT))

    def forward(
        self, values_BTV: Tensor, identities_BT: Tensor, mask_BT: Tensor | None = None
    ) -> Tensor:
        n_cells, n_tokens = identities_BT.shape
        at_once = max(1, TOKENS_AT_ONCE // max(1, n_tokens))
        if n_cells <= at_once:
            return self._encode(values_BTV, identities_BT, mask_BT)
        parts = []
        for start in range(0, n_cells, at_once):
            rows = slice(start, start + at_once)
            some = values_BTV[rows], identities_BT[rows], None if mask_BT is None else mask_BT[rows]
            if torch.is_grad_enabled():
                parts.append(cast(Tensor, checkpoint(self._encode, *some, use_reentrant=False)))
            else:
                parts.append(self._encode(*some))
        return torch.cat(parts)  # (B, K, W)

    def _encode(self, values_BTV: Tensor, identities_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
        tokens_BTW = self.tokens(values_BTV, identities_BT)
        slots_BKW = self.slots.expand(len(values_BTV), -1, -1)
        for block in self._each():
            slots_BKW = block(slots_BKW, tokens_BTW, mask_BT)
        return slots_BKW  # (B, K, W)

    def packed(
        self, values_SV: Tensor, identities_S: Tensor, cu_lengths: Tensor, max_length: int
    ) -> Tensor:
        """Encode sets laid end to end without padding, shape (B, K, W).

        Parameters
        ----------
        values_SV, identities_S
            The S tokens of all cells.
        cu_lengths
            int32, shape (B + 1,): cell i owns the rows ``cu_lengths[i]`` to ``cu_lengths[i + 1]``.
        max_length
            The largest number of tokens of a cell.
        """
        tokens_SW = self.tokens(values_SV, identities_S)
        slots_BKW = self.slots.expand(len(cu_lengths) - 1, -1, -1)
        for block in self._each():
            slots_BKW = block.packed(slots_BKW, tokens_SW, cu_lengths, max_length)
        return slots_BKW

    def attention(
        self, values_BTV: Tensor, identities_BT: Tensor, mask_BT: Tensor | None = None
    ) -> Tensor:
        """How much each slot reads from each token, averaged over blocks, shape (B, K, T)."""
        tokens_BTW = self.tokens(values_BTV, identities_BT)
        slots_BKW = self.slots.expand(len(values_BTV), -1, -1)
        total_BKT = torch.zeros(())
        for block in self._each():
            read = block.read.weights(block.norm_read(slots_BKW), tokens_BTW, mask_BT)
            total_BKT = total_BKT + read
            slots_BKW = block(slots_BKW, tokens_BTW, mask_BT)
        return total_BKT / len(self.blocks)
