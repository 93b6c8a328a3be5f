"""How far to believe each estimate, decided by what was left out of it.

This package may import ``flow``, ``latent``, ``effects``, ``conditions`` and what they import.
"""
