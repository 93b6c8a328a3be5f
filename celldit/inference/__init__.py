"""What a trained model is asked: it is read here and nothing is fitted.

This package may import every room above it: ``calibration``, ``training``'s results, ``flow``,
``latent``, ``effects``, ``conditions``, ``tokenizers`` and ``data``.
"""
