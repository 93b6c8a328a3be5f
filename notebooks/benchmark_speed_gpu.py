"""Speed on one or more GPUs: bfloat16, compiled; both stages and sampling.

    python notebooks/benchmark_speed_gpu.py docs/results/speed_gpu.csv
    torchrun --nproc-per-node 8 notebooks/benchmark_speed_gpu.py docs/results/speed_gpu_8.csv

Needs torch, numpy, scipy and lightning, and the folder `celldit/` on the path. Under torchrun each
process measures its own GPU at the same time as the others, with gradients averaged between them by
DistributedDataParallel; the first writes the table, of its own cells per second.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from speed import FlowStep, LatentStep, measure, peak_memory, seconds_of, write

from celldit.nn.sizes import SIZES

BATCHES = {"celldit-S": 65_536, "celldit-B": 16_384, "celldit-L": 4_096, "celldit-XL": 1_024}
TOKENS = (16, 32, 64, 128, 256)


def data_parallel(name: str, batch: int, device: torch.device) -> dict[str, object]:
    """A step whose gradients are averaged between all processes."""
    world = torch.distributed.get_world_size()
    # Of a batch that all draw, each process keeps its share.
    step = FlowStep(SIZES[name], 6, 8, batch * world, device, half=True)
    flow = torch.nn.parallel.DistributedDataParallel(step.stage.flow, [device.index])
    step.stage.velocity = torch.compile(flow)
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


def main(out: Path) -> None:
    """Write one row per network, one for stage one, and those for growing numbers of tokens."""
    if not torch.cuda.is_available():
        raise SystemExit("No GPU is found; run benchmark_speed_cpu.py instead.")
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    # Stage one is float32; its products may use TF32, as torch's own default recommends.
    torch.set_float32_matmul_precision("high")
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    rows: list[dict[str, object]] = []
    if several:
        torch.distributed.init_process_group("nccl")
        for name, batch in BATCHES.items():
            rows.append(data_parallel(name, batch, device))
    else:
        for name, batch in BATCHES.items():
            rows.append(
                measure(name, SIZES[name], device, batch=batch, half=True, compiled=True)
            )
        rows.append(
            measure("celldit-L", SIZES["celldit-L"], device, batch=4_096, half=True, compiled=False)
        )
        for n_tokens in TOKENS:
            rows.append(
                measure(
                    "celldit-L",
                    SIZES["celldit-L"],
                    device,
                    n_tokens=n_tokens,
                    token_dim=4,
                    batch=256,
                    half=True,
                    compiled=True,
                )
            )
        step = seconds_of(LatentStep(4_096, device), device)
        rows.append(
            {
                "network": "autoencoder, 2,000 genes",
                "latent_tokens": 6,
                "token_dim": 8,
                "batch": 4_096,
                "precision": "float32",
                "compiled": False,
                "step_ms": 1e3 * step,
                "train_cells_per_s": 4_096 / step,
                "peak_gb": peak_memory(device),
            }
        )
    if rank == 0:
        write(rows, out, torch.cuda.get_device_name(device))
    if several:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
