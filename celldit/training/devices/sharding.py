"""Stage two with weights in shards: each process holds a part of the flow, and of all beside it.

Weights, gradients, the optimiser's moments and the moving average lie in shards of one layout
(FSDP2, :func:`torch.distributed.fsdp.fully_shard`). A step of the optimiser and one of the moving
average go element by element, so each process does its own shard; only what a block computes with
is gathered, for as long as it computes. Checkpoints hold whole weights: they are those of a run
without shards, and any number of processes goes on from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.strategies.strategy import Strategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's strategy for FSDP2, over all processes, on CPUs too, with whole checkpoints.

    The module shards its parts in ``configure_model``, with :func:`shard` and :attr:`shards`.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    @property
    def shards(self) -> DeviceMesh:
        """All processes in a row."""
        return self.device_mesh["data_parallel"]

    def setup_environment(self) -> None:
        # "auto" would stand for the number of machines, and their devices for tensor parallelism.
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    # Lightning's own would write a dialect of its own; here states are those of one process.
    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.model is not None
        return whole(self.model.state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        if isinstance(optimizer, LightningOptimizer):
            optimizer = optimizer.optimizer
        return whole(optimizer.state_dict())

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> Any:
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.model is not None
        like = self.model.state_dict()
        weights = {
            name: sharded_like(like[name], value) if name in like else value
            for name, value in checkpoint["state_dict"].items()
        }
        self.model.load_state_dict(weights, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            weights = [p for group in optimizer.param_groups for p in group["params"]]
            moments = {
                i: {
                    # Counters of steps have no shape of a weight and stay as they are.
                    name: sharded_like(weights[i], x) if _is_shaped(weights[i], x) else x
                    for name, x in of_weight.items()
                }
                for i, of_weight in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": moments})


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Split the weights of a network over processes, in place; the order of its names stays.

    They go to the device of the mesh, which has one dimension. Each block is gathered when its turn
    comes.
    """
    for part in network.modules():
        if isinstance(part, nn.ModuleList):
            for block in part:
                fully_shard(block, mesh=mesh)
    # Back to shards after each pass, so that nobody finds gathered weights between two steps.
    fully_shard(network, mesh=mesh, reshard_after_forward=True)


def whole(state: Any) -> Any:
    """Nested dictionaries and lists with every tensor whole, and no longer on a GPU.

    All processes must call it, as each gives its shards.
    """
    if isinstance(state, Mapping):
        return {key: whole(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(whole(value) for value in state)
    if not isinstance(state, Tensor):
        return state
    tensor = state.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu()


def sharded_like(pattern: Tensor, value: Tensor) -> Tensor:
    """A whole tensor in shards where a pattern is, and as it is elsewhere."""
    if not isinstance(pattern, DTensor):
        return value
    moved = value.to(pattern.device)
    # Every process has read the same file, so there is nothing to send.
    return distribute_tensor(moved, pattern.device_mesh, pattern.placements, src_data_rank=None)


def _is_shaped(weight: Tensor, value: object) -> bool:
    return isinstance(value, Tensor) and value.shape == weight.shape and value.ndim > 0
