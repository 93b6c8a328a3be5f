"""Speed on one or more GPUs: bfloat16, compiled; both stages and sampling.

    python notebooks/benchmarks/speed_gpu.py docs/results/speed_gpu.csv
    torchrun --nproc-per-node 8 notebooks/benchmarks/speed_gpu.py docs/results/speed_gpu_8.csv

Needs torch, numpy, scipy and lightning, and the folder `celldit/` on the path. Beside the table,
where the time of a step of celldit-L goes is written, to `profile_gpu.txt` for `speed_gpu.csv`.
Under torchrun each process measures its own GPU at the same time as the others, with gradients
averaged between them by DistributedDataParallel; the first writes the table, of its own cells per
second.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from speed import FlowStep, measure, peak_memory, seconds_of, write
from torch.profiler import ProfilerActivity

from celldit.nn.dit import SIZES
from celldit.training.devices.cuda import compile_network

BATCHES = {"celldit-S": 65_536, "celldit-B": 16_384, "celldit-L": 4_096, "celldit-XL": 1_024}
SMALL = ((False, False), (True, False), (True, True))
"""How a network at its default batch may be trained: in half precision, compiled."""
N_PROFILED = 3
TOKENS = (16, 32, 64, 128, 256)


def data_parallel(name: str, batch: int, device: torch.device) -> dict[str, object]:
    """A step whose gradients are averaged between all processes."""
    world = torch.distributed.get_world_size()
    # Of a batch that all draw, each process keeps its share.
    step = FlowStep(SIZES[name], 6, 8, batch * world, device, half=True)
    compile_network(step.stage.flow)
    flow = torch.nn.parallel.DistributedDataParallel(step.stage.flow, [device.index])
    step.stage.velocity = flow
    seconds = seconds_of(step, device)
    return {
        "network": f"{name}, {world} processes",
        "latent_tokens": 6,
        "token_dim": 8,
        "batch": batch * world,
        "precision": "bf16",
        "compiled": True,
        "step_ms": 1e3 * seconds,
        "train_cells_per_s": batch * world / seconds,
        "peak_gb": peak_memory(device),
    }


def profile(out: Path, device: torch.device) -> None:
    """Write which kernels the time of a step of celldit-L goes to."""
    step = FlowStep(
        SIZES["celldit-L"], 6, 8, BATCHES["celldit-L"], device, half=True, compiled=True
    )
    step(), step()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(N_PROFILED):
            step()
        torch.cuda.synchronize()
    kernels = sorted(profiler.key_averages(), key=lambda kernel: -kernel.self_device_time_total)
    total = sum(kernel.self_device_time_total for kernel in kernels)
    lines = [
        f"celldit-L, 6 x 8, batch {BATCHES['celldit-L']}, bf16, compiled; "
        f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}",
        f"kernels take {total / 1e3 / N_PROFILED:.1f} ms of a step",
        "",
        f"{'kernel':100} {'share':>6} {'ms a step':>10} {'calls a step':>13}",
    ]
    for kernel in kernels[:32]:
        own = kernel.self_device_time_total
        lines.append(
            f"{kernel.key[:100]:100} {100 * own / total:5.1f}% {own / 1e3 / N_PROFILED:10.2f} "
            f"{kernel.count / N_PROFILED:13.0f}"
        )
    out.write_text("\n".join(lines) + "\n")


def main(out: Path) -> None:
    """Write one row per network, and those for growing numbers of tokens."""
    if not torch.cuda.is_available():
        raise SystemExit("No GPU is found; run speed_cpu.py instead.")
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    # Products of float32 may use TF32, as torch's own default recommends.
    torch.set_float32_matmul_precision("high")
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    rows: list[dict[str, object]] = []

    def add(row: dict[str, object]) -> None:
        """Keep what is measured so far."""
        rows.append(row)
        if rank == 0:
            write(rows, out, torch.cuda.get_device_name(device))

    if several:
        torch.distributed.init_process_group("nccl")
        for name, batch in BATCHES.items():
            add(data_parallel(name, batch, device))
        torch.distributed.destroy_process_group()
        return
    small, large = SIZES["celldit-S"], SIZES["celldit-L"]
    for compiled in (True, False):
        options = {"batch": BATCHES["celldit-L"], "half": True, "compiled": compiled}
        add(measure("celldit-L", large, device, **options))
    profile(out.with_name(out.stem.replace("speed", "profile") + ".txt"), device)
    for n_tokens in TOKENS:
        options = {"n_tokens": n_tokens, "token_dim": 4, "batch": 256, "half": True}
        add(measure("celldit-L", large, device, **options, compiled=True))
    for half, compiled in SMALL:
        add(measure("celldit-S", small, device, half=half, compiled=compiled))
    for name in ("celldit-S", "celldit-B", "celldit-XL"):
        add(measure(name, SIZES[name], device, batch=BATCHES[name], half=True, compiled=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
