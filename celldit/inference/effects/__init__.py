"""Which genes change and how sure that is, for any condition, as numbers, tables and sentences."""
