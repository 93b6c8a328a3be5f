"""What pays on a GPU depends on the network's size."""

from __future__ import annotations

from torch import nn

from celldit.flow.anchored import AnchoredFlow

LARGE_STEP = 2e11
"""Operations of a step from which bfloat16 and compilation pay.

A small network waits for its kernels to be started, some hundred in a step: on an H200 a step of
celldit-S of 192 cells takes longer in bfloat16 than in float32, and a tenth less when compiled,
which takes five seconds before each run. Compiled, celldit-L takes three fifths of its time
(``docs/results/speed_gpu.csv``).
"""


def is_large(flow: AnchoredFlow, n_cells: int) -> bool:
    """Whether a step of that many cells keeps a GPU busy.

    Six operations are counted for each weight and latent token: a multiplication and an addition,
    forward and for both gradients. That is right for blocks of a transformer and too many for what
    sees all tokens at once.
    """
    n_weights = sum(weight.numel() for weight in flow.dit.parameters())
    return 6 * n_weights * flow.n_tokens * n_cells >= LARGE_STEP


def compile_network(flow: AnchoredFlow) -> None:
    """Let ``torch.compile`` make the network's blocks faster, in place; names of weights stay.

    Blocks are alike, so that compiling them takes the time of one. A network without blocks is
    compiled as a whole.
    """
    blocks = getattr(flow.dit, "blocks", None)
    for part in blocks if isinstance(blocks, nn.ModuleList) else [flow.dit]:
        part.compile()
