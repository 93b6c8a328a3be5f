"""Neural building blocks. Torch only: nothing here knows what a cell is."""
