"""Commands that ask measured cells, without a model."""
