"""What is added to the log rates of cells, so that their means are where they are known to be.

This package may import what ``inference`` may.
"""
