"""Figures of gene sets: what carries a shift, and what the network reads together."""
