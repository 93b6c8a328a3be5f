"""Where training runs: GPUs, several processes, shards."""
