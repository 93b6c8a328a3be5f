"""Figures of log fold changes: of one perturbation, of many, along doses and times."""
