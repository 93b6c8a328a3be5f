"""Cells that stay on disk, and files that are looked at before they are believed."""
