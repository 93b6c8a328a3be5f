"""Cells at other times than their own, and new cells between two times of training.

This package may import what ``inference`` may.
"""
