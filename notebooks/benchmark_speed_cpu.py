"""Speed on a CPU, one thread: both stages, sampling, and where the time of a step goes.

    python notebooks/benchmark_speed_cpu.py docs/results/speed_cpu.csv [--profile]

Times are medians. With ``--profile`` a table of torch.profiler for a step of the default network is
printed first.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from speed import FlowStep, LatentStep, cpu_name, measure, peak_memory, seconds_of, write

from celldit.nn.sizes import SIZES

CPU = torch.device("cpu")
TOKENS = (16, 32, 64, 128, 256)


def profile() -> None:
    """Print where the time of ten steps of the default network goes."""
    step = FlowStep(SIZES["celldit-S"], 6, 8, 192, CPU)
    step(), step()
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(10):
            for part in ("assemble", "compute", "update"):
                with torch.profiler.record_function(f"## {part}"):
                    getattr(step, part)()
    print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=25))
    print(profiler.key_averages().table(sort_by="cpu_time_total", row_limit=8))


def main(out: Path) -> None:
    """Write one row per network and number of tokens, and one for stage one."""
    torch.set_num_threads(1)
    if "--profile" in sys.argv:
        profile()
    rows = []
    for name in ("celldit-S", "celldit-B"):
        rows.append(measure(name, SIZES[name], CPU))
    for n_tokens in TOKENS:
        rows.append(
            measure("celldit-S", SIZES["celldit-S"], CPU, n_tokens=n_tokens, token_dim=4, batch=32)
        )
    step = seconds_of(LatentStep(256, CPU), CPU)
    rows.append(
        {
            "network": "autoencoder, 2,000 genes",
            "latent_tokens": 6,
            "token_dim": 8,
            "batch": 256,
            "precision": "float32",
            "compiled": False,
            "step_ms": 1e3 * step,
            "train_cells_per_s": 256 / step,
            "peak_gb": peak_memory(CPU),
        }
    )
    load = f"{cpu_name()}, 1 of {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    write(rows, out, load)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
