"""How counts of new cells are drawn from their latents, so that they scatter as measured ones.

This package may import what ``calibration`` may.
"""
