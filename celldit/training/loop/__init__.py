"""What every run of training shares: the Trainer, rates, averages, progress, a stop at NaN."""
