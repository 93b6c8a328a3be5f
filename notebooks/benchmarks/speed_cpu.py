"""Speed on a CPU, one thread: both stages, sampling, and where the time of a step goes.

    python notebooks/benchmarks/speed_cpu.py docs/results/speed_cpu.csv
    python notebooks/benchmarks/speed_cpu.py docs/results/profile_cpu.txt --profile

Times are medians. With ``--profile`` the file is a table of torch.profiler for a step of the
default network instead.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from speed import (
    FlowStep,
    cpu_name,
    measure,
    settle_memory,
    write,
)

from celldit.nn.dit import SIZES

CPU = torch.device("cpu")
TOKENS = (16, 32, 64, 128, 256)


def profile(out: Path) -> None:
    """Write where the time of ten steps of the default network goes."""
    settle_memory()
    step = FlowStep(SIZES["celldit-S"], 6, 8, 192, CPU)
    step(), step()
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(10):
            for part in ("assemble", "compute", "update"):
                with torch.profiler.record_function(f"## {part}"):
                    getattr(step, part)()
    total = sum(event.self_cpu_time_total for event in profiler.key_averages())
    lines = [f"{'operation':44} {'itself':>8} {'with parts':>11} {'calls a step':>13}"]
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    marked = [event for event in events if event.key.startswith("##")]
    for event in [*marked, *[e for e in events if e not in marked][:22]]:
        own, whole = (100 * t / total for t in (event.self_cpu_time_total, event.cpu_time_total))
        lines.append(f"{event.key[:44]:44} {own:7.1f}% {whole:10.1f}% {event.count / 10:13.0f}")
    machine = f"{cpu_name()}, 1 thread, torch {torch.__version__}"
    out.write_text("\n".join([f"celldit-S, 6 x 8, batch 192; {machine}", "", *lines]) + "\n")


def main(out: Path) -> None:
    """Write one row per network and number of tokens."""
    torch.set_num_threads(1)
    if "--profile" in sys.argv:
        profile(out)
        return
    rows = []
    for name in ("celldit-S", "celldit-B"):
        rows.append(measure(name, SIZES[name], CPU))
    for n_tokens in TOKENS:
        rows.append(
            measure("celldit-S", SIZES["celldit-S"], CPU, n_tokens=n_tokens, token_dim=4, batch=32)
        )
    load = f"{cpu_name()}, 1 of {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    write(rows, out, load)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
