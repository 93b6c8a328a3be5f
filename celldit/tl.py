"""Tools."""

