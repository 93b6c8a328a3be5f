"""What is written to disk whole or not at all: model folders, predictions, shards.

This package may import every room above it but ``evaluation``, ``tl``, ``pl`` and ``cli``.
"""
