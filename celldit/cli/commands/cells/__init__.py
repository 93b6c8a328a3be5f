"""Commands that write cells."""
