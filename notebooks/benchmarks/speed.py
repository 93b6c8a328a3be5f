"""What both speed benchmarks measure. Needs torch, numpy, scipy, lightning and celldit alone.

Everything is synthetic: the speed of a step does not depend on what is in the cells.
"""

from __future__ import annotations

import csv
import datetime
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cost import cost_of
from torch.utils._python_dispatch import TorchDispatchMode

from celldit.conditions.embedding import ConditionEmbedding
from celldit.flow import resolve_solver
from celldit.flow.anchored import AnchoredFlow, FlowCondition
from celldit.nn.dit import DiTConfig
from celldit.nn.views import TokenViews
from celldit.training.config import TrainingConfig
from celldit.training.devices.cuda import compile_network
from celldit.training.flow_data import FlowBatches, FlowTables, PairedControls
from celldit.training.flow_stage import FlowStage

aten = torch.ops.aten
N_CELLS, N_CONDITIONS, N_GENES = 20_000, 100, 2_000


AT_ONCE = 5
"""Steps between two looks at the clock on CUDA, where a training does not wait after each."""


def seconds_of(
    step: Callable[[], Any], device: torch.device, least: float = 2.0, at_once: int = AT_ONCE
) -> float:
    """Median seconds of a step, after two to warm up, over at least `least` seconds.

    On a CPU these are seconds of one core, so that other work on the machine counts little.
    """
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    n_steps = at_once if device.type == "cuda" else 1

    def timed() -> float:
        _wait(device)
        started = clock()
        for _ in range(n_steps):
            step()
        _wait(device)
        return (clock() - started) / n_steps

    step(), step()
    taken: list[float] = []
    fewest = 3 if device.type == "cuda" else 5
    while n_steps * sum(taken) < least or len(taken) < fewest:
        taken.append(timed())
    return statistics.median(taken)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def shares_of(step: FlowStep, device: torch.device, n_steps: int = 6) -> dict[str, float]:
    """Share of each part of whole steps, so that there are gradients to update with."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    spent = dict.fromkeys(("assemble", "compute", "update"), 0.0)
    for _ in range(n_steps):
        for part in spent:
            _wait(device)
            started = clock()
            getattr(step, part)()
            _wait(device)
            spent[part] += clock() - started
    return {part: seconds / sum(spent.values()) for part, seconds in spent.items()}


def matmul_rate(
    batch: int, config: DiTConfig, n_tokens: int, device: torch.device, dtype: Any
) -> float:
    """FLOP/s of the products of a block at its own sizes, forward and both gradients."""
    rows, width, hidden = batch * n_tokens, config.width, int(config.mlp_ratio * config.width)
    shapes = [(width, width), (width, 2 * width), (width, width), (width, hidden), (hidden, width)]
    tensors = [
        tuple(torch.randn(*s, device=device, dtype=dtype) for s in ((rows, i), (i, o), (rows, o)))
        for i, o in shapes
    ]

    def step() -> None:
        for x, w, dy in tensors:
            x @ w, dy @ w.T, x.T @ dy

    flops = sum(6 * rows * i * o for i, o in shapes)
    return flops / seconds_of(step, device, 1.0 if device.type == "cpu" else 0.3)


def peak_rate(device: torch.device, size: int = 8_192) -> float:
    """FLOP/s of one large product in bfloat16."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / seconds_of(lambda: a @ b, device, 0.3)


class Products(TorchDispatchMode):
    """Keeps copies of the operands of every matrix product made under it."""

    def __init__(self) -> None:
        super().__init__()
        self.operands: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        n_skipped = {aten.mm.default: 0, aten.bmm.default: 0, aten.addmm.default: 1}.get(func)
        if n_skipped is not None:
            a, b = args[n_skipped:]
            self.operands.append((a.detach().clone(), b.detach().clone()))
        return func(*args, **(kwargs or {}))


def seconds_of_products(step: FlowStep, device: torch.device) -> float:
    """Seconds that the matrix products of a step take when nothing else is done.

    All of them, forward and backward, small batched ones of attention and tokens too, each with
    operands of its own, in the order and the layout that they have in the step.
    """
    step.assemble()
    with Products() as products:
        step.compute()

    def alone() -> None:
        for a, b in products.operands:
            torch.matmul(a, b)

    return seconds_of(alone, device)


def make_tables(n_tokens: int, token_dim: int) -> FlowTables:
    """Conditions and latents as stage two has them."""
    generator = torch.Generator().manual_seed(0)
    size = np.full(N_CONDITIONS, N_CELLS // N_CONDITIONS)
    effects = torch.randn(2 * N_CONDITIONS, n_tokens, token_dim, generator=generator)
    return FlowTables(
        torch.randn(N_CELLS, n_tokens, token_dim, generator=generator),
        np.arange(N_CELLS),
        np.concatenate([[0], np.cumsum(size)[:-1]]),
        size,
        PairedControls(
            ((np.arange(size[0]), np.arange(1, size[0] + 1) / size[0]),),
            np.zeros(N_CONDITIONS, dtype=np.int64),
        ),
        ConditionEmbedding(
            effects, effects.clone(), torch.rand(2 * N_CONDITIONS, generator=generator)
        ),
        torch.eye(n_tokens * token_dim)[None],
        np.zeros(N_CONDITIONS, dtype=np.int64),
        torch.ones(n_tokens),
        np.sqrt(size),
    )


class FlowStep:
    """One step of stage two, part by part as Lightning runs it."""

    def __init__(
        self,
        size: DiTConfig,
        n_tokens: int,
        token_dim: int,
        batch: int,
        device: torch.device,
        *,
        half: bool = False,
        compiled: bool = False,
    ) -> None:
        config = TrainingConfig(flow_batch=batch, flow_steps_per_epoch=10**9)
        self.device, self.half, self.batch = device, half, batch
        views = TokenViews.random(size.n_views, n_tokens * token_dim, size.view_values, 0)
        flow = AnchoredFlow(n_tokens, token_dim, size, views=views).to(device)
        self.stage = FlowStage(flow, [], config, 1, 1000).to(device)
        self.stage.log = lambda *_, **__: None  # type: ignore[method-assign]
        if compiled:
            compile_network(flow)
        settings = self.stage.configure_optimizers()
        self.optimizer, self.schedule = settings["optimizer"], settings["lr_scheduler"]["scheduler"]
        self.batches = iter(FlowBatches(make_tables(n_tokens, token_dim), config, 0))
        self.next: Any = None

    def assemble(self) -> None:
        """Draw pairs, look up effects, move to the device."""
        self.next = next(self.batches).to(self.device)

    def compute(self) -> None:
        """Forward and backward."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.half):
            loss = self.stage.training_step(self.next)
        loss.backward()

    def update(self) -> None:
        """Clip, step, average."""
        self.stage.configure_gradient_clipping(self.optimizer, 1.0, "norm")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        self.stage.average_weights()

    def __call__(self) -> None:
        self.assemble()
        self.compute()
        self.update()


def sampling_rate(
    size: DiTConfig, n_tokens: int, token_dim: int, batch: int, device: torch.device, *, half: bool
) -> float:
    """Cells a second through 8 steps of Heun."""
    flow = AnchoredFlow(n_tokens, token_dim, size).to(device).eval()
    x_BKD = torch.randn(batch, n_tokens, token_dim, device=device)
    zero_B = torch.zeros(batch, device=device)
    told = FlowCondition(x_BKD, torch.zeros_like(x_BKD), zero_B, zero_B.bool(), zero_B.bool())
    grid = torch.linspace(0, 1, 9, device=device)

    @torch.no_grad()
    def sample() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            resolve_solver("heun").solve(lambda x, t: flow(x, t, told), x_BKD, grid)

    return batch / seconds_of(sample, device, 1.0, at_once=1)


def settle_memory() -> None:
    """Bring glibc's allocator to where it is in a training.

    Whatever was read before, 32 MB were freed at once, and from then on as much is kept for the
    next step instead of being taken from the system page by page.
    """
    torch.empty(8_000_000)


def peak_memory(device: torch.device) -> float:
    """Most memory taken so far, GB; on CUDA of the device since the last reset."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def measure(
    name: str,
    size: DiTConfig,
    device: torch.device,
    *,
    n_tokens: int = 6,
    token_dim: int = 8,
    batch: int = 192,
    half: bool = False,
    compiled: bool = False,
) -> dict[str, Any]:
    """Measure training and sampling of one network."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        # What was compiled for another size must not make this one general.
        torch._dynamo.reset()
    torch.manual_seed(0)
    settle_memory()
    step = FlowStep(size, n_tokens, token_dim, batch, device, half=half, compiled=compiled)
    started = time.perf_counter()
    step()
    _wait(device)
    first = time.perf_counter() - started
    least = 0.7 if device.type == "cuda" else 2.0
    whole = seconds_of(step, device, least)
    shares = shares_of(step, device)
    flops = 3 * batch * cost_of(size, n_tokens, token_dim).flops
    dtype = torch.bfloat16 if half else torch.float32
    rate = matmul_rate(batch, size, n_tokens, device, dtype)
    row = {
        "network": name,
        "latent_tokens": n_tokens,
        "token_dim": token_dim,
        "batch": batch,
        "precision": "bf16" if half else "float32",
        "compiled": compiled,
        "step_ms": 1e3 * whole,
        "first_step_s": first,
        "train_cells_per_s": batch / whole,
        "assemble_share": shares["assemble"],
        "optimizer_ema_share": shares["update"],
        "matmul_gflops": rate / 1e9,
        "utilisation": flops / whole / rate,
        "peak_gb": peak_memory(device),
        "sample_cells_per_s": sampling_rate(size, n_tokens, token_dim, batch, device, half=half),
    }
    if device.type == "cpu":  # products in compiled code cannot be watched
        row["products_share"] = seconds_of_products(step, device) / whole
    else:
        row["of_peak"] = flops / whole / peak_rate(device)
    print(*(f"{v:.4g}" if isinstance(v, float) else v for v in row.values()), flush=True)
    return row


def write(rows: list[dict[str, Any]], path: Path, device_name: str) -> None:
    """Write the table with the machine and the date."""
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    more = {"device": device_name, "torch": torch.__version__, "date": date}
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*names, *more], restval="")
        writer.writeheader()
        for row in rows:
            rounded = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()}
            writer.writerow({**rounded, **more})


def cpu_name() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
