"""A page to explore predicted effects with, in one file that needs no network."""
