"""The score of Arc's challenge of 2026: six measures between mean response and replicate."""
